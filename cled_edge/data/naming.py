"""Which pictures have names that belong together: equal ones, by templates, or but for the word of their modality."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cled_edge.data.layouts import expression_of
from cled_edge.errors import OptionError

Stems = dict[str, Path]  # what a name shares with its partners -> file
_WORDS = {
    "infrared": {"ir", "infrared", "inf", "thermal", "th", "lwir", "mwir", "swir", "tir"},
    "visible": {"vis", "vi", "visible", "rgb", "visual", "color", "colour", "eo"},
}
_LAST = {"infrared": {"t"}, "visible": {"v", "w"}}  # words at a name's end alone, as drones have them
_PARTS = re.compile(r"([-_. ]+|(?<=[A-Za-z])(?=\d))")


@dataclass(frozen=True)
class Names:
    """How the names of two modalities are made, infrared first: two expressions with the same groups.

    What the groups match is what a pair shares. A name that an expression does not fit is of another modality.
    """

    infrared: re.Pattern[str]
    visible: re.Pattern[str]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Names":
        """Return the names of two templates such as `FLIR_{name}_IR`, or regular expressions with groups.

        The fields of templates are those of `cled_edge.data.layouts`. OptionError for what is neither.
        """
        if len(texts) != 2:
            raise OptionError(f"names are {len(texts)}; needed two, for infrared and for visible; give both")
        both = [_expression(text) for text in texts]
        if both[0].groups != both[1].groups or both[0].groupindex.keys() != both[1].groupindex.keys():
            raise OptionError(f"names {texts[0]!r} and {texts[1]!r} share other parts; needed the same fields in both")
        return cls(*both)

    def of(self, modality: str) -> re.Pattern[str]:
        """Return the expression of a modality."""
        return self.visible if modality == "visible" else self.infrared


def _expression(text: str) -> re.Pattern[str]:
    if re.search(r"\{\w+\}", text) and "(" not in text:
        return expression_of(unicodedata.normalize("NFC", text))
    try:
        expression = re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise OptionError(f"names have {text!r}, which is no regular expression, {error}; correct it") from error
    if not expression.groups:
        raise OptionError(
            f"names have {text!r}, which marks nothing; needed what a pair shares, as {{name}} or in round brackets"
        )
    return expression


def shared_stem(path: Path, modality: str, names: Names | None = None) -> str | None:
    """Return what a file's name shares with its partners', None if it is of no such name.

    Without `names` it is the whole stem, in one form of Unicode: a Mac takes é apart into two characters.
    modality: "infrared" or "visible"; others, such as "fused", may have the name of either, or what both share.
    """
    stem = unicodedata.normalize("NFC", path.stem)
    if names is None:
        return stem
    known = [modality] if modality in _WORDS else ["visible", "infrared"]
    for each in known:
        match = names.of(each).fullmatch(stem)
        if match:
            named = [value for _, value in sorted(match.groupdict().items())]
            return " ".join((value or "").lower() for value in named or match.groups())
    return None if modality in _WORDS else stem.lower()


def without_modality(path: Path, modality: str) -> str:
    """Return a file's stem without the one word in it that names its modality: I0001_lwir becomes I0001."""
    parts = _PARTS.split(unicodedata.normalize("NFC", path.stem))
    for each in [modality] if modality in _WORDS else ["visible", "infrared"]:
        found = [index for index, part in enumerate(parts) if part.lower() in _WORDS[each]]
        if not found and len(parts) > 1 and parts[-1].lower() in _LAST[each]:
            found = [len(parts) - 1]
        if len(found) == 1:
            kept = [part for index, part in enumerate(parts) if index != found[0]]
            return "_".join(part for part in kept if part and not _PARTS.fullmatch(part)).lower()
    return "_".join(part for part in parts if part and not _PARTS.fullmatch(part)).lower()


def modality_of(source: str) -> str:
    """Return the modality of a source or of its reference, such as reference_visible; else its own name, as fused."""
    return next((name for name in _WORDS if source in (name, f"reference_{name}")), source)


def paired_but_for_modality(found: Mapping[str, Sequence[Path]]) -> dict[str, Stems] | None:
    """Return every source's files by their stems without the modality's word, None unless each has the same ones once.

    found: infrared, visible and others, and their files.
    """
    sources: dict[str, Stems] = {}
    for source, paths in found.items():
        modality = modality_of(source)
        sources[source] = {without_modality(path, modality): path for path in paths}
        if len(sources[source]) != len(paths):
            return None
    first, *others = sources.values()
    return sources if all(first.keys() == other.keys() for other in others) else None
