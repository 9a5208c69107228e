"""The tables of what no network computes: named evidence, and registration. They refuse results of other sources."""

from collections.abc import Iterable

from benchmarks.result import Result, Row
from benchmarks.table import Column, Table, columns

EVIDENCE_COMMAND = "python -m benchmarks.evidence --data DIR --update"
REGISTRATION_COMMAND = "python -m benchmarks.registration --data DIR --update"
_CONFUSED = "modality", "kind", "images"


def _confused_with(result: Result) -> tuple[Column, ...]:
    """Return a column for each kind that is named at least once."""
    rows = [row for row in result.rows if row.get("part") == "confusion"]
    named = dict.fromkeys(key for row in rows for key in row if key not in (*_CONFUSED, "part"))
    return (*(Column(name, name) for name in _CONFUSED), *(Column(name, name, 0, percent=True) for name in named))


def _summed(rows: list[Row]) -> Iterable[Row]:
    """Yield one row for all pairs that do not belong together."""
    if rows:
        yield {"pairs": len(rows), "sure": sum(bool(row["sure"]) for row in rows)}


PACKAGES = (
    Table(
        "Named evidence, simulated",
        "evidence",
        columns("modality, kind, positives, negatives, AUC=auc:3, calibration error=calibration_error:3"),
        EVIDENCE_COMMAND,
        "A kind against the rest, on held-out pairs that a script degrades, which the evidence was not fitted to.",
        part="simulated",
    ),
    Table(
        "Named evidence, real",
        "evidence",
        columns(
            "set, modality, kind, positives, negatives, AUC=auc:3, told where it is=positives_told:2, where it is "
            "not=negatives_told:2"
        ),
        EVIDENCE_COMMAND,
        "Images whose owners say what they have. *Told*: the mean probability.",
        part="real",
    ),
    Table(
        "Which kind is likeliest",
        "evidence",
        _confused_with,
        EVIDENCE_COMMAND,
        "Of images with one kind, or with none.",
        part="confusion",
    ),
    Table(
        "What evidence does when one kind comes",
        "evidence",
        columns(
            "modality, put in=put_in, images, its own evidence moves by=own_evidence_moves:2, another at "
            "most=another_moves_at_most:2, its own moves most=own_moves_most:0%"
        ),
        EVIDENCE_COMMAND,
        "Change of the probability when one kind is put into a clean image; means over images.",
        part="intervention",
    ),
    Table(
        "Registration of a simulated rig",
        "registration",
        columns(
            "scene=name, draw of noise=noise, distance m=distance_m:1, model, off by px=miss_mean_px:2, 95 % within "
            "px=miss_p95_px:2, said px=error_px:2, confidence=confidence:2"
        ),
        REGISTRATION_COMMAND,
        "Two lenses 30 cm apart, with noise. *Off by*: over all that both cameras see. The bar is 1 pixel.",
        part="rig",
    ),
    Table(
        "Registration of real pairs with landmarks",
        "registration",
        columns("pair=name, model, off by px=miss_mean_px:2, said px=error_px:2, confidence=confidence:2, sure"),
        REGISTRATION_COMMAND,
        "*Sure*: it would be saved. The bar is 2 pixels on four of five.",
        part="landmarks",
    ),
    Table(
        "Registration of images that do not belong together",
        "registration",
        columns("pairs, called sure=sure"),
        REGISTRATION_COMMAND,
        part="others",
        rows=_summed,
    ),
    Table(
        "Boards that are found",
        "registration",
        columns("camera=name, images, found, with every corner=whole"),
        REGISTRATION_COMMAND,
        part="board",
    ),
)
