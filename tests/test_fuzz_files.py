"""Damaged files of other kinds than bundles: each ends in an error of ours, in one line, or is read.

FUZZ_CASES=20000 FUZZ_FIRST=100000 python -m pytest tests/test_fuzz_files.py

Cases are numbered, and a number gives the same case on every machine: bytes are changed, or a value of the text. A
third of FUZZ_CASES are run, each in 5 s of processor time. Bundles and checkpoints are in tests/bundle/test_fuzz.py.
"""

import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.backend.tensorrt.store import read_record
from cled_edge.bench.record import Record
from cled_edge.bundle.signature import read_public_key, write_key_pair
from cled_edge.camera.source import open_camera
from cled_edge.config import read_config
from cled_edge.decoder import read_pages
from cled_edge.errors import CledEdgeError
from cled_edge.frame import MEDIA, Frame, FramePair
from cled_edge.registration.calibration import Calibration, distance_map, read_calibration
from cled_edge.registration.lens import PixelMap
from cled_edge.registration.warp import Registrar
from cled_edge.thermal.thermal_stream import ThermalStream
from tests.fakes.bags import RAW, raw, write_db3, write_mcap
from tests.fakes.bench import fake_record
from tests.fakes.engines import small_bundle, write_plan
from tests.fakes.frames import write_video
from tests.fakes.house import ROOT

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of POSIX")

CASES, FIRST = int(os.environ.get("FUZZ_CASES", "2000")) // 3, int(os.environ.get("FUZZ_FIRST", "0"))
LIMIT_S = 5
Read = Callable[[Path], object]
TEXTS = (".toml", ".yaml", ".json")
VALUES = [
    b"nan", b"inf", b"-1e308", b"1e-320", b"0", b"-1", b"1e999", b"9" * 400, b"0x10", b"1979-05-27", b"null", b"true",
    b"[]", b"{}", b"[[[[]]]]", b'""', b'"\\u0000"', b'"\\ud800"', b'"x\\u001b[2J"', b"[" * 20_000,
    b'"%s"' % (b"x" * 5000), b"x%s x" % (b" " * 50_000), b'"x" # %s "' % (b"# " * 20_000),
    b"2147483648", b"[0, 0]", b"\xff\xfe", b"'''", b"0.5",
]  # fmt: skip

# Kinds: a whole file, and what the product does with it ---------------------------------------------------------------


def calibration(path: Path) -> None:
    found = PixelMap(np.array([[0.5, 0.02, 3], [-0.01, 0.5, 2], [1e-5, 0, 1]]), None, None)
    each = distance_map(found, "homography", (48, 64), 0.5, 0.9, 2.0)
    path.write_text(Calibration(mode="scene", infrared_size=(24, 32), visible_size=(48, 64), maps=(each,)).text())


def warp(path: Path) -> None:
    registrar = Registrar(read_calibration(path), size=(48, 64))
    infrared, visible = np.zeros((24, 32), np.uint8), np.zeros((48, 64, 3), np.uint8)
    registrar(FramePair(Frame(infrared, 0, MEDIA, 0, "i"), Frame(visible, 0, MEDIA, 0, "v")))


def robot(path: Path) -> None:
    path.write_bytes((ROOT / "runtime" / "robot.example.toml").read_bytes())


def configure(path: Path) -> None:
    config = read_config(path)
    config.cameras.thermal_stream()


def result(path: Path) -> None:
    path.write_text(fake_record({"nano": [[1.0, 2.0], [1.5, 2.5]]}).to_json())


def picture(path: Path) -> None:
    image = np.arange(48 * 64, dtype=np.uint16 if path.suffix in (".tif", ".pgm") else np.uint8).reshape(48, 64)
    assert cv2.imwrite(str(path), image)


def pages(path: Path) -> None:
    stream = ThermalStream()
    for number, page in enumerate(read_pages(path)):
        stream(Frame(page.image, number * 10**8, MEDIA, number, path.name))


def bag(path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    messages = [("/a", RAW, at, raw(image, "mono8", at)) for at in range(1, 10**9, 10**8)]
    (write_mcap if path.suffix == ".mcap" else write_db3)(path, messages)


def video(path: Path) -> None:
    rate_hz, images = 25.0, [np.full((32, 48, 3), 20 * k, np.uint8) for k in range(12)]
    write_video(path, images, rate_hz)


def watch(path: Path) -> None:
    with open_camera(str(path)) as camera:
        for number, _ in enumerate(camera):
            assert number < 1000


def key(path: Path) -> None:
    write_key_pair(path.parent / "keys")
    path.write_bytes((path.parent / "keys" / "public.pem").read_bytes())


def engine(path: Path) -> None:
    bundle = small_bundle(path.parent / "small")
    plan = write_plan(bundle, "fusion", (32, 48), "10.3", folder=path.parent / "engines")
    path.write_bytes(next(plan.parent.glob("*.json")).read_bytes())


KINDS: dict[str, tuple[Callable[[Path], None], Read]] = {
    "calibration.yaml": (calibration, warp),
    "robot.toml": (robot, configure),
    "result.json": (result, Record.read),
    "build.json": (engine, lambda path: read_record(path, {})),
    "public.pem": (key, read_public_key),
    "counts.tif": (picture, pages),
    "counts.pgm": (picture, pages),
    "grey.png": (picture, pages),
    "grey.jpg": (picture, pages),
    "grey.webp": (picture, pages),
    "run.mcap": (bag, watch),
    "run.db3": (bag, watch),
    "run.mkv": (video, watch),
    "run.mp4": (video, watch),
    "run.avi": (video, watch),
}

# Cases ----------------------------------------------------------------------------------------------------------------


def spoiled(content: bytes, is_text: bool, rng: random.Random) -> bytes:
    """Return a file with bytes changed, cut, moved or repeated, or with another value behind a `:` or `=`."""
    change = rng.randrange(8)
    places = [found.span(1) for found in re.finditer(rb"[:=][ \t]*([^\n,}\]]+)", content)] if is_text else []
    if places and change < 5:
        begin, end = rng.choice(places)
        return content[:begin] + rng.choice(VALUES) + content[end:]
    a, b, c, d = sorted(rng.randrange(len(content)) for _ in range(4))
    if change == 5:
        return content[:a]
    if change == 6:
        return rng.choice(
            (content[:a] + content[c:d] + content[b:], content[:a] + content[d:], content[:b] + content[a:])
        )
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(min(len(changed), rng.choice((64, 400, len(changed)))))
        changed[at] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
    return bytes(changed)


@contextmanager
def limited() -> Iterator[None]:
    """Fail after so much processor time: other programs may be at work."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"took over {LIMIT_S} s")

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("name", KINDS)
def test_a_spoiled_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    read(path)
    content, refused = path.read_bytes(), 0
    for seed in range(FIRST, FIRST + max(1, CASES // len(KINDS))):
        path.write_bytes(spoiled(content, path.suffix in TEXTS, random.Random(f"{name} {seed}")))
        words = ""
        try:
            with limited():
                read(path)
        except CledEdgeError as error:
            words = str(error)
        except BaseException as error:
            raise AssertionError(f"case {seed}") from error
        assert not words or words.isprintable(), f"case {seed}"
        assert len(words) < 1000, f"case {seed}"
        refused += bool(words)
    assert refused
