"""Text and JSON of strangers: JSON with limits, and text made safe to print."""

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MAX_JSON_BYTES = 4 * 2**20
MAX_JSON_DEPTH = 64
_NEEDED = {  # by pydantic's name of a problem; the braces are of its context
    "bool_type": "needed true or false",
    "dict_type": "needed a table of values",
    "extra_forbidden": "is unknown",
    "finite_number": "needed a finite number",
    "float_type": "needed a number",
    "greater_than": "needed more than {gt}",
    "greater_than_equal": "needed {ge} or more",
    "int_from_float": "needed a whole number",
    "int_type": "needed a whole number",
    "less_than": "needed less than {lt}",
    "less_than_equal": "needed {le} or less",
    "list_type": "needed a list",
    "literal_error": "needed {expected}",
    "missing": "is missing",
    "model_type": "needed a table of values",
    "path_type": "needed a path in quotes",
    "string_type": "needed text in quotes",
    "too_long": "needed {max_length} values at most",
    "tuple_type": "needed a list",
}
_MAX_DIGITS = 18  # what fits a 64-bit integer whatever the digits are
# Control characters but tab and newline, halves of surrogate pairs, and what turns the writing direction:
# they would let a text rewrite the terminal that prints it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def json_of(values: object) -> str:
    """Return JSON as this project prints and writes it: indented by two, letters as they are, a line end; no NaN."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def json_from_bytes(content: bytes) -> Any:
    """Return what UTF-8 JSON holds; ValueError says in a few words why it is none, or none that is read here.

    Refused besides broken JSON: a key given twice, NaN and infinity, numbers of over 18 digits or beyond float64,
    nesting over 64 levels, control characters other than tab and newline.
    """
    try:
        values = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError:
        raise ValueError(f"nested over {MAX_JSON_DEPTH} levels") from None
    _check_tree(values)
    return values


def first_problem(error: "ValidationError") -> str:
    """Return "where: what", or "what" of the whole, of the first of the problems that pydantic found, as one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = shown(".".join(str(part) for part in first["loc"]))
    return f"{where}: {shown(needed(first), 200)}" if where else shown(needed(first), 200)


def needed(problem: "ErrorDetails") -> str:
    """Return what a value had to be, of a problem that pydantic found, in this project's words."""
    words = _NEEDED.get(problem["type"])
    if words is not None:
        return words.format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Value error, ").replace("Input should be", "needed")


def shown(text: object, limit: int = 80) -> str:
    """Return `text` as one line of at most `limit` printable characters, to print what a stranger wrote."""
    whole = str(text)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole[:limit])
    return line if len(whole) <= limit and len(line) <= limit else line[: limit - 3] + "..."


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 step, 2 steps."""
    return f"{count} {noun}{'s' * (count != 1)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key '{shown(twice)}' is given twice")
    return values


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits, over {_MAX_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text, 20)} is not a finite number")
    return value


def _check_tree(values: Any) -> None:
    waiting = [(values, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"nested over {MAX_JSON_DEPTH} levels")
        if isinstance(value, str) and _UNPRINTABLE.search(value):
            raise ValueError(f"text with control characters: '{shown(value)}'")
        if isinstance(value, dict):
            waiting += [(key, depth) for key in value]
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
