"""What the node does, without ROS: messages become frames, pairs become fused images, and all is counted.

Messages are anything with the fields of sensor_msgs/msg/Image. Humble, Jazzy and Lyrical have the same ones.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cled_edge import Controls, Frame, FramePair, FusedFrame
from cled_edge.camera.ros_image import raw_image
from cled_edge.contract import CONTROLS, Control
from cled_edge.control_box import ControlBox
from cled_edge.errors import CledEdgeError, SourceUnreadableError
from cled_edge.memory import Memory
from cled_edge.queues import BoundedQueue
from cled_edge.stage_times import LatencyLog

ROS = "ros"  # the clock of ROS stamps: the wall clock, or that of a simulation
OK, WARN, ERROR = 0, 1, 2  # of diagnostic_msgs/msg/DiagnosticStatus, where they are bytes
STALE_S = 2.0


class Fusing(Protocol):
    """What is needed of `cled_edge.Fuser`."""

    def fuse_pair(self, pair: FramePair, controls: Controls, memory: Memory) -> FusedFrame:
        """Fuse a pair; memory: of the stream, for steadiness."""


@dataclass(frozen=True)
class Fused:
    """What is published for a pair, under the header of its visible message."""

    header: Any
    frame: FusedFrame
    now_ns: int


def frame_of(message: Any, sequence: int, name: str) -> Frame:
    """Return a message as a frame; SourceUnreadableError for a damaged one, and for an encoding that is not read."""
    shape = message.height, message.width, message.encoding, bool(message.is_bigendian), message.step
    try:
        image, order = raw_image(*shape, message.data, name)
    except ValueError as error:
        raise SourceUnreadableError(
            f"{name} has an image of {len(message.data)} bytes; needed {message.height} rows of {message.step}; look "
            "at what publishes it"
        ) from error
    return Frame(image, stamp_ns(message.header.stamp), ROS, sequence, name, order)


def stamp_ns(stamp: Any) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def image_fields(image: NDArray[np.uint8], color_order: str = "RGB") -> dict[str, Any]:
    """Return the fields of a sensor_msgs/msg/Image, but its header, of an image (H, W) or (H, W, 3)."""
    height, width = image.shape[:2]
    encoding = "mono8" if image.ndim == 2 else "rgb8" if color_order == "RGB" else "bgr8"
    data = np.ascontiguousarray(image).tobytes()
    return {
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": len(data) // height,
        "data": data,
    }


def parameter_of(entry: Control) -> tuple[float | int, float, float]:
    """Return a control's value, low and high as a ROS parameter has them: 0 stands for one that is not set."""
    kind: type = int if entry.is_whole else float
    low = kind(0 if entry.default is None else entry.low)
    return kind(entry.default or 0), low, kind(entry.high)


class Bridge:
    """Takes pairs of messages on any thread, and fuses the newest on one of its own.

    publish: called with each fused pair, on that thread. now_ns: by the clock of the stamps. registrar: see
    `cled_edge.registration.warp.Registrar`; None for registered cameras.
    """

    def __init__(
        self,
        fuser: Fusing,
        publish: Callable[[Fused], None],
        *,
        now_ns: Callable[[], int] = time.time_ns,
        registrar: Callable[[FramePair], FramePair] | None = None,
        check: Callable[[Controls], None] = lambda _controls: None,
        entries: tuple[Control, ...] = CONTROLS,
    ) -> None:
        self.box = ControlBox(check=check, entries=entries)
        self._fuser, self._publish, self._now_ns, self._registrar = fuser, publish, now_ns, registrar
        self._queue: BoundedQueue[tuple[Any, Any]] = BoundedQueue(1, drops=True)
        self._latency, self._fused = LatencyLog(), 0
        self._failure = ""
        self._last: Fused | None = None
        self._told_fused, self._told_ns = 0, now_ns()
        self._thread = threading.Thread(target=self._run, name="fuse", daemon=True)

    def start(self) -> None:
        """Begin to fuse."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pair in work."""
        self._queue.close(empty=True)
        self._thread.join(2)

    def take(self, infrared: Any, visible: Any) -> None:
        """Take a pair of messages, in place of one that waits; never wait."""
        self._queue.put((infrared, visible))

    def set_parameters(self, values: dict[str, float | int]) -> str:
        """Turn controls by the values of parameters, all or none; return why not, "" if they hold."""
        known = {entry.name: entry for entry in CONTROLS}
        turned = {
            name: None if value == 0 and known[name].default is None else value
            for name, value in values.items()
            if name in known
        }
        try:
            self.box.change(**turned)
        except CledEdgeError as error:
            return str(error)
        return ""

    def diagnostics(self) -> tuple[int, str, dict[str, str]]:
        """Return level, message and values of a DiagnosticStatus, since the last one."""
        now_ns, last = self._now_ns(), self._last
        seconds = max((now_ns - self._told_ns) / 1e9, 1e-9)
        rate_hz = (self._fused - self._told_fused) / seconds
        self._told_fused, self._told_ns = self._fused, now_ns
        values = {"fused": str(self._fused), "overtaken": str(self._queue.dropped), "rate_hz": f"{rate_hz:.1f}"}
        values |= {name: str(value) for name, value in vars(self.box.current).items() if value is not None}
        if last is not None:
            values |= {
                "infrared_age_ms": f"{(now_ns - last.frame.pair.infrared.timestamp_ns) / 1e6:.1f}"
                if last.frame.pair
                else "",
                "skew_ms": f"{(last.frame.skew_ns or 0) / 1e6:.1f}",
            }
            values |= {f"{stage}_p99_ms": str(row["p99"]) for stage, row in self._latency.summary_ms().items()}
        if self._failure:
            return ERROR, self._failure, values
        if last is None:
            return WARN, "no pair yet: both topics must have images within the slop of each other", values
        if now_ns - last.now_ns > STALE_S * 1e9:
            return ERROR, f"no pair for {(now_ns - last.now_ns) / 1e9:.0f} s: a camera is lost, or they drift", values
        if self.box.refusal:
            return WARN, f"controls were withdrawn: {self.box.refusal}", values
        return OK, "fusing", values

    def _run(self) -> None:
        sequence, memory = 0, Memory()
        while (drawn := self._queue.get()) is not None:
            infrared, visible = drawn
            controls = self.box.current
            try:
                pair = FramePair(frame_of(infrared, sequence, "infrared"), frame_of(visible, sequence, "visible"))
                pair = self._registrar(pair) if self._registrar else pair
                frame = self._fuser.fuse_pair(pair, controls, memory)
            except CledEdgeError as error:
                if not self.box.withdraw(controls, str(error)):
                    self._failure = str(error)  # told by the diagnostics; the next pair may be better
                continue
            self.box.prove(controls)
            sequence += 1
            self._failure = ""
            self._latency.add(frame.latency_ns)
            self._fused += 1
            self._last = Fused(visible.header, frame, self._now_ns())
            self._publish(self._last)
