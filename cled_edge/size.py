"""Sizes of pictures, (height, width) in pixels, and numbers: as text, and padded to a multiple."""

import re

from cled_edge.errors import OptionError

Size = tuple[int, int]  # height, width
_TEXT = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")


def parse_size(text: str, what: str = "size") -> Size:
    """Return the size that "480x640" says, height first; OptionError, which says `what`, if the text says none."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise OptionError(f"{what} is {text!r}; it must be HEIGHTxWIDTH in pixels, such as 480x640")
    return int(found[1]), int(found[2])


def parse_number(text: str, what: str) -> float:
    """Return a number above 0 that a text says; OptionError, which says `what`, if it says none."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise OptionError(f"{what} is {text!r}; it must be a number above 0, such as 25")
    return number


def size_text(size: Size) -> str:
    """Return "480x640"."""
    return "{}x{}".format(*size)


def padded(size: Size, multiple: int) -> Size:
    """Return the size of a picture after it is padded at the bottom and right to a multiple."""
    height, width = (side + -side % multiple for side in size)
    return height, width
