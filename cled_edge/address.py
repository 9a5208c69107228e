"""Addresses of cameras and outputs: `SCHEME:PLACE`, or a bare place whose kind shows in itself."""

import os
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from cled_edge.errors import OptionError, without_credentials

_SCHEME = re.compile(r"([a-z][a-z0-9+-]+):(.*)", re.DOTALL)  # two letters or more: C: is a drive
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//.*)", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """Where frames come from or go to. text: as it was written. scheme: the kind. place: what the kind opens.

    The text of a URL may hold a password: whatever is shown or kept shows `shown`.
    """

    text: str
    scheme: str
    place: str

    @property
    def shown(self) -> str:
        """Return the text without credentials."""
        return without_credentials(self.text)


def explicit_address(text: str, schemes: Collection[str]) -> Address | None:
    """Return the address of a text that begins with one of `schemes` and a colon, None for a bare place.

    OptionError for an empty text, and for a scheme that is unknown unless a file of that name exists.
    """
    if not text:
        raise OptionError("an address is empty; needed a place, or a scheme and a place; give one such as a folder")
    found = _SCHEME.fullmatch(text) or _URL.fullmatch(text)
    if found is None:
        return None
    scheme, place = found[1].lower(), found[2]
    if scheme in schemes and not (_exists(text) and not _exists(place)):
        return Address(text, scheme, place)
    if _exists(text):
        return None
    shown = without_credentials(text)
    if shown != text and not place.startswith("//"):
        raise OptionError(
            f"address {shown} has a password and no scheme; needed rtsp:// or another before it; write it"
        )
    raise OptionError(
        f"address {shown} has the unknown scheme {scheme!r}; known: {', '.join(sorted(schemes))}; write ./{shown} if "
        "it is a path"
    )


def split_options(place: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """Take the options off the end of a place: of `PLACE?size=480x640&loop` they are {"size": "480x640", "loop": ""}.

    What exists as a whole has none. OptionError for an option that is not known.
    """
    head, mark, tail = place.rpartition("?")
    if not mark or _exists(place):
        return place, {}
    options = {name: value for name, _, value in (part.partition("=") for part in tail.split("&"))}
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            told = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise OptionError(f"{without_credentials(place)} has the unknown option {name!r}; {told}")
    return head, options


def existing_path(place: str) -> str:
    """Return the name under which a path exists, or `place` as it is if none is found.

    A name may be spelled in another form of Unicode than its file's: a Mac takes é apart into two characters.
    """
    if place.isascii() or _exists(place):
        return place
    path = Path(place)
    found = Path(path.anchor)
    for part in path.relative_to(found).parts:
        if not _exists(found / part):
            plain = unicodedata.normalize("NFC", part)
            try:
                entries = os.listdir(found)
            except OSError:
                return place
            part = next((entry for entry in entries if unicodedata.normalize("NFC", entry) == plain), part)  # noqa: PLW2901
        found /= part
    return str(found) if _exists(found) else place


def _exists(text: str | Path) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
