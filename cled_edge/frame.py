"""Frames that know when they were taken, pairs of them, and what fusing a pair gives."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from cled_edge.contract import Controls
from cled_edge.image import ColorOrder, Float32, Uint8, check_color_order, grey_from_any, rgb_from_any

# Names of clocks. Timestamps compare only within one clock; a source may have a clock of another name.
MONOTONIC = "monotonic"  # when it was taken, by this computer's time.monotonic_ns, as video drivers stamp frames
ARRIVAL = "arrival"  # when it arrived, by the same clock: it was taken an unknown time earlier
SENDER = "sender"  # when it was taken, by the wall clock of the camera that sent it, in ns from 1970
MEDIA = "media"  # presentation time in a recording, from its beginning
ORDER = "order"  # no time is known: the timestamp is the frame's place among the others

# How a pair is degraded.
INFRARED_LOST, VISIBLE_LOST, BOTH_LOST = "infrared lost", "visible lost", "both lost"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of one camera, and when it was taken.

    image: uint8 or uint16, (H, W), or (H, W, 3) in `color_order`.
    timestamp_ns: when it was taken, by `clock`: MONOTONIC, ARRIVAL, SENDER, MEDIA, ORDER or the source's own name.
    sequence: its number at its source, from 0; a gap says that frames were lost.
    source: the address that it came from. name: the name it has there, a file's stem, or "" if it has none.
    notes: what the user should know of how it was read, a sentence each.
    event: why the frame is no fresh one, such as "shutter" or "repeated"; "" if it is.
    arrival_ns: when it arrived, by time.monotonic_ns; None for what is not live.
    doubt_ns: where only its arrival tells when it was taken, it may have been so much earlier; 0 if nobody watches.
    """

    image: NDArray[Any]
    timestamp_ns: int
    clock: str
    sequence: int
    source: str
    color_order: ColorOrder = "RGB"
    name: str = ""
    notes: tuple[str, ...] = ()
    event: str = ""
    arrival_ns: int | None = None
    doubt_ns: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown colour order with an OptionError."""
        check_color_order(self.color_order)


@dataclass(frozen=True, eq=False)
class FramePair:
    """An infrared and a visible frame that belong together.

    validity: uint8 (H, W, 2), infrared and visible: 255 where that camera sees the pixel, 0 where it does not. None
    is 255 everywhere.
    taken_ns: when both were taken by this computer's time.monotonic_ns, infrared first; None where that is unknown.
    degraded: INFRARED_LOST, VISIBLE_LOST or BOTH_LOST: what is lost is a black frame; "" if both are there.
    states: of both sources, infrared first, see `SourceState`; None for what is not live.
    number: of the pair, from 0; None for recordings, whose frames have names or numbers of their own.
    """

    infrared: Frame
    visible: Frame
    validity: Uint8 | None = None
    taken_ns: tuple[int | None, int | None] | None = None
    degraded: str = ""
    states: tuple[str, str] | None = None
    number: int | None = None

    @property
    def name(self) -> str:
        """What an output calls the pair: its number, or the visible frame's name or sequence number; six digits."""
        if self.number is not None:
            return f"{self.number:06d}"
        return self.visible.name or f"{self.visible.sequence:06d}"

    def images(self) -> tuple[Uint8, Uint8]:
        """Return grey (H, W) and RGB (H, W, 3), of which 16 bits are stretched by the image itself."""
        infrared, visible = self.infrared, self.visible
        return grey_from_any(infrared.image, infrared.color_order), rgb_from_any(visible.image, visible.color_order)

    @property
    def skew_ns(self) -> int | None:
        """How much later the infrared was taken than the visible; None if their clocks differ or tell no time."""
        if self.taken_ns is not None:
            infrared_ns, visible_ns = self.taken_ns
            return None if infrared_ns is None or visible_ns is None else infrared_ns - visible_ns
        if self.infrared.clock != self.visible.clock or self.infrared.clock == ORDER:
            return None
        return self.infrared.timestamp_ns - self.visible.timestamp_ns

    @property
    def time(self) -> tuple[int, str]:
        """When it was taken, and by which clock: the visible frame, or the infrared one if the visible has no time."""
        if self.taken_ns is not None:
            known = [each for each in reversed(self.taken_ns) if each is not None]
            return (known[0], MONOTONIC) if known else (0, ORDER)
        frame = self.infrared if self.visible.clock == ORDER else self.visible
        return frame.timestamp_ns, frame.clock

    def ages_ns(self, now_ns: int) -> tuple[int | None, int | None]:
        """Return how long ago both were taken, infrared first, by time.monotonic_ns; None where that is unknown."""
        frames = self.infrared, self.visible
        taken = self.taken_ns or tuple(frame.timestamp_ns if frame.clock == MONOTONIC else None for frame in frames)
        infrared_ns, visible_ns = (None if each is None else now_ns - each for each in taken)
        return infrared_ns, visible_ns


@dataclass(frozen=True, eq=False)
class FusedFrame:
    """One fused pair, of the size of its inputs.

    picture: fused, (H, W, 3) uint8 in `color_order`. infrared: restored, (H, W) uint8. visible: restored, (H, W, 3)
    uint8 in `color_order`.
    controls: as they were applied: `steps` is the number that ran, the strength of a flat image is 0.
    latency_ns: time of each stage, by the names in `cled_edge.stage_times.STAGES`.
    timestamp_ns, clock: see `FramePair.time`.
    infrared_age_ns, visible_age_ns: from when a frame was taken until the pair was fused; None if that is unknown, as
    of a recording. skew_ns, degraded, states: see `FramePair`. name: see `FramePair.name`, "" for images that came
    without a frame.
    notes: what the user should know of the inputs, a sentence each. validity: see `FramePair`.
    pair: what it was fused from, registered; None for images that came without a frame.
    kinds: (2, K), infrared first: what the network tells of its kinds of degradation, see `Fuser.kinds`; None if the
    bundle tells none. warm: whether it started from the last frame's estimate, see `Controls.steadiness`.
    uncertainty: (2, H, W) float32, infrared first: within how many grey levels, 0 to 255, the true luma lies around
    that of the restored image of strength 1 and no start noise, at 9 of 10 pixels; None unless it was asked for.
    """

    picture: Uint8
    infrared: Uint8
    visible: Uint8
    controls: Controls = field(default_factory=Controls)
    color_order: ColorOrder = "RGB"
    latency_ns: dict[str, int] = field(default_factory=dict)
    infrared_age_ns: int | None = None
    visible_age_ns: int | None = None
    skew_ns: int | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    timestamp_ns: int | None = None
    clock: str = ORDER
    validity: Uint8 | None = None
    degraded: str = ""
    states: tuple[str, str] | None = None
    pair: FramePair | None = None
    kinds: Float32 | None = None
    warm: bool = False
    uncertainty: Float32 | None = None
