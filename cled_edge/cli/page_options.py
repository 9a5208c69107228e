"""The options of the page: where it is served, who may open it, and where it records."""

from pathlib import Path
from typing import Annotated

import typer

from cled_edge.cli.options import with_default

PAGE = "Page"

Serve = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        **with_default("show the run on a page, with controls and metrics; the host is 127.0.0.1", "none"),
        rich_help_panel=PAGE,
    ),
]
ServeToken = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="CLED_EDGE_TOKEN",
        show_envvar=True,
        help="what opens the page; needed for a host that others reach. Better in a file or the environment",
        rich_help_panel=PAGE,
    ),
]
ServeTokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="a file that holds the token, and nothing else", rich_help_panel=PAGE),
]
RecordTo = Annotated[
    Path | None,
    typer.Option(metavar="DIR", **with_default("where the page's recordings go", "recordings"), rich_help_panel=PAGE),
]
