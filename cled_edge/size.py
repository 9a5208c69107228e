"""Sizes of pictures: (height, width) in pixels, as text and padded to a multiple."""

import re

Size = tuple[int, int]  # height, width
_TEXT = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")


def size_from_text(text: str) -> Size | None:
    """Return the size that "480x640" says, height first, or None if the text says none."""
    found = _TEXT.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


def size_text(size: Size) -> str:
    """Return "480x640"."""
    return "{}x{}".format(*size)


def padded(size: Size, multiple: int) -> Size:
    """Return the size of a picture after it is padded at the bottom and right to a multiple."""
    height, width = (side + -side % multiple for side in size)
    return height, width
