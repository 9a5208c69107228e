"""The report of an explanation: one HTML page that needs nothing else, its panels, its numbers and the NPZ."""

import base64
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cled_edge import __version__
from cled_edge.contract import UNCERTAINTY_DEVIATIONS
from cled_edge.errors import OptionError
from cled_edge.evidence.likelihood import summary_line
from cled_edge.explain.explanation import MODALITIES, Explanation
from cled_edge.explain.named import SHOWN, named_arrays
from cled_edge.explain.over_time import OverTime
from cled_edge.explain.pixel_origin import ALIKE_LEVELS
from cled_edge.files import make_folder, write_whole
from cled_edge.html_page import INSTALL, template_of
from cled_edge.json_text import counted, json_of
from cled_edge.size import size_text

TEMPLATE = "report.html.j2"
PAGE, NUMBERS, NPZ, ANIMATION, PANELS = "index.html", "numbers.json", "explanation.npz", "trajectory.webp", "panels"
_FEW = 4096  # entries of the arrays that are numbers; larger ones are maps, which panels show
_HARDLY = 0.02  # of all that was taken

Arrays = dict[str, NDArray[Any]]


class Written(NamedTuple):
    """What a page says: its numbers as JSON values, and the sentences it begins with."""

    numbers: dict[str, Any]
    verdicts: list[str]


def check_drawable() -> None:
    """Raise OptionError, which names what to install, unless a page can be drawn here."""
    try:
        import jinja2  # noqa: PLC0415

        from cled_edge.explain import panels  # noqa: PLC0415
    except ImportError as error:
        raise OptionError(f"a report needs Jinja2, matplotlib and Pillow ({error}); install them: {INSTALL}") from error
    del jinja2, panels


def write_report(told: Explanation, folder: Path, title: str, over_time: OverTime | None = None) -> Written:
    """Write the page and all beside it into a folder; return what it says. title: what the pair is called.

    OptionError if what draws is not installed, OutputError if the folder cannot be written.
    """
    check_drawable()
    from cled_edge.explain import panels  # noqa: PLC0415

    make_folder(folder / PANELS)
    named = named_arrays(told)
    arrays = {**told.arrays(), **named}
    drawn = panels.panels_of(told)
    with ThreadPoolExecutor() as pool:  # coding images leaves the interpreter free
        moving = pool.submit(panels.animation, told)
        # Both forms of a panel in turn: to save an image writes to it.
        coded = pool.map(lambda panel: [panels.encoded(panel, kind) for kind in ("png", "webp")], drawn.values())
        told.save_npz(folder / NPZ, named)
    shown = {}
    for name, (file, image) in zip(drawn, coded, strict=True):
        write_whole(folder / PANELS / f"{name}.png", file)
        shown[name] = image
    animation = moving.result()
    write_whole(folder / ANIMATION, animation)
    numbers = numbers_of_arrays(arrays)
    write_whole(folder / NUMBERS, json_of(numbers))
    if over_time:
        over_time.write(folder)
    said = verdicts(told, arrays)
    page = template_of("cled_edge.explain", TEMPLATE).render(
        title=title,
        facts=_facts(told),
        verdicts=said,
        images={name: _embedded(image, "webp") for name, image in shown.items()},
        animation=_embedded(animation, "webp"),
        n=numbers,
        steps=told.steps,
        seeds=told.seeds,
        modalities=MODALITIES,
        shown=SHOWN,
        has_head=any(name.startswith("heads_") for name in arrays),
        share_plot=panels.share_plot(arrays),
        spectrum_plots=[panels.spectrum_plot(arrays, place) for place in range(2)],
        removal_sentences=[removal_sentence(arrays, name) for name in MODALITIES],
        doubt_sentences=doubt_sentences(arrays, told.seeds, told.fused.controls.start_noise or 1.0),
        origin_rows=origin_rows(arrays),
        alike_levels=ALIKE_LEVELS,
        over_time=over_time and over_time.drawn(),
        version=__version__,
        numbers_json=json.dumps(numbers).replace("<", "\\u003c"),
    )
    write_whole(folder / PAGE, page)
    return Written(numbers, said)


def numbers_of_arrays(arrays: Arrays) -> dict[str, Any]:
    """Return the small arrays as JSON values, by their names in the NPZ: NaN is null. Of maps, their means."""
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        if values.size <= _FEW:
            found[name] = _plain(values.tolist())
        elif name.startswith(("origin_", "spread_", "uncertainty_")):
            found[f"{name}_mean"] = float(np.mean(values, dtype=np.float64))
    return found


def verdicts(told: Explanation, arrays: Arrays) -> list[str]:
    """Return what a reader should know first, a sentence or two each."""
    found = []
    for place, name in enumerate(MODALITIES):
        chances = arrays[f"kinds_{name}_probability"]
        kinds = arrays[f"kinds_{name}"].tolist()
        before, after = (summary_line(dict(zip(kinds, row.tolist(), strict=True))) for row in (chances[0], chances[-1]))
        rms = math.sqrt(float(np.mean(np.square(told.residuals[-1, place])))) * 127.5
        strength = getattr(told.fused.controls, f"strength_{name}")
        applied = "" if strength == 1 else f", of which {strength:.0%} was applied"
        found.append(
            f"{name.capitalize()}: the network found {rms:.1f} grey levels (rms) of degradation{applied}. "
            f"By what formulas measure, the image came with: {before}. The clean estimate has: {after}."
            + (f" The network itself saw: {summary_line(told.heads[-1]._asdict()[name])}." if told.heads else "")
        )
    found.append(steps_sentence(arrays))
    share = told.origin.share_of_infrared
    alike = float(told.origin.is_alike.mean())
    told_share = "no share can be told" if math.isnan(share) else f"{share:.0%} of it follows the infrared on average"
    found.append(
        f"Fused brightness: {told_share}, the rest the visible; in {alike:.0%} of the pixels both are alike. Restoring "
        f"changed it by {float(np.abs(told.origin.restoring.sum(axis=0)).mean()):.1f} levels on average."
    )
    found += [f"Note: {note}." for note in told.fused.notes]
    return found


def steps_sentence(arrays: Arrays) -> str:
    """Say honestly whether the steps after the first did anything."""
    shares = arrays["removed_share"]
    if len(shares) == 1:
        return "One step ran: it took all that was taken."
    later = np.abs(np.nan_to_num(shares[1:])).sum(axis=0)
    parts = [
        f"{name} {float(np.nan_to_num(shares[0, place])):.1%} in step 1 and {_listed(shares[1:, place])} after it"
        for place, name in enumerate(MODALITIES)
    ]
    text = "Share of all that was taken: " + "; ".join(parts) + "."
    if (later < _HARDLY).all():
        return f"{text} The steps after the first change hardly anything: this network does its work in one pass."
    if (later < 0.1).all():
        return f"{text} The first step does nearly all; the others correct it a little."
    return f"{text} The later steps matter here."


def removal_sentence(arrays: Arrays, modality: str) -> str:
    """Say what the last step's restoration did to an image."""
    done = dict(zip(arrays["removal"].tolist(), arrays[f"removal_{modality}"][-1].tolist(), strict=True))
    contrast = done["contrast"]
    law = (
        "the clean estimate is flat"
        if math.isnan(contrast)
        else f"over coarse cells, input = {contrast:.2f} x clean {round(done['veil_levels']):+d} levels"
    )
    return (
        f"What restoring did: {law}; mean brightness times {done['brightening']:.2f}; finest detail times "
        f"{done['sharpening']:.2f}. The residual holds noise of {done['noise_levels']:.1f} levels, a pattern along "
        f"columns of {done['columns_levels']:.1f} and along rows of {done['rows_levels']:.1f}."
    )


def doubt_sentences(arrays: Arrays, seeds: int, start_noise: float) -> list[str]:
    """Say what the maps of uncertainty and spread mean, how large they are, and what they are not.

    start_noise: how much of it the samples were drawn with.
    """
    sentences = []
    uncertainty, spread = arrays.get("uncertainty_levels"), arrays.get("spread_levels")
    if uncertainty is not None:
        infrared, visible = uncertainty.mean(axis=(1, 2))
        far = np.percentile(uncertainty, 95, axis=(1, 2))
        sentences.append(
            "Uncertainty: a small network beside the loop predicts it for each pixel. At nine of ten pixels the true "
            "brightness lies within so many grey levels of the clean estimate, of images like those of the training. "
            f"On average it is {infrared:.1f} in the infrared and {visible:.1f} in the visible; one pixel in twenty "
            f"has over {far[0]:.1f} and {far[1]:.1f}."
        )
    if spread is None:
        return sentences
    infrared, visible = spread.mean(axis=(1, 2))
    means = f"in grey levels: on average {infrared:.2f} in the infrared and {visible:.2f} in the visible."
    if uncertainty is None:
        sentences.append(
            f"The loop ran again from {counted(seeds, 'random start noise')}. The maps show by how much the clean "
            f"estimate then varies, {means} A frame in use starts without noise: a large spread says that this network "
            "was not trained to start with it, or that it is unsure."
        )
        return sentences
    deviations = uncertainty.mean(axis=(1, 2)) / UNCERTAINTY_DEVIATIONS
    sentences.append(
        f"Standard deviation: start noise {start_noise:g} drew {counted(seeds, 'sample')}, images that the restored "
        f"ones may be as well. It is how they differ, {means} The uncertainty stands for {deviations[0]:.2f} and "
        f"{deviations[1]:.2f}. Samples differ where the input leaves most open; the mean of many is the estimate."
    )
    return sentences


def origin_rows(arrays: Arrays) -> list[tuple[str, float, float]]:
    """Return rows of the table: a part of the fused brightness, its mean, and the mean of its absolute value."""
    parts = {
        "infrared as it came, times its share": "origin_from_infrared",
        "visible as it came, times its share": "origin_from_visible",
        "what restoring brought": "origin_from_restoring",
        "the network's own": "origin_own",
        "sum: the fused brightness": "origin_fused",
    }
    return [(words, float(arrays[name].mean()), float(np.abs(arrays[name]).mean())) for words, name in parts.items()]


def _facts(told: Explanation) -> str:
    controls = told.fused.controls
    return (
        f"Bundle {told.model} on {told.backend}; {size_text(told.size)} (height x width); "
        f"{counted(told.steps, 'step')}; strength {controls.strength_infrared:g} infrared, "
        f"{controls.strength_visible:g} visible; balance {controls.balance:g}."
    )


def _listed(shares: NDArray[Any]) -> str:
    return ", ".join(f"{float(np.nan_to_num(share)):.1%}" for share in shares)


def _plain(values: Any) -> Any:
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _embedded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
