"""Cameras: the base class of all kinds, the registry of kinds, and the function that opens one.

A new kind is a module with a subclass of `Camera`, and its line in `CAMERAS`.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import cast

from cled_edge.address import Address, existing_path, explicit_address, split_options
from cled_edge.decoder import IMAGE_SUFFIXES
from cled_edge.errors import CledEdgeError, OptionError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import Frame

CAMERAS = {  # scheme -> module:class
    "bag": "cled_edge.camera.bag:Bag",
    "folder": "cled_edge.camera.picture_folder:PictureFolder",  # a folder or a glob
    "gst": "cled_edge.camera.gstreamer:GstreamerCamera",
    "mcap": "cled_edge.camera.bag:Bag",
    "paced": "cled_edge.camera.paced:PacedCamera",  # a recording in real time
    "picture": "cled_edge.camera.single_picture:SinglePicture",
    "synthetic": "cled_edge.camera.synthetic:SyntheticCamera",
    "v4l2": "cled_edge.camera.v4l2:V4l2Camera",
    "video": "cled_edge.camera.video_file:VideoFile",
    **dict.fromkeys(("http", "https", "rtsp", "rtsps", "tcp", "udp"), "cled_edge.camera.network_stream:NetworkStream"),
}
_DEVICES = ("/dev/video", "/dev/v4l/")


class Camera(ABC):
    """One source of frames. Iterate over it once; as a context it is closed at the end.

    is_live: it does not wait for whoever reads it. has_names: each frame has the name of its file, and two such cameras
    pair by name. announced: how many frames it says it holds, None if it does not say. rate_hz: frames a second, None
    if it has no rate. files: what it reads, in that order; nothing may write over them. start_ns: the stamp of a
    recording's first frame by its own clock, None if it has none; origin_ns: the stamp from which its times count.
    tells_time: start_ns is of a clock that others share, as of one bag, and no encoder's delay is in it.
    oddities: what was wrong with frames so far, and how often.
    """

    is_live: bool = False
    has_names: bool = False
    announced: int | None = None
    rate_hz: float | None = None
    files: tuple[Path, ...] = ()
    start_ns: int | None = None
    origin_ns: int = 0
    tells_time: bool = False

    def __init__(self, address: Address) -> None:
        if not address.place:
            raise SourceMissingError(f"{address.text} names no place; give one, such as {address.scheme}:PLACE")
        self.address = address
        self.oddities: Counter[str] = Counter()

    def choose(self, files: Sequence[Path]) -> None:
        """Read these pictures, in this order; only for cameras that have names."""
        self.files = tuple(files)
        self.announced = len(self.files)

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in their order; SourceUnreadableError if the camera is lost or a file is damaged."""

    def interrupt(self) -> None:  # noqa: B027 (most kinds cannot)
        """Let a read that waits end soon, where a camera can; the one method for another thread."""

    def close(self) -> None:  # noqa: B027 (most kinds hold nothing open)
        """Give back what is open. Closing twice does nothing."""

    def __enter__(self) -> "Camera":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_camera(address: str) -> Camera:
    """Open the camera at an address.

    `0`, `/dev/video2`, `/dev/v4l/by-id/NAME`: a V4L2 device. A path of a video, a picture or a folder; a glob.
    `mcap:FILE?topic=TOPIC`, `bag:FOLDER?topic=TOPIC`: images of a bag of ROS 2.
    `paced:ADDRESS`: a recording in real time. `synthetic:infrared`, `synthetic:visible`: the rendered street.
    `gst:PIPELINE`: of GStreamer, where OpenCV has it.
    A URL of `rtsp`, `rtsps`, `http`, `https`, `udp` or `tcp`: a stream from the network.
    `v4l2:`, `video:`, `picture:` or `folder:` before it says which kind is meant, as in `folder:0`.
    Raises SourceMissingError, SourceUnreadableError, NoPairsError for a folder without pictures, and OptionError for an
    unknown scheme.
    """
    parsed = camera_address(address)
    return _camera_type(parsed.scheme)(parsed)


def is_live(address: str) -> bool:
    """Say whether an address names a live camera, without opening it. Raises what `camera_address` does."""
    return _camera_type(camera_address(address).scheme).is_live


def split_paced(place: str) -> tuple[str, dict[str, str]]:
    """Return the address of the recording in `paced:PLACE`, and the options of the pace; OptionError for others."""
    inner, options = split_options(place, ("rate_hz", "loop", "topic"))
    topic = options.pop("topic", None)  # of the bag
    return (inner if topic is None else f"{inner}?topic={topic}"), options


def files_of(address: str) -> tuple[Path, ...]:
    """Return the files from which `paced:ADDRESS` reads, without opening any; none for every other live camera."""
    if not address.startswith("paced:"):
        return ()
    try:
        inner = camera_address(split_paced(address.removeprefix("paced:"))[0])
    except CledEdgeError:
        return ()
    path = Path(inner.place.partition("?topic=")[0])
    return tuple(path.iterdir()) if path.is_dir() else (path,)


def camera_address(text: str) -> Address:
    """Return the parsed address; see `open_camera` for the grammar.

    SourceMissingError for a bare place that does not exist, OptionError for an unknown scheme.
    """
    try:
        explicit = explicit_address(text, CAMERAS)
        if explicit:
            return replace(explicit, place=existing_path(explicit.place))
        place = existing_path(text)
        return Address(text, _scheme_of(place), place)
    except OSError as error:
        raise SourceUnreadableError(
            f"{text} cannot be read: {error.strerror}; check its name and permissions"
        ) from error


def _scheme_of(place: str) -> str:
    if place.startswith(_DEVICES):
        return "v4l2"
    if place.partition("?topic=")[0].endswith((".mcap", ".db3")):
        return "bag"
    path = Path(place)
    if place.isascii() and place.isdecimal():
        device = Path(f"/dev/video{place}")
        if path.exists() and device.exists():
            raise OptionError(f"{place} is a camera and a file or folder; write v4l2:{place} or ./{place}")
        if not path.exists():
            return "v4l2"
    if not path.exists():
        if is_glob(place):
            return "folder"
        raise SourceMissingError(f"{place} does not exist; give a camera, a video, a picture, a folder or a glob")
    if path.is_dir():
        return "folder"
    if stat.S_ISCHR(os.stat(place).st_mode):
        return "v4l2"
    return "picture" if is_picture(place) else "video"


def is_glob(place: str) -> bool:
    """Say whether a place has the marks of a glob."""
    return any(mark in place for mark in "*?[")


def is_picture(name: str) -> bool:
    """Say whether a file's name has the suffix of a picture, and is none that a Mac keeps beside one, ._NAME."""
    return not Path(name).name.startswith("._") and name.lower().endswith(IMAGE_SUFFIXES)


def _camera_type(scheme: str) -> type[Camera]:
    module, name = CAMERAS[scheme].split(":")
    return cast("type[Camera]", getattr(import_module(module), name))
