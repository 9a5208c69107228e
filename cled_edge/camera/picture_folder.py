"""A folder or a glob of pictures as a camera: its frames are the files in the order of their stems."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from cled_edge.address import Address
from cled_edge.camera.source import Camera, camera_address, is_glob, is_picture
from cled_edge.decoder import IMAGE_SUFFIXES, read_page
from cled_edge.errors import NoPairsError, SourceMissingError, SourceUnreadableError
from cled_edge.frame import ORDER, Frame


class PictureFolder(Camera):
    """The pictures of a folder or a glob. files: read these instead.

    SourceMissingError if the folder does not exist, NoPairsError if it holds no picture.
    """

    has_names = True

    def __init__(self, address: Address, files: Sequence[Path] | None = None) -> None:
        super().__init__(address)
        found = pictures_in(address.place) if files is None else files
        self.files = tuple(sorted(found, key=lambda path: (path.stem, path.name)))
        self.announced = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files):
            yield picture_frame(path, index)


def picture_frame(path: Path, index: int) -> Frame:
    """Return a picture file as a frame: 8 or 16 bit, grey or BGR, named by its stem, at its place in the order."""
    page = read_page(path)
    return Frame(page.image, index, ORDER, index, str(path), "BGR", path.stem, page.notes)


def pictures_in(place: str) -> list[Path]:
    """Return the pictures of a folder or glob, sorted by path. SourceMissingError, NoPairsError as `PictureFolder`."""
    path = Path(place)
    try:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if is_picture(p.name) and not p.name.startswith("."))
        elif is_glob(place):
            found = sorted(Path(p) for p in glob.glob(place) if is_picture(p))
        else:
            raise SourceMissingError(f"{place} is not a folder, needed one with pictures, or a glob; check the name")
    except OSError as error:
        raise SourceUnreadableError(
            f"{place} cannot be read: {error.strerror}; check its name and permissions"
        ) from error
    if not found:
        raise NoPairsError(f"{place} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return found


def find_pictures(source: str) -> list[Path] | None:
    """Return the pictures of a folder, a glob or one file, sorted; None if the address names a video or a device.

    SourceMissingError if a path does not exist, NoPairsError if a folder or glob holds no picture.
    """
    address = camera_address(source)
    if address.scheme == "picture":
        return [Path(address.place)]
    return pictures_in(address.place) if address.scheme == "folder" else None
