"""Which infrared frame belongs to which visible one: by name for pictures, by sequence for streams."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from cled_edge.camera.single_picture import SinglePicture
from cled_edge.camera.source import Camera, open_camera
from cled_edge.errors import CledEdgeError, NoPairsError, OptionError, UnmatchedStemsError
from cled_edge.frame import FramePair

_NAMED = 3  # stems that an error names before it only counts


class PairedCameras:
    """Two cameras whose frames are paired. Iterate over it once for the pairs; as a context it closes both.

    is_live: whether either camera is. announced: frames that each says it holds, infrared first; None unless both do.
    rate_hz: the visible camera's, else the infrared's. files: what both read.
    """

    def __init__(self, infrared: Camera, visible: Camera) -> None:
        self.infrared, self.visible = infrared, visible
        self.is_live = infrared.is_live or visible.is_live
        counts = infrared.announced, visible.announced
        self.announced = None if counts[0] is None or counts[1] is None else (counts[0], counts[1])
        self.rate_hz = visible.rate_hz or infrared.rate_hz
        self.files = (*infrared.files, *visible.files)

    def __iter__(self) -> Iterator[FramePair]:
        """Yield the pairs until the shorter camera ends; the infrared frame is read first."""
        for infrared, visible in zip(self.infrared, self.visible, strict=False):
            yield FramePair(infrared, visible)

    def __enter__(self) -> "PairedCameras":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.infrared.close()
        self.visible.close()


def pair_cameras(infrared: Camera, visible: Camera) -> PairedCameras:
    """Pair two cameras: pictures by stem, two single pictures whatever their stems, streams frame by frame.

    OptionError if one has pictures and the other a stream; the errors of `pair_by_stem` for pictures.
    """
    if infrared.has_names != visible.has_names:
        raise OptionError(
            f"{infrared.address.text} and {visible.address.text} are of different kinds; "
            "needed two streams, or pictures of both modalities; give two of one kind"
        )
    are_single = isinstance(infrared, SinglePicture) and isinstance(visible, SinglePicture)
    if infrared.has_names and not are_single:
        pair_by_stem(infrared.files, visible.files)  # both are in the order of their stems
    return PairedCameras(infrared, visible)


def open_pair(infrared: str, visible: str) -> PairedCameras:
    """Open two cameras by their addresses and pair them. Raises the errors of `open_camera` and `pair_cameras`."""
    first = open_camera(infrared)
    try:
        second = open_camera(visible)
    except CledEdgeError:
        first.close()
        raise
    try:
        return pair_cameras(first, second)
    except CledEdgeError:
        first.close()
        second.close()
        raise


def pair_by_stem(infrared: Sequence[Path], visible: Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """Return (stem, infrared, visible), sorted by stem.

    NoPairsError if one modality has no picture, UnmatchedStemsError if a stem lacks its partner or occurs twice.
    """
    modalities = {"infrared": _by_stem(infrared, "infrared"), "visible": _by_stem(visible, "visible")}
    for name, paths in modalities.items():
        if not paths:
            raise NoPairsError(f"there are no {name} pictures; needed one at least; name a folder of PNG or JPEG files")
    only = {
        "infrared": sorted(modalities["infrared"].keys() - modalities["visible"].keys()),
        "visible": sorted(modalities["visible"].keys() - modalities["infrared"].keys()),
    }
    lonely = [f"{len(stems)} only in {name}: {listed(stems)}" for name, stems in only.items() if stems]
    if lonely:
        raise UnmatchedStemsError(
            f"stems differ, {'; '.join(lonely)}; rename or remove them so that every stem has both"
        )
    return [(stem, path, modalities["visible"][stem]) for stem, path in sorted(modalities["infrared"].items())]


def _by_stem(paths: Sequence[Path], name: str) -> Mapping[str, Path]:
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise UnmatchedStemsError(
                f"{name} stem {path.stem!r} occurs twice: {stems[path.stem]} and {path}; keep one"
            )
        stems[path.stem] = path
    return stems


def listed(stems: Sequence[str]) -> str:
    """Return the first stems by name and the count of the others."""
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    return ", ".join(stems[:_NAMED]) + more
