"""The options that say how the frames of two live cameras pair."""

from typing import Annotated

import typer

from cled_edge.cli.options import PLACES, with_default

Pairing = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        **with_default(
            "of live cameras: latest; every: leave no frame out; deadline: wait for a nearer partner, at most the slop",
            "latest",
        ),
        rich_help_panel=PLACES,
    ),
]
SlopMs = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        **with_default("of live cameras: the most time between both frames of a pair", "150"),
        rich_help_panel=PLACES,
    ),
]
HoldMs = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        **with_default("of live cameras: how long one's last frame is held; then the camera counts as lost", "500"),
        rich_help_panel=PLACES,
    ),
]
NeedBothS = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        **with_default("of live cameras: end with exit code 4 once one is lost for so many seconds", "go on"),
        rich_help_panel=PLACES,
    ),
]
