"""Parts of the image that somebody draws while a run goes on: they lie over those that the run began with."""

from typing import Any, Protocol

from pydantic import ValidationError

from cled_edge.areas import Area, Areas
from cled_edge.config import AreaTable
from cled_edge.errors import OptionError
from cled_edge.json_text import first_problem

MOST = 32
MOST_CORNERS = 32


class HasAreas(Protocol):
    """What fuses: see `Fuser.areas`."""

    areas: Areas


class DrawnAreas:
    """Changes the areas of a run. fuser: None has none. Any thread may call it; the next frame has what it is told.

    A frame on which 32 of them change, each of a quarter of 480x640, takes 15 ms more.
    """

    def __init__(self, fuser: HasAreas | None) -> None:
        self._fuser = fuser
        self._begun = Areas(()) if fuser is None else fuser.areas

    def as_list(self) -> list[dict[str, Any]]:
        """Return what is drawn, in plain JSON types, each as `draw` takes it."""
        if self._fuser is None:
            return []
        drawn = self._fuser.areas.areas[len(self._begun.areas) :]
        return [{name: value for name, value in vars(area).items() if name != "mask"} for area in drawn]

    def draw(self, entries: object) -> None:
        """Take the areas that hold from the next frame on, instead of those that were drawn before.

        entries: a list of the keys and values of `[[areas]]` of `robot.toml`; none of them a mask, which is a file of
        the robot. OptionError for anything else, and nothing changes then.
        """
        if self._fuser is None:
            raise OptionError("this run has no areas to draw; needed one that fuses; draw on another page")
        if not isinstance(entries, list) or len(entries) > MOST:
            seen = f"{len(entries)} areas" if isinstance(entries, list) else type(entries).__name__
            raise OptionError(f"areas is {seen}; needed a list of at most {MOST}, [] for none; send it")
        areas = [_area(index, entry) for index, entry in enumerate(entries)]
        self._fuser.areas = Areas(areas, below=self._begun)


def _area(index: int, entry: object) -> Area:
    try:
        table = AreaTable.model_validate(entry)
    except ValidationError as error:
        raise OptionError(f"areas {index}: {first_problem(error)}") from error
    if table.mask is not None:
        raise OptionError(f"areas {index} has a mask; needed a polygon; a mask is read from robot.toml alone")
    if len(table.polygon) > MOST_CORNERS:
        raise OptionError(
            f"areas {index} has {len(table.polygon)} corners; needed {MOST_CORNERS} at most; leave some out"
        )
    return table.area()
