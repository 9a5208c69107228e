"""The options that say how names pair, and how infrared values become grey, for the commands that read both."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from cled_edge.cli.options import INPUTS, with_default
from cled_edge.errors import OptionError

T = TypeVar("T", int, float)

_NAMES = (
    "how infrared and visible names are made, such as FLIR_{name}_IR FLIR_{name}_RGB, or two regular expressions whose "
    "groups match what both share"
)
_RANGE = "what becomes black and white, in the camera's counts, such as 7000,9000"
_POLARITY = "white-hot, or black-hot: heat is dark"
_GAIN = "auto: 16 bit steady over time, 8 bit as it is; stream: both steady; image: 16 bit stretched one by one"
_STRETCHED, _EQUAL, _HOT = "8 bit as it is, 16 bit by its gain", "equal names", "white-hot"

Names = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="INFRARED VISIBLE", **with_default(_NAMES, _EQUAL), rich_help_panel=INPUTS),
]
InfraredRange = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH", **with_default(_RANGE, _STRETCHED), rich_help_panel=INPUTS)
]
InfraredPolarity = Annotated[
    str | None, typer.Option(metavar="NAME", **with_default(_POLARITY, _HOT), rich_help_panel=INPUTS)
]
InfraredGain = Annotated[
    str | None, typer.Option(metavar="NAME", **with_default(_GAIN, "auto"), rich_help_panel=INPUTS)
]
InfraredLockS = Annotated[
    float | None,
    typer.Option(metavar="S", **with_default("hold the gain after so many s", "never"), rich_help_panel=INPUTS),
]
InfraredRepair = Annotated[
    bool | None,
    typer.Option(
        "--infrared-repair/--no-infrared-repair",
        **with_default("replace dead and hot pixels", "--infrared-repair"),
        rich_help_panel=INPUTS,
    ),
]
KelvinPerCount = Annotated[
    float | None,
    typer.Option(
        "--infrared-kelvin-per-count",
        metavar="K",
        **with_default("of a camera whose counts are temperatures, such as 0.01", "none"),
        rich_help_panel=INPUTS,
    ),
]
InfraredCrop = Annotated[
    str | None,
    typer.Option(
        metavar="ABOVE,BELOW",
        **with_default("rows to cut off the infrared, such as 0,2 for telemetry below", "0,0"),
        rich_help_panel=INPUTS,
    ),
]


def numbers_of(text: str, option: str, form: str, kind: Callable[[str], T]) -> tuple[T, T]:
    """Return the two numbers of an option such as `7000,9000`; OptionError for another form."""
    try:
        first, second = (kind(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"{option} is {text!r}; needed {form}, two numbers with a comma; write both") from None
    return first, second
