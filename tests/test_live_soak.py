"""Many frames through the real threads: readers, queues, pairing, states, loop and outputs, with faults of every kind.

CLED_EDGE_SOAK_FRAMES says how many frames; the fault injector is seeded.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from cled_edge import live
from cled_edge.address import Address
from cled_edge.areas import Areas
from cled_edge.camera.live_source import LiveSource
from cled_edge.camera.source import Camera
from cled_edge.errors import SourceUnreadableError
from cled_edge.frame import MONOTONIC, Frame, FramePair, FusedFrame
from cled_edge.live_pairing import MODALITIES, TimePairer
from cled_edge.live_pairs import LivePairs
from cled_edge.output import fanout
from cled_edge.output.sink import Output, output_address
from cled_edge.pair_facts import timed

FRAMES = int(os.environ.get("CLED_EDGE_SOAK_FRAMES", "12000"))
SHAPES = (24, 32), (24, 32, 3)


class Faulty(Camera):
    """Gives its share of the frames in some lives: lost now and then, with shutters, wrong stamps and bursts."""

    is_live = True

    def __init__(self, index: int, count: int) -> None:
        super().__init__(Address("fake", "fake", "fake"))
        self.index, self.left, self.given = index, count, 0
        self.dice = random.Random(index)

    def __iter__(self) -> Iterator[Frame]:
        stamp_ns = 0
        for number in range(self.left):
            chance = self.dice.random()
            if chance < 4 / FRAMES:
                raise SourceUnreadableError("the cable is out; needed a camera; plug it in")
            if chance > 0.9:
                time.sleep(0.001 * self.dice.random())
            image = np.full(SHAPES[self.index], number % 251, np.uint8)
            before, stamp_ns = stamp_ns, time.monotonic_ns()
            wrong_ns = {0: 0, 1: before, 2: stamp_ns + 10**10, 3: before - 10**7}
            said_ns = wrong_ns[int(chance * 1e4) % 4] if 0.5 < chance < 0.51 else stamp_ns
            event = "shutter" if 0.7 < chance < 0.71 else ""
            self.left, self.given = self.left - 1, self.given + 1
            yield Frame(image, said_ns, MONOTONIC, number, "fake", event=event)


class EchoFuser:
    """Returns what it got."""

    color_order = "RGB"
    thermal = None
    backend = SimpleNamespace(description="a fake")
    bundle = SimpleNamespace(manifest=SimpleNamespace(name="fake", schedule=SimpleNamespace(default_steps=1)))
    areas, is_looked_at = Areas(()), False

    def warm_up(self, size: tuple[int, int], controls: object) -> None:
        """Do nothing."""

    def fuse_pair(self, pair: FramePair, controls: object, *_more: object) -> FusedFrame:
        assert not pair.infrared.event
        assert pair.degraded or abs(pair.skew_ns) <= 150_000_000
        return timed(FusedFrame(pair.visible.image, pair.infrared.image, pair.visible.image), pair)


class Counting(Output):
    def __init__(self, seen: Counter[str]) -> None:
        super().__init__(output_address("fake"))
        self.seen = seen

    def write(self, frame: FusedFrame) -> bool:
        self.seen[frame.degraded] += 1
        return True


def test_the_law_holds_through_all_threads_and_memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    monkeypatch.setattr(fanout, "open_output", lambda *_: Counting(seen))
    threads = threading.active_count()
    cameras = [Faulty(index, FRAMES // 2) for index in (0, 1)]
    arrived = threading.Condition()
    sources = [LiveSource(name, open=lambda _, k=k: cameras[k], arrived=arrived) for k, name in enumerate(MODALITIES)]
    pairs = LivePairs(*sources, TimePairer())
    sizes = []

    def note_size() -> None:
        if sum(seen.values()) % 500 == 0:
            sizes.append(psutil.Process().memory_info().rss)

    report = live.fuse_pairs(pairs, EchoFuser(), ["fake"], advance=note_size)
    told = report.as_dict()["live"]
    for camera, source, ledger in zip(cameras, sources, pairs.ledgers.values(), strict=True):
        assert ledger.holds, ledger
        assert ledger.received == source.received == camera.given == FRAMES // 2
    assert sum(told["sources"][name]["reopened"] for name in MODALITIES) > 0
    assert told["ledger"]["infrared"]["dropped"]["shutter"] > 0
    assert told["ledger"]["visible"]["dropped"]["overtaken"] > 0
    assert report.read == report.outputs[0]["written"] + report.outputs[0]["dropped"]
    assert report.failure is None
    assert threading.active_count() == threads
    if FRAMES >= 10**6:
        warm = len(sizes) // 5
        print("RSS in MB", round(sizes[warm] / 1e6, 1), round(max(sizes[warm:]) / 1e6, 1), "written", dict(seen))
        assert max(sizes[warm:]) < 1.01 * sizes[warm]
