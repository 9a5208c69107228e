"""Pairs of frames from two sources of the same kind: pictures pair by stem, streams frame by frame."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
from numpy.typing import NDArray

from cled_edge.errors import CledEdgeError, NoPairsError, OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ORDER, Frame, FramePair
from cled_edge.image import read_any_depth
from cled_edge.pairing import pair_by_stem

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CAMERA_RATE_HZ = 30.0  # what an output video is stamped with if a camera does not tell its rate


class PictureSource:
    """Pairs of picture files."""

    rate_hz: float | None = None

    def __init__(self, infrared: list[Path], visible: list[Path]) -> None:
        self._pairs = pair_by_stem(infrared, visible)
        self.files = frozenset(path.resolve() for path in (*infrared, *visible))
        self.announced: tuple[int, int] | None = (len(self._pairs), len(self._pairs))

    def __iter__(self) -> Iterator[FramePair]:
        for index, (stem, infrared, visible) in enumerate(self._pairs):
            yield FramePair(_read_frame(infrared, index, stem), _read_frame(visible, index, stem))

    def __enter__(self) -> "PictureSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class StreamSource:
    """Two videos or cameras, read in step until the shorter one ends.

    announced: frames that the two files say they hold, infrared first; None if either is a camera.
    """

    def __init__(self, infrared: str, visible: str) -> None:
        self._infrared = _open_stream(infrared)
        try:
            self._visible = _open_stream(visible)
        except CledEdgeError:
            self._infrared.release()
            raise
        rate_hz = self._visible.get(cv2.CAP_PROP_FPS)
        self.rate_hz: float | None = rate_hz if rate_hz > 0 else CAMERA_RATE_HZ
        counts = [int(s.get(cv2.CAP_PROP_FRAME_COUNT)) for s in (self._infrared, self._visible)]
        self.announced: tuple[int, int] | None = (counts[0], counts[1]) if min(counts) > 0 else None
        self._names = infrared, visible
        self.files = frozenset(Path(name).resolve() for name in self._names if not is_camera(name))

    def __iter__(self) -> Iterator[FramePair]:
        index = 0
        while True:
            # Both are grabbed before either is decoded: on cameras that brings the two exposures closer.
            grabbed = self._infrared.grab(), self._visible.grab()
            if not all(grabbed):
                self._check_end(index, grabbed)
                return
            infrared, visible = _retrieve(self._infrared), _retrieve(self._visible)
            if infrared is None or visible is None:
                name = self._names[0 if infrared is None else 1]
                raise SourceUnreadableError(f"{name}: frame {index} cannot be decoded; the file or the link is damaged")
            yield FramePair(
                Frame(infrared, index, ORDER, index, self._names[0], "BGR"),
                Frame(visible, index, ORDER, index, self._names[1], "BGR"),
            )
            index += 1

    def _check_end(self, index: int, grabbed: tuple[bool, bool]) -> None:
        """Tell an end from a loss. What a file announces is an estimate, so the last 1 % may be missing."""
        side = 0 if not grabbed[0] else 1
        name = self._names[side]
        if is_camera(name):
            raise SourceUnreadableError(f"camera {name} gives no more frames, after {index}; check its cable and power")
        if index == 0:
            raise SourceUnreadableError(f"{name} was opened, but holds no frame that can be decoded")
        count = self.announced[side] if self.announced else index
        if index < count - max(2, count // 100):
            raise SourceUnreadableError(f"{name} ended after {index} of {count} frames; the file is damaged")

    def __enter__(self) -> "StreamSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._infrared.release()
        self._visible.release()


def open_pair(infrared: str, visible: str) -> PictureSource | StreamSource:
    """Open two sources: each a camera index or device, a video file, a picture, a folder or a glob.

    Two pictures of different stems are taken for one pair. Raises the errors of `cled_edge.errors` for a source that
    is missing or unreadable, that holds no pictures, or whose other half is of another kind.
    """
    pictures = find_pictures(infrared), find_pictures(visible)
    if pictures[0] is None and pictures[1] is None:
        return StreamSource(infrared, visible)
    if pictures[0] is None or pictures[1] is None:
        raise OptionError(
            f"{infrared} and {visible} are of different kinds; give two streams, or pictures on both sides"
        )
    if Path(infrared).is_file() and Path(visible).is_file():
        return _SinglePair(Path(infrared), Path(visible))
    return PictureSource(pictures[0], pictures[1])


class _SinglePair(PictureSource):
    """Two named pictures: a pair whatever their stems, called by the visible's."""

    def __init__(self, infrared: Path, visible: Path) -> None:
        self._pairs = [(visible.stem, infrared, visible)]
        self.files = frozenset((infrared.resolve(), visible.resolve()))
        self.announced = (1, 1)


def find_pictures(source: str) -> list[Path] | None:
    """Return the pictures of a path, folder or glob, sorted; None if the source is a stream.

    SourceMissingError if a path does not exist, NoPairsError if a folder or glob holds no picture.
    """
    if is_camera(source):
        return None
    try:
        return _find_files(source)
    except OSError as error:
        raise SourceUnreadableError(
            f"{source} cannot be read: {error.strerror}; check its name and permissions"
        ) from error


def _find_files(source: str) -> list[Path] | None:
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_picture(p.name))
    elif any(mark in source for mark in "*?[") and not path.exists():
        found = sorted(Path(p) for p in glob.glob(source) if _is_picture(p))
    elif path.exists():
        return [path] if _is_picture(source) else None
    else:
        raise SourceMissingError(f"{source} does not exist; give a camera, a video, a picture, a folder or a glob")
    if not found:
        raise NoPairsError(f"{source} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    return found


def is_camera(source: str) -> bool:
    """Return whether a source names a camera: an index (0) or a device (/dev/video0)."""
    return source.isdecimal() or source.startswith("/dev/video")


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def _open_stream(source: str) -> cv2.VideoCapture:
    if is_camera(source):
        device = f"/dev/video{source}" if source.isdecimal() else source
        if not os.path.exists(device):
            raise SourceMissingError(f"{device} does not exist; list cameras with: ls /dev/video*")
        stream = cv2.VideoCapture(device, cv2.CAP_V4L2)
    else:
        stream = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    if not stream.isOpened():
        raise SourceUnreadableError(f"{source} is not a video or camera that OpenCV can open; check it, or convert it")
    return stream


def _retrieve(stream: cv2.VideoCapture) -> NDArray[Any] | None:
    """Return the grabbed frame as BGR or grey, or None if it cannot be decoded."""
    decoded, frame = stream.retrieve()
    if not decoded or frame is None:
        return None
    return frame


def _read_frame(path: Path, index: int, name: str) -> Frame:
    return Frame(read_any_depth(path), index, ORDER, index, str(path), "BGR", name)
