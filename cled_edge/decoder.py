"""Picture files as they are stored: their depth and polarity kept, every page, and damage seen."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.errors import SourceMissingError, SourceUnreadableError
from cled_edge.files import Reader

MAX_PIXELS = 2**26  # of a picture on the command line, 8192x8192: a file of a few kB can state a billion
MAX_FILE_BYTES = 900 * 10**6  # it is held in memory
IMAGE_SUFFIXES = (
    ".bmp",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
_STORED = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
_PNG, _JPEG, _JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd9"
_FILES = Reader(SourceMissingError, SourceUnreadableError, "give the path of a picture", follow_links=True)
_ANIMATED = {_PNG: b"acTL", b"RIFF": b"ANIM"}  # the chunk that says that a PNG or WebP moves, early in the file
# TIFF 6.0, section 8. A page of the kinds 1 and 4 is a smaller copy or a mask of another.
_SUBFILE, _BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 254, 258, 262, 0


@dataclass(frozen=True)
class Page:
    """One picture of a file. image: as stored, 8 or 16 bit, (H, W) or BGR (H, W, 3).

    notes: what the user should know of how it was read, a sentence each.
    """

    image: NDArray[Any]
    notes: tuple[str, ...] = ()


def read_pages(path: Path) -> Iterator[Page]:
    """Yield the pictures of a file: every page of a TIFF, one of any other.

    SourceMissingError if it does not exist, SourceUnreadableError if it is cut short or no picture.
    """
    content = _content(path)
    pages = _shown_pages(content)
    if len(pages) < 2:
        yield read_page(path, content)
        return
    for index in pages:
        read, images = _many(path, content, index)
        if not read or len(images) != 1:
            raise _unreadable(path, f"page {index + 1}")
        yield Page(_as_meant(np.asarray(images[0]), content, index))


def count_pages(path: Path) -> int:
    """Return how many pictures `read_pages` yields; the errors of `read_page` for a file that is not there."""
    return max(1, len(_shown_pages(_content(path))))


def read_page(path: Path, content: bytes | None = None) -> Page:
    """Return the first picture of a file; `content` are its bytes. Its notes say if there are others.

    SourceMissingError, SourceUnreadableError as `read_pages`.
    """
    content = _content(path) if content is None else content
    image = _decoded(path, content, _STORED)
    if image is None or (content[:2] == _JPEG and not _is_whole_jpeg(content)):
        raise _unreadable(path)
    image = _as_meant(image, content, 0)
    image, notes = _without_transparent(path, image, content)
    pages = _shown_pages(content)
    if len(pages) > 1:
        notes += (f"a file has {len(pages)} pages, of which the first is used; give it by its own name to use all",)
    if any(content.startswith(start) and mark in content[:1024] for start, mark in _ANIMATED.items()):
        notes += ("a file holds a moving picture, of which the first is used; convert it to a video to use all",)
    return Page(image, notes)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise SourceMissingError(f"{path} does not exist; give the path of a picture")
    return _FILES.read(path, MAX_FILE_BYTES)


def _unreadable(path: Path, part: str = "") -> SourceUnreadableError:
    of = f"{part} of {path}" if part else str(path)
    return SourceUnreadableError(f"{of} is not a whole picture that OpenCV can decode; convert it to PNG or JPEG")


def _decoded(path: Path, content: bytes, how: int) -> NDArray[Any] | None:
    with _decoding(path):
        return cv2.imdecode(np.frombuffer(content, np.uint8), how)
    return None


def _many(path: Path, content: bytes, index: int) -> tuple[bool, Any]:
    with _decoding(path):
        return cv2.imdecodemulti(np.frombuffer(content, np.uint8), _STORED, range=(index, index + 1))
    return False, ()


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Pass over what OpenCV cannot decode; SourceUnreadableError for a picture that is too large for this process."""
    try:
        yield
    except (cv2.error, MemoryError) as error:
        # OPENCV_IO_MAX_IMAGE_PIXELS, which the command line sets, is 2**30 elsewhere.
        if isinstance(error, MemoryError) or "MAX_IMAGE" in str(error) or "nsufficient memory" in str(error):
            raise SourceUnreadableError(
                f"{path} states more pixels than are read here, {MAX_PIXELS} on the command line; scale it down first"
            ) from error


def _as_meant(image: NDArray[Any], content: bytes, index: int) -> NDArray[Any]:
    """Return a decoded page with heat bright, and over the full range of its depth."""
    pages = _tiff_pages(content)
    if pages and pages[index].get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.dtype == np.uint16:
        # OpenCV turns 8 bit over and leaves 16 bit as it lies (seen in 4.9 and 5.0).
        return np.subtract(np.uint16(2 ** min(pages[index].get(_BITS, 16), 16) - 1), image)
    greatest = re.match(rb"P[25](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d{1,3})\s", content)
    if greatest and image.dtype == np.uint8 and 0 < int(greatest[1]) < 255:
        return cv2.convertScaleAbs(image, alpha=255 / int(greatest[1]))  # which OpenCV leaves to the caller
    return image


def _without_transparent(path: Path, image: NDArray[Any], content: bytes) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return (H, W) or (H, W, 3), black where the file says that nothing is to be seen; `image` has no alpha."""
    if content[:2] == _JPEG or (content.startswith(_PNG) and content[25:26] in b"\0\2" and b"tRNS" not in content):
        return image, ()
    whole = _decoded(path, content, cv2.IMREAD_UNCHANGED)
    if whole is None or whole.ndim != 3 or whole.shape[2] != 4 or whole.shape[:2] != image.shape[:2]:
        return image, ()
    if whole[:, :, 3].all():
        return image, ()
    np.multiply(image, whole[:, :, 3:] != 0 if image.ndim == 3 else whole[:, :, 3] != 0, out=image)
    return image, ("transparent parts of a picture are taken for black; crop them if they should not count",)


def _is_whole_jpeg(content: bytes) -> bool:
    """Say whether a JPEG has all its data; OpenCV fills what is missing with grey and says nothing.

    The marker of its end proves nothing: one may have been put behind what is left, and a trailer may follow it.
    """
    import av  # noqa: PLC0415 (after cv2: opencv#29195; and only where it is needed)

    if _JPEG_END not in content:
        return False
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        decoder.decode(av.Packet(content))
    except av.error.InvalidDataError:
        return False
    except av.error.FFmpegError:  # a kind of JPEG that FFmpeg does not decode
        return True
    return True


def _shown_pages(content: bytes) -> list[int]:
    """Return the numbers of a TIFF's pages that are no smaller copy and no mask of another; [] if it is no TIFF."""
    return [index for index, page in enumerate(_tiff_pages(content)) if not page.get(_SUBFILE, 0) & 5]


def _tiff_pages(content: bytes) -> list[dict[int, int]]:
    """Return each page's tags with a single whole number, or the first of several; [] if it is no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 16:
        return []
    version = struct.unpack_from(f"{order}H", content, 2)[0]
    if version not in (42, 43):
        return []
    # 43 is BigTIFF: as TIFF, with 8 bytes for counts and places.
    place, count, entry, inline = ("Q", "Q", 20, 12) if version == 43 else ("L", "H", 12, 8)
    pages: list[dict[int, int]] = []
    try:
        where = struct.unpack_from(f"{order}{place}", content, 8 if version == 43 else 4)[0]
        passed = set()
        while where and where not in passed:  # a damaged file may lead in a circle
            passed.add(where)
            number = struct.unpack_from(f"{order}{count}", content, where)[0]
            first = where + struct.calcsize(f"{order}{count}")
            tags = {}
            for at in range(first, first + entry * min(number, 1000), entry):
                tag, kind = struct.unpack_from(f"{order}HH", content, at)
                if tag in (_SUBFILE, _BITS, _PHOTOMETRIC):
                    values = struct.unpack_from(f"{order}{place}", content, at + 4)[0]
                    size = {3: "H", 4: "L"}.get(kind)
                    if size is None:
                        continue
                    far = values * struct.calcsize(f"{order}{size}") > entry - inline
                    spot = struct.unpack_from(f"{order}{place}", content, at + inline)[0] if far else at + inline
                    tags[tag] = struct.unpack_from(f"{order}{size}", content, spot)[0]
            pages.append(tags)
            where = struct.unpack_from(f"{order}{place}", content, first + entry * number)[0]
    except struct.error:  # cut short, which whoever decodes it will say
        return pages
    return pages
