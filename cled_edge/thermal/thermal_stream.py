"""The frames of a thermal camera, one after another: counts in, steady 8-bit grey out, shutter events named."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import OptionError
from cled_edge.thermal.agc import Agc
from cled_edge.thermal.bad_pixels import StuckPixels, repaired
from cled_edge.thermal.grey import COLORED, Thermal, band_of, is_colored, noise_of, sampled, scene_of, stretched
from cled_edge.thermal.shutter import ShutterWatch, Sight

Gain = Literal["auto", "stream", "image"]
SEEN = "the infrared camera closed its shutter: frozen frames are not taken for fresh ones"
_ORDER, _ORDER_S = "order", 0.1  # the clock of what has no time, see `cled_edge.frame.ORDER`; seconds a frame then
_JUMP_S = 1.0  # by which stamps and arrivals may differ
_LONGEST_S, _FORGOTTEN_S = 0.3, 10.0  # a pause moves the gain as this long does; after that the gain starts anew

_SETTLING = 0.2  # so much slower moves the gain soon after a shutter, while the level drifts


class _CameraFrame(Protocol):
    """What is needed of `cled_edge.frame.Frame`, a layer above."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def image(self) -> NDArray[Any]: ...
    @property
    def timestamp_ns(self) -> int: ...
    @property
    def clock(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def color_order(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def event(self) -> str: ...
    @property
    def arrival_ns(self) -> int | None: ...


F = TypeVar("F", bound=_CameraFrame)


@dataclass(frozen=True)
class Reading:
    """What the camera measured at a pixel. counts: as it gave them. kelvin: None unless it gives temperatures."""

    counts: int
    kelvin: float | None


class ThermalStream:
    """Turns the frames of one infrared camera, in their order, into 8-bit grey. Use one for each camera and run.

    Counts stay counts until the gain. Pixels that stand alone, or stay while the scene moves, are replaced in them. The
    gain is steady: see `Agc`. A frame that the shutter froze or covered, and the first one after it, has the event
    "shutter"; across it the mean grey level stays what it was.

    thermal: range, polarity, and whether bad pixels are replaced.
    gain: "auto" gives 16 bit a steady gain over time, leaves 8 bit as it is, and takes images that are no recording
        one by one; "stream" is steady for 8 bit too; "image" stretches 16 bit image by image. A range in counts wins.
    lock_after_s: the gain is held from then on; None never holds it.
    kelvin_per_count: of a camera that gives temperatures, such as 0.01; None if it does not.
    crop_rows: rows above and below that show nothing of the scene, such as telemetry. They come out black.

    is_locked: may be set at any time, from any thread: the gain is held while it is true. events: how many frames had
    which. bad_pixels: how many are known to stay.
    """

    def __init__(
        self,
        thermal: Thermal | None = None,
        *,
        gain: Gain = "auto",
        lock_after_s: float | None = None,
        kelvin_per_count: float | None = None,
        crop_rows: tuple[int, int] = (0, 0),
    ) -> None:
        if gain not in get_args(Gain):
            raise OptionError(f"the infrared gain is {gain!r}; known: {', '.join(get_args(Gain))}; choose one")
        for name, value in (("lock_after_s", lock_after_s), ("kelvin_per_count", kelvin_per_count)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise OptionError(f"{name} is {value}; needed a number above 0; correct it")
        self.thermal = Thermal() if thermal is None else thermal
        self.gain, self.lock_after_s, self.kelvin_per_count = gain, lock_after_s, kelvin_per_count
        self.crop_rows = crop_rows
        self.events: Counter[str] = Counter()
        self._agc = Agc()
        self._time_s = 0.0  # since the first frame
        self._newest: NDArray[Any] | None = None
        self._before: _CameraFrame | None = None
        self._forget()

    def _forget(self) -> None:
        self._agc.restart()
        self._watch, self._stuck = ShutterWatch(), StuckPixels()
        self._grey: NDArray[np.uint8] | None = None
        self._level = 0.0  # mean grey level of the last fresh scene

    @property
    def is_locked(self) -> bool:
        """Whether the gain is held."""
        return self._agc.is_locked

    @is_locked.setter
    def is_locked(self, value: bool) -> None:
        self._agc.is_locked = value

    @property
    def bad_pixels(self) -> int:
        """How many pixels are known to stay while the scene moves."""
        return self._stuck.count

    def __str__(self) -> str:
        """Say what is done, in one line."""
        if self.gain == "image" or self.thermal.range_counts:
            return str(self.thermal)
        said = str(self.thermal)
        if self.gain == "stream":
            return said.replace("8 bit as it is, 16 bit stretched", "stretched over time")
        return said.replace("16 bit stretched", "16 bit stretched over time")

    def reading(self, row: int, column: int) -> Reading | None:
        """Return what the newest frame measured at a pixel of the camera, None before the first.

        OptionError for a pixel outside.
        """
        counts = self._newest
        if counts is None:
            return None
        height, width = counts.shape
        if not (0 <= row < height and 0 <= column < width):
            raise OptionError(
                f"pixel {row}, {column} (row, column) is outside of {height}x{width}; needed one inside; correct it"
            )
        value = int(counts[row, column])
        return Reading(value, None if self.kelvin_per_count is None else value * self.kelvin_per_count)

    def __call__(self, frame: F) -> F:
        """Return the frame in 8-bit grey, (H, W), with its event. What is no image of 8 or 16 bit passes as it is."""
        values = _one_channel(frame)
        above, below = self.crop_rows
        if values is None or min(above, below) < 0 or above + below >= len(values):
            return frame  # whoever takes or crops it says so
        if self._newest is not None and not self._follows(frame, values, self._newest):
            self._forget()
        self._time_s += self._passed_s(frame)
        self._before, self._newest = frame, values
        values = values[above : len(values) - below]
        has_counts = values.dtype == np.uint16 or self.gain == "stream"
        sight = self._watch.see(values, self._time_s, has_level=has_counts)
        if sight.is_fresh or self._grey is None:
            self._grey = self.thermal.turned(self._fresh_grey(self._mended(values), sight, has_counts))
        self._lock()
        event = frame.event or sight.event
        if event:
            self.events[event] += 1
        notes = (*((COLORED,) if is_colored(frame.image) else ()), *((SEEN,) if sight.event else ()))
        grey = self._grey
        if above or below:
            grey = np.pad(grey, ((above, below), (0, 0)))
        return replace(frame, image=grey, event=event, notes=(*frame.notes, *notes))

    def _mended(self, values: NDArray[Any]) -> NDArray[Any]:
        if not self.thermal.repair_pixels:
            return values
        self._stuck.see(values)
        return repaired(self._stuck.filled(values))

    def _fresh_grey(self, values: NDArray[Any], sight: Sight, has_counts: bool) -> NDArray[np.uint8]:
        if self.thermal.range_counts:
            return stretched(values, *self.thermal.range_counts)
        if not has_counts:
            return np.ascontiguousarray(values, dtype=np.uint8)
        if self.gain == "image":
            return stretched(values, *band_of(values))
        sample = sampled(values)
        scene, noise = sample[scene_of(sample)], noise_of(values)
        if sight.jump:
            self._agc.bridge(scene, sight.jump, self._level)
        elif sight.passed_s > _FORGOTTEN_S:
            self._agc.restart()
        else:
            self._agc.drift(sight.drift)
        passed_s = sight.passed_s if sight.passed_s > 0 else _ORDER_S  # stamps that stand still, or go back
        hurry = _SETTLING if sight.jump or sight.settles else 1.0
        tone = self._agc.see(scene, noise, hurry * min(passed_s, _LONGEST_S))
        self._level = float(tone.levels(scene.astype(np.float32)).mean())
        return tone.grey(values)

    def _passed_s(self, frame: _CameraFrame) -> float:
        """Return the time since the frame before, by the stamps; by the arrivals where their clock jumps."""
        last = self._before
        if last is None:
            return 0.0
        if frame.clock == _ORDER:
            return _ORDER_S
        passed_s = (frame.timestamp_ns - last.timestamp_ns) / 1e9
        if frame.arrival_ns is not None and last.arrival_ns is not None:
            arrived_s = (frame.arrival_ns - last.arrival_ns) / 1e9
            return passed_s if frame.clock == last.clock and abs(passed_s - arrived_s) < _JUMP_S else arrived_s
        return passed_s if frame.clock == last.clock else _ORDER_S

    def _lock(self) -> None:
        if self.lock_after_s is not None and self._time_s >= self.lock_after_s:
            self._agc.is_locked, self.lock_after_s = True, None

    def _follows(self, frame: _CameraFrame, values: NDArray[Any], last: NDArray[Any]) -> bool:
        """Say whether a frame is of the same recording as the last; pictures must look so, and be numbered so."""
        if values.shape != last.shape or values.dtype != last.dtype:
            return False
        if frame.clock != _ORDER or self.gain != "auto" or self._before is None:
            return True
        if frame.name and _next_name(self._before.name) != frame.name:
            return False
        now, before = (image[::4, ::4].astype(np.float32) for image in (values, last))
        change = now - before
        unlike = float(np.median(np.abs(change - np.median(change))))
        low, high = np.percentile(before, [1, 99])
        return unlike <= 0.2 * float(high - low) + 1


def _one_channel(frame: _CameraFrame) -> NDArray[Any] | None:
    """Return the values in one channel, the luma of three, or None for what no fuser takes."""
    image = frame.image
    if not isinstance(image, np.ndarray) or image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        return None
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.ndim == 3 and image.shape[2] == 3 and image.size:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if frame.color_order == "BGR" else cv2.COLOR_RGB2GRAY)
    elif image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    return image if image.ndim == 2 and image.size else None


def _next_name(name: str) -> str:
    """Return the name that numbering gives the next picture: 00009 before 00010; "" if it has no number."""
    parts = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
    if parts is None:
        return ""
    head, number, tail = parts.groups()
    return f"{head}{int(number) + 1:0{len(number)}d}{tail}"
