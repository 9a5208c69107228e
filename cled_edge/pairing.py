"""Which infrared frame belongs to which visible one: by name for pictures, by time for recordings."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType

from cled_edge.camera.single_picture import SinglePicture
from cled_edge.camera.source import Camera, open_camera
from cled_edge.data.naming import Names, Stems, modality_of, paired_but_for_modality, shared_stem
from cled_edge.errors import CledEdgeError, NoPairsError, OptionError, SourceUnreadableError, UnmatchedStemsError
from cled_edge.frame import ORDER, Frame, FramePair

_DELAY_S, _ONE_CLOCK_S = 0.25, 60.0
_ROUNDED_NS = 1_000_000  # Matroska keeps whole milliseconds
_NAMED = 3  # stems that an error names before it only counts


class PairedCameras:
    """Two recordings whose frames are paired. Iterate over it once for the pairs; as a context it closes both.

    Those that have times pair by them, see `paired_in_time`; all else in the order in which it comes. Live cameras are
    none of its kind, see `LivePairs`.
    announced: frames that each says it holds, infrared first; None unless both do. rate_hz: the slower camera's. files:
    what both read. left_out: frames passed over for want of a partner so far, infrared first. crop_rows: rows that are
    cut off above and below the infrared, and off the visible where it has the same height. process: what becomes of
    each infrared frame before that, in their order.
    """

    is_live = False

    def __init__(
        self,
        infrared: Camera,
        visible: Camera,
        crop_rows: tuple[int, int] = (0, 0),
        process: Callable[[Frame], Frame] | None = None,
    ) -> None:
        self.infrared, self.visible, self.crop_rows, self.process = infrared, visible, crop_rows, process
        counts = infrared.announced, visible.announced
        self.announced = None if counts[0] is None or counts[1] is None else (counts[0], counts[1])
        self.rate_hz = min((rate for rate in (infrared.rate_hz, visible.rate_hz) if rate), default=None)
        self.files = (*infrared.files, *visible.files)
        self.left_out = [0, 0]

    def __iter__(self) -> Iterator[FramePair]:
        """Yield the pairs until the shorter camera ends; the infrared frame is read first.

        SourceUnreadableError if one recording has times and the other none, NoPairsError if none of their frames
        belong together, OptionError if the crop leaves no row.
        """
        for infrared, visible in self._together():
            processed = self.process(infrared) if self.process else infrared
            yield FramePair(*cropped(processed, visible, self.crop_rows))

    def _together(self) -> Iterator[tuple[Frame, Frame]]:
        if self.infrared.has_names:
            yield from zip(self.infrared, self.visible, strict=False)
            return
        begins_with = start_together(self.infrared, self.visible)
        frames, others = iter(self.infrared), iter(self.visible)
        first, other = next(frames, None), next(others, None)
        if first is None or other is None:
            return
        clocks = {first.clock, other.clock}
        first = replace(first, notes=(*first.notes, *begins_with))
        if clocks == {ORDER}:
            first = replace(first, notes=(*first.notes, "neither stream has times: their frames are paired by count"))
            yield from zip(chain([first], frames), chain([other], others), strict=False)
        elif len(clocks) == 2:
            timeless = self.infrared if first.clock == ORDER else self.visible
            raise SourceUnreadableError(
                f"{timeless.address.text} has no times and the other stream has; needed both, to pair by time; put it "
                "into a container with times, such as .mkv"
            )
        else:
            yield from paired_in_time(chain([first], frames), chain([other], others), self.left_out)

    def __enter__(self) -> "PairedCameras":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.infrared.close()
        self.visible.close()


def start_together(infrared: Camera, visible: Camera) -> tuple[str, ...]:
    """Let two recordings that seem to be of one clock count their time from one origin; return what to say of it.

    They seem so if they begin up to a minute apart by their own stamps. Up to a quarter of a second is the encoder's
    delay, which differs between cameras that start at once. Two topics of bags are of one clock.
    """
    starts = infrared.start_ns, visible.start_ns
    if starts[0] is None or starts[1] is None:
        return ()
    apart_s = (starts[0] - starts[1]) / 1e9
    if infrared.tells_time and visible.tells_time:
        infrared.origin_ns = visible.origin_ns = min(starts[0], starts[1])
        return ()
    if not _DELAY_S < abs(apart_s) < _ONE_CLOCK_S:
        return ()
    infrared.origin_ns = visible.origin_ns = min(starts[0], starts[1])
    order = "after" if apart_s > 0 else "before"
    return (f"by its stamps the infrared begins {abs(apart_s):.2f} s {order} the visible, and is paired so",)


def paired_in_time(
    infrared: Iterator[Frame], visible: Iterator[Frame], left_out: list[int]
) -> Iterator[tuple[Frame, Frame]]:
    """Yield the frames that are nearest to each other in time, each at most once; both in growing time.

    Two that are farther apart than half the period of the slower stream, as around a pause, are no pair. left_out:
    counts the frames that were passed over, infrared first. NoPairsError if no two belong together.
    """
    one, other = _Timed(infrared), _Timed(visible)
    is_empty = True
    while one.frame and other.frame:
        apart = abs(one.time - other.time)
        if one.next and abs(one.next.timestamp_ns - other.time) < apart:
            behind = [True, False]
        elif other.next and abs(other.next.timestamp_ns - one.time) < apart:
            behind = [False, True]
        elif apart <= max(one.period, other.period) / 2 + _ROUNDED_NS:
            yield one.frame, other.frame
            is_empty = False
            one.advance()
            other.advance()
            continue
        else:
            behind = [one.time < other.time, one.time > other.time]
        for index, (stream, is_behind) in enumerate(zip((one, other), behind, strict=True)):
            if is_behind:
                stream.advance()
                left_out[index] += 1
    if is_empty:
        told = [stream.span() for stream in (one, other)]
        raise NoPairsError(
            f"no two frames belong together in time: infrared has {told[0]}, visible {told[1]}; needed recordings of "
            "the same time; check their times, or cut both to begin at one moment"
        )


class _Timed:
    """A stream of frames with a look at the next one. period: the shorter way to a neighbour, in ns."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self._before: int | None = None
        self.frame, self.next = next(frames, None), next(frames, None)
        self._first = self.frame

    @property
    def time(self) -> int:
        return self.frame.timestamp_ns if self.frame else 0

    @property
    def period(self) -> float:
        ways = [self.time - self._before] if self._before is not None else []
        ways += [self.next.timestamp_ns - self.time] if self.next else []
        return min(ways, default=math.inf)

    def span(self) -> str:
        """Say from when to when frames were seen; their times grow."""
        if self._first is None:
            return "nothing"
        last = self.time if self.frame else self._before or 0
        return f"{self._first.timestamp_ns / 1e9:.2f} to {last / 1e9:.2f} s"

    def advance(self) -> None:
        self._before = self.time
        self.frame, self.next = self.next, next(self._frames, None)


def cropped(infrared: Frame, visible: Frame, rows: tuple[int, int]) -> tuple[Frame, Frame]:
    """Return both without so many rows above and below; the visible keeps its rows if it is of another height."""
    above, below = rows
    if not above and not below:
        return infrared, visible
    height = len(infrared.image)
    if min(rows) < 0 or above + below >= height:
        raise OptionError(
            f"the crop cuts {above} and {below} rows off {height} of the infrared; needed fewer, and none below 0; "
            "correct it"
        )
    part = slice(above, height - below)
    infrared, is_same = replace(infrared, image=infrared.image[part]), len(visible.image) == height
    return infrared, replace(visible, image=visible.image[part]) if is_same else visible


def pair_cameras(
    infrared: Camera,
    visible: Camera,
    *,
    names: Names | None = None,
    crop_rows: tuple[int, int] = (0, 0),
    process: Callable[[Frame], Frame] | None = None,
) -> PairedCameras:
    """Pair two cameras: pictures by name, two single pictures whatever their names, streams by time.

    names: see `pair_by_stem`. crop_rows, process: see `PairedCameras`.

    OptionError if one has pictures and the other a stream, or one is live; the errors of `pair_by_stem` for pictures.
    """
    for camera in (infrared, visible):
        if camera.is_live:
            raise OptionError(
                f"{camera.address.text} is live; needed recordings here; pair live cameras with "
                "cled_edge.live_pairs.open_cameras"
            )
    if infrared.has_names != visible.has_names:
        raise OptionError(
            f"{infrared.address.text} and {visible.address.text} are of different kinds; "
            "needed two streams, or pictures of both modalities; give two of one kind"
        )
    single = [camera for camera in (infrared, visible) if isinstance(camera, SinglePicture)]
    if len(single) == 2:
        pages = [camera.announced for camera in single]
        if pages[0] != pages[1]:
            raise UnmatchedStemsError(
                f"{infrared.address.text} has {pages[0]} pages, {visible.address.text} {pages[1]}; needed as many in "
                "both, as they pair by their order; give files of equally many"
            )
    elif infrared.has_names:
        matched = pair_by_stem(infrared.files, visible.files, names=names)
        infrared.choose([path for _, path, _ in matched])
        visible.choose([path for _, _, path in matched])
    return PairedCameras(infrared, visible, crop_rows, process)


def open_pair(
    infrared: str,
    visible: str,
    *,
    names: Names | None = None,
    crop_rows: tuple[int, int] = (0, 0),
    process: Callable[[Frame], Frame] | None = None,
) -> PairedCameras:
    """Open two cameras by their addresses and pair them. Raises the errors of `open_camera` and `pair_cameras`."""
    first = open_camera(infrared)
    try:
        second = open_camera(visible)
    except CledEdgeError:
        first.close()
        raise
    try:
        return pair_cameras(first, second, names=names, crop_rows=crop_rows, process=process)
    except CledEdgeError:
        first.close()
        second.close()
        raise


def pair_by_stem(
    infrared: Sequence[Path], visible: Sequence[Path], *, names: Names | None = None
) -> list[tuple[str, Path, Path]]:
    """Return (what both names share, infrared, visible), sorted by it.

    names: how names are made, where both modalities differ. Without, stems are equal, or equal but for one word of the
    modality such as lwir or rgb.
    NoPairsError if one modality has no picture, UnmatchedStemsError if a stem lacks its partner or occurs twice.
    """
    for name, paths in (("infrared", infrared), ("visible", visible)):
        if not paths:
            raise NoPairsError(f"there are no {name} pictures; needed one at least; name a folder of PNG or JPEG files")
    stems = match_names({"infrared": infrared, "visible": visible}, names)
    only = {
        "infrared": sorted(stems["infrared"].keys() - stems["visible"].keys()),
        "visible": sorted(stems["visible"].keys() - stems["infrared"].keys()),
    }
    lonely = [f"{len(keys)} only in {name}: {listed(keys)}" for name, keys in only.items() if keys]
    if lonely:
        raise UnmatchedStemsError(
            f"stems differ, {'; '.join(lonely)}; rename or remove them so that every stem has both, or give templates "
            "of names such as {name}_ir and {name}_vis"
        )
    return [(stem, path, stems["visible"][stem]) for stem, path in sorted(stems["infrared"].items())]


def match_names(found: Mapping[str, Sequence[Path]], names: Names | None) -> dict[str, Stems]:
    """Return each source's files by what their names share with their partners'; some may lack a partner.

    found: source -> files; a source is infrared, visible, or another such as fused. UnmatchedStemsError if two files of
    a source share it, NoPairsError if a template fits no file.
    """
    sources = {source: _by_stem(paths, source, names) for source, paths in found.items()}
    first, *others = sources.values()
    if names is None and any(first.keys() != other.keys() for other in others):
        return paired_but_for_modality(found) or sources
    return sources


def _by_stem(paths: Sequence[Path], source: str, names: Names | None) -> Stems:
    stems: Stems = {}
    modality = modality_of(source)
    for path in paths:
        stem = shared_stem(path, modality, names)
        if stem is None:
            continue
        if stem in stems:
            raise UnmatchedStemsError(f"{source} stem {stem!r} occurs twice: {stems[stem]} and {path}; keep one")
        stems[stem] = path
    if names and not stems:
        raise NoPairsError(
            f"no {source} picture has a name as {names.of(modality).pattern}, seen {paths[0].name}; correct names"
        )
    return stems


def listed(stems: Sequence[str]) -> str:
    """Return the first stems by name and the count of the others."""
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    return ", ".join(stems[:_NAMED]) + more
