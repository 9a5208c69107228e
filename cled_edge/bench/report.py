"""Results as one HTML page that needs nothing else: tables, and plots inside it."""

from cled_edge import __version__
from cled_edge.backend.facts import notes
from cled_edge.bench.console import headline_text
from cled_edge.bench.machine import machine_line
from cled_edge.bench.record import Record
from cled_edge.errors import OptionError
from cled_edge.html_page import INSTALL, template_of

TEMPLATE = "report.html.j2"


def render(records: list[tuple[str, Record]]) -> str:
    """Return the page of named results; OptionError if what draws it is not installed."""
    try:
        from cled_edge.bench import plots  # noqa: PLC0415

        template = template_of("cled_edge.bench", TEMPLATE, notes=notes, headline=headline_text, machine=machine_line)
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
    page: str = template.render(sections=sections, version=__version__)
    return page
