"""`cled-edge calibrate --serve`: points by hand, on a page for robots without a screen."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cled_edge.ending import ends_on_signals
from cled_edge.errors import CalibrationError
from cled_edge.progress import print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cled_edge.registration.calibration import DistanceMap
    from cled_edge.serve.page_address import PageAddress


def address_of(serve: str, token: str | None, token_file: Path | None) -> "PageAddress":
    """Return where the page is to be served. OptionError for what is not allowed."""
    from cled_edge.serve.page_address import PageAddress  # noqa: PLC0415

    return PageAddress.parse(serve, token, token_file)


def marked_by_hand(
    address: "PageAddress",
    pairs: "Sequence[tuple[NDArray[Any], NDArray[Any]]]",
    names: "Sequence[str]",
    out: Path,
    distance_m: float | None,
    console: Console,
) -> "tuple[DistanceMap, dict[str, Any]]":
    """Serve the page until it is done, or a signal comes, and return the map that was saved last.

    CalibrationError if none was. OutputError if the page cannot be served.
    """
    from cled_edge.serve.page_address import not_installed  # noqa: PLC0415

    try:
        from cled_edge.serve.http_thread import HttpThread  # noqa: PLC0415
        from cled_edge.serve.points_page import PointsPage, points_application  # noqa: PLC0415
    except ImportError as error:
        raise not_installed(error) from error
    page = PointsPage(pairs, names, out, distance_m)
    with ends_on_signals(page.ended.set) as stopped, HttpThread(points_application(page), address) as served:
        print_line(console, f"mark points at {served.url} and calibrate there; Done, or Ctrl-C, ends it")
        page.ended.wait()
    if page.found is None and stopped.is_set():
        raise KeyboardInterrupt
    if page.found is None:
        raise CalibrationError(
            f"no points were calibrated; {out} is not written; needed the same points marked in both images; mark "
            "them, and calibrate on the page"
        )
    return page.found
