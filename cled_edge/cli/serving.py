"""What watches a run: the page that `--serve` asks for, and the watchdog of a service."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from cled_edge import __version__
from cled_edge.errors import OptionError, without_credentials
from cled_edge.progress import print_line

if TYPE_CHECKING:
    from cled_edge.config import RobotConfig
    from cled_edge.control_box import ControlBox
    from cled_edge.fuser import Fuser
    from cled_edge.live import Monitor
    from cled_edge.registration.warp import Registrar
    from cled_edge.serve.page_address import PageAddress
    from cled_edge.thermal import ThermalStream


def page_address(config: "RobotConfig") -> "PageAddress | None":
    """Return where the page is to be served, None if it is not; OptionError for what is not allowed."""
    page = config.page
    if page.serve is None:
        if page.serve_token_file is not None:
            raise OptionError("a file with a token is given and no page; needed both; give --serve too")
        return None
    from cled_edge.serve.page_address import PageAddress  # noqa: PLC0415

    try:
        return PageAddress.parse(page.serve, page.serve_token, page.serve_token_file)
    except OptionError as error:
        if "needed a token" in str(error):
            raise OptionError(str(error).replace("give one,", "give --serve-token-file FILE,")) from error
        raise


@contextmanager
def watched(
    address: "PageAddress | None",
    config: "RobotConfig",
    box: "ControlBox",
    fuser: "Fuser",
    console: Console,
    thermal: "ThermalStream | None" = None,
    registrar: "Registrar | None" = None,
) -> "Iterator[list[Monitor]]":
    """Yield what watches a run: the watchdog of a service, and the page if it has an address.

    The page is served while the context lasts, and a line says where. thermal, registrar: see `PageServer`.
    """
    from cled_edge.serve.watchdog import Watchdog  # noqa: PLC0415

    with Watchdog() as watchdog:
        if address is None:
            yield [watchdog]
            return
        from cled_edge.serve.server import PageServer  # noqa: PLC0415

        about = {
            "host": socket.gethostname(),
            "infrared": without_credentials(config.cameras.infrared or ""),
            "visible": without_credentials(config.cameras.visible or ""),
            "bundle": fuser.bundle.manifest.name,
            "backend": fuser.backend.description,
            "version": __version__,
        }
        with PageServer(
            address,
            box,
            about=about,
            record_to=config.page.record_to,
            thermal=thermal,
            registrar=registrar,
            kinds=fuser.kinds,
            fuser=fuser,
        ) as page:
            print_line(console, f"page: {page.url}")
            yield [watchdog, page]
