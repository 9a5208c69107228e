"""Results as one HTML page that needs nothing else: tables, and plots inside it."""

from importlib.resources import files

from cled_edge import __version__
from cled_edge.backend.facts import notes
from cled_edge.bench.console import headline_text
from cled_edge.bench.machine import machine_line
from cled_edge.bench.record import Record
from cled_edge.errors import OptionError

TEMPLATE = "report.html.j2"
INSTALL = "pip install 'cled-edge[report]'"


def render(records: list[tuple[str, Record]]) -> str:
    """Return the page of named results; OptionError if what draws it is not installed."""
    try:
        import jinja2  # noqa: PLC0415

        from cled_edge.bench import plots  # noqa: PLC0415
    except ImportError as error:
        raise OptionError(f"a report needs Jinja2 and matplotlib ({error}); install them: {INSTALL}") from error
    sections = []
    for name, record in records:
        drawn = [
            ("Latency: share of queries at or below", plots.latency_distribution(record.backends)),
            ("Stages: medians laid end to end", plots.stage_bars(record.backends)),
            ("Latency of every query over the run", plots.latency_over_time(record.backends)),
        ]
        if record.run.rate_hz is not None:
            drawn.append(
                ("Age of a frame when its output was there", plots.frame_age(record.backends, 1e3 / record.run.rate_hz))
            )
        sections.append((name, record, drawn))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files("cled_edge.bench").joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["notes"] = notes
    environment.filters["headline"] = headline_text
    environment.filters["machine"] = machine_line
    return environment.get_template(TEMPLATE).render(sections=sections, version=__version__)
