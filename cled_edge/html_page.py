"""HTML reports of one page that needs nothing else; the extra `report` holds what draws them."""

from importlib.resources import files
from typing import Any

INSTALL = "pip install 'cled-edge[report]'"


def template_of(package: str, name: str, **filters: Any) -> Any:
    """Return a Jinja2 template that lies in a package, with filters by their names; ImportError without Jinja2.

    What it shows is escaped, and a name that is not given is an error.
    """
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda each: files(package).joinpath(each).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)
