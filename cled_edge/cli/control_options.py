"""The options that set controls, one for each entry of the contract, for any command that takes controls."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from cled_edge.cli.options import with_default
from cled_edge.contract import CONTROLS, Control, Controls


def control_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each control in the place of its parameter `controls`.

    The command gets one `Controls`. A command whose parameter is called `given_controls` gets a dict of what was given
    on the command line alone, by the names of `Controls`: to lay over a file's values, for `Controls.from_mapping`.
    """
    signature = inspect.signature(command, eval_str=True)
    name = next(name for name in ("controls", "given_controls") if name in signature.parameters)

    @wraps(command)
    def with_controls(**values: Any) -> None:
        given = {entry.name: values.pop(entry.name) for entry in CONTROLS}
        given = {name: value for name, value in given.items() if value is not None}
        command(**values, **{name: Controls(**given) if name == "controls" else given})

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        as_keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += map(_option, CONTROLS) if parameter.name == name else [as_keyword]
    # Typer reads the signature, and asks the annotations for their hints.
    with_controls.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_controls.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_controls


def _option(entry: Control) -> inspect.Parameter:
    """Return the option of a control: --name-with-dashes, with its range and default in the help."""
    # A bundle has a number of steps of its own, and no value of any other control.
    without = "the bundle's" if entry.name == "steps" else "none"
    default = without if entry.default is None else f"{entry.default:g}"
    help_text = f"{entry.meaning}, {entry.bounds()}"
    kind = int if entry.is_whole else float
    return inspect.Parameter(
        entry.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, typer.Option(**with_default(help_text, default), rich_help_panel="Controls")],
    )
