"""The panels of an explanation, its plots as SVG, the trajectory as an animation. Needs matplotlib and Pillow."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cled_edge.explain.explanation import MODALITIES, Explanation
from cled_edge.explain.pixel_origin import difference_levels
from cled_edge.explain.terms import TERMS
from cled_edge.image import Uint8, bytes_from_network

STEP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
}
SIGNED = "RdBu_r"
_LEAST_LEVELS = 1.0  # a scale narrower than that would show rounding as colour
_FRAME_MS = 900
_CELL_PX, _TITLE_PX, _BAR_PX, _TICKS_PX, _GAP_PX = 400, 30, 14, 62, 10
_NOTHING = (187, 187, 187)  # of a map where it is NaN


class Grid:
    """Equal cells, each an image, or a map with its scale, below a title. Plots would take ten times as long."""

    def __init__(self, rows: int, columns: int, size: tuple[int, int]) -> None:
        self.inner = round(_CELL_PX * size[0] / size[1]), _CELL_PX
        self.cell = self.inner[0] + _TITLE_PX + _GAP_PX, _CELL_PX + _BAR_PX + _TICKS_PX + _GAP_PX
        self.page = Image.new("RGB", (columns * self.cell[1], rows * self.cell[0]), "white")
        self.pen = ImageDraw.Draw(self.page)
        self.fonts = ImageFont.load_default(21), ImageFont.load_default(17)

    def picture(self, row: int, column: int, title: str, image: Uint8) -> None:
        """Show an image, grey or RGB."""
        colored = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        self._show(row, column, title, self._scaled(colored))

    def signed(self, row: int, column: int, title: str, levels: NDArray[Any], most: float | None = None) -> None:
        """Show a signed map in grey levels: red is above 0, blue below, white is 0."""
        limit = scale_of(levels) if most is None else most
        self._map(row, column, title, levels, SIGNED, (-limit, limit))

    def unsigned(self, row: int, column: int, title: str, values: NDArray[Any], most: float, colors: str) -> None:
        """Show a map from 0 on; NaN is grey."""
        self._map(row, column, title, values, colors, (0.0, most))

    def _map(
        self, row: int, column: int, title: str, values: NDArray[Any], colors: str, limits: tuple[float, float]
    ) -> None:
        table = (mpl.colormaps[colors](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
        scaled = self._scaled(values.astype(np.float32))
        place = (np.nan_to_num(scaled) - limits[0]) * (255 / (limits[1] - limits[0]))
        image = table[np.clip(place.round(), 0, 255).astype(np.uint8)]
        image[np.isnan(scaled)] = _NOTHING
        top, left = self._show(row, column, title, image)
        height, left = self.inner[0], left + _CELL_PX + _GAP_PX // 2
        bar = table[np.linspace(255, 0, height).astype(int)]
        self.page.paste(Image.fromarray(np.repeat(bar[:, None], _BAR_PX, axis=1)), (left, top))
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            value = limits[1] + share * (limits[0] - limits[1])
            y = top + share * (height - 1)
            self.pen.line((left + _BAR_PX, y, left + _BAR_PX + 3, y), "black")
            anchor = {0.0: "lt", 1.0: "lb"}.get(share, "lm")
            self.pen.text((left + _BAR_PX + 6, y), f"{value:.3g}", "black", self.fonts[1], anchor=anchor)

    def _show(self, row: int, column: int, title: str, image: Uint8) -> tuple[int, int]:
        """Put an image of the inner size into a cell; return its top and left."""
        top, left = row * self.cell[0] + _TITLE_PX, column * self.cell[1]
        self.pen.text((left, top - 7), title, "black", self.fonts[0], anchor="ls")
        self.page.paste(Image.fromarray(image), (left, top))
        return top, left

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        height, width = self.inner
        how = cv2.INTER_AREA if values.shape[1] >= width else cv2.INTER_NEAREST
        return np.asarray(cv2.resize(values, (width, height), interpolation=how))


def scale_of(levels: NDArray[Any]) -> float:
    """Return the end of a signed scale: what 99.5 % of the pixels do not exceed, to two digits; at least 1 level."""
    limit = max(float(np.quantile(np.abs(levels), 0.995)), _LEAST_LEVELS)
    unit = 10 ** (math.floor(math.log10(limit)) - 1)
    return math.ceil(limit / unit) * unit


def overview(told: Explanation) -> Image.Image:
    """Both inputs, both restored images and the fused one."""
    grid = Grid(2, 3, told.size)
    infrared, visible = told.images(None)
    grid.picture(0, 0, "infrared, as it came", infrared)
    grid.picture(0, 1, "infrared, restored", told.fused.infrared)
    grid.picture(1, 0, "visible, as it came", visible)
    grid.picture(1, 1, "visible, restored", told.fused.visible)
    grid.picture(0, 2, "fused", told.fused.picture)
    return grid.page


def steps_of(told: Explanation, place: int) -> Image.Image:
    """Return a row for each step of a modality: its state, its residual, its clean estimate, what it changed."""
    grid = Grid(told.steps, 4, told.size)
    most = scale_of(told.residual_levels[-1, place])
    for k in range(told.steps):
        grid.picture(k, 0, f"step {k + 1}: the state it meets", _shown(told.states[k, place], place))
        grid.signed(k, 1, f"step {k + 1}: residual, levels", told.residual_levels[k, place], most)
        grid.picture(k, 2, f"step {k + 1}: clean estimate", told.images(k)[place])
        title = "step 1 took, levels" if k == 0 else f"step {k + 1} took beside step {k}, levels"
        grid.signed(k, 3, title, told.changes[k, place])
    return grid.page


def split_of(told: Explanation, place: int) -> Image.Image:
    """Return a row for each step of a modality: the three terms that add up to the change of its state."""
    grid = Grid(told.steps, 4, told.size)
    for k in range(told.steps):
        terms = told.terms(k)
        for column, name in enumerate(TERMS):
            grid.signed(k, column, f"step {k + 1}: {name} term, levels", difference_levels(terms[name][place]))
        total = difference_levels(told.states[k + 1, place] - told.states[k, place])
        grid.signed(k, 3, f"step {k + 1}: their sum, levels", total)
    return grid.page


def origin(told: Explanation) -> Image.Image:
    """Where the fused pixel came from."""
    grid, found = Grid(2, 3, told.size), told.origin
    share = np.where(found.is_alike, np.nan, found.infrared_share)
    grid.picture(0, 0, "fused", told.fused.picture)
    grid.unsigned(0, 1, "share: 1 infrared, 0 visible, grey: both alike", share, 1, "cividis")
    grid.signed(0, 2, "part that restoring brought, levels", found.from_restoring)
    grid.signed(1, 0, "part of the network's own, levels", found.own)
    grid.signed(1, 1, "restoring infrared changes it by, levels", found.restoring[0])
    grid.signed(1, 2, "restoring visible changes it by, levels", found.restoring[1])
    return grid.page


def spread(told: Explanation) -> Image.Image:
    """How far off both clean estimates may be, and how much the start noise changes them."""
    maps = {"uncertainty": told.uncertainty_levels, "standard deviation": told.spread_levels}
    shown = {words: levels for words, levels in maps.items() if levels is not None}
    grid = Grid(len(shown), 2, told.size)
    for row, (words, levels) in enumerate(shown.items()):
        for place, name in enumerate(MODALITIES):
            grid.unsigned(row, place, f"{name}: {words}, levels", levels[place], scale_of(levels[place]), "magma")
    return grid.page


def panels_of(told: Explanation) -> dict[str, Image.Image]:
    """Return every panel, by the name of its file."""
    found = {"overview": overview(told)}
    for draw, kind in ((steps_of, "steps"), (split_of, "split")):
        found |= {f"{kind}-{name}": draw(told, place) for place, name in enumerate(MODALITIES)}
    found["origin"] = origin(told)
    if told.spread_levels is not None or told.uncertainty_levels is not None:
        found["spread"] = spread(told)
    return found


def encoded(page: Image.Image, kind: str) -> bytes:
    """Return an image as PNG, without loss, or as WebP, which is a tenth of it."""
    written = io.BytesIO()
    page.save(written, kind, **({"compress_level": 3} if kind == "png" else {"quality": 88, "method": 1}))
    return written.getvalue()


def spectrum_plot(arrays: Mapping[str, NDArray[Any]], place: int) -> str:
    """Return what each step took by period, as SVG."""
    period = arrays["spectrum_period_px"]

    def draw(axes: Axes) -> None:
        axes.plot(period, arrays["spectrum_input_rms_levels"][place], color="#777777", ls="--", label="input")
        for k, pair in enumerate(arrays["spectrum_change_rms_levels"]):
            color = STEP_COLORS[k % len(STEP_COLORS)]
            axes.plot(period, pair[place], color=color, label=f"step {k + 1} took", marker="o", ms=3)
        axes.set(xscale="log", yscale="log", xlabel="period, pixels: fine to coarse", ylabel="rms, grey levels")
        axes.set_ylim(0.01, max(20.0, 2 * float(arrays["spectrum_input_rms_levels"].max())))
        axes.set_xticks([2, 4, 8, 16, 32, 64, 128, 256], labels=["2", "4", "8", "16", "32", "64", "128", "256"])
        axes.minorticks_off()
        axes.grid(visible=True)
        axes.legend(frameon=False, fontsize=9)

    return plot(draw)


def share_plot(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the share of the whole residual that each step took away, as SVG."""
    shares = arrays["removed_share"]

    def draw(axes: Axes) -> None:
        for k, pair in enumerate(shares):
            places = np.arange(2) + (k - (len(shares) - 1) / 2) * 0.8 / len(shares)
            color = STEP_COLORS[k % len(STEP_COLORS)]
            bars = axes.bar(places, np.nan_to_num(pair) * 100, 0.75 / len(shares), color=color, label=f"step {k + 1}")
            axes.bar_label(bars, [f"{value * 100:.1f} %" for value in pair], fontsize=9, padding=2)
        axes.axhline(0, color="#333333", lw=0.8)
        axes.set(xticks=range(2), xticklabels=MODALITIES, ylabel="share of all that was taken, %")
        axes.margins(y=0.15)
        axes.legend(frameon=False, fontsize=9)

    return plot(draw)


def plot(draw: Callable[[Axes], None], size_in: tuple[float, float] = (6.4, 3.2)) -> str:
    """Draw into new axes; return the SVG element, without the XML header that HTML has no place for."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure.add_subplot())
        text = _svg(figure)
    return text[text.index("<svg") :]


def animation(told: Explanation) -> bytes:
    """Return the trajectory as animated WebP: both inputs, then both clean estimates of each step."""
    frames = []
    captions = ["as it came", *(f"after step {k + 1} of {told.steps}" for k in range(told.steps))]
    for caption, step in zip(captions, (None, *range(told.steps)), strict=True):
        infrared, visible = told.images(step)
        both = np.concatenate([np.repeat(infrared[:, :, None], 3, axis=2), visible], axis=1)
        frames.append(_captioned(both, caption))
    written = io.BytesIO()
    durations = [_FRAME_MS] * (len(frames) - 1) + [2 * _FRAME_MS]
    frames[0].save(
        written, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=85, method=0
    )
    return written.getvalue()


def _captioned(image: Uint8, caption: str) -> Image.Image:
    """Return the image below a line of words, so that they cover nothing."""
    height, width = image.shape[:2]
    line = max(16, width // 50)
    page = Image.new("RGB", (width, height + line + 8), "white")
    page.paste(Image.fromarray(image), (0, line + 8))
    font = ImageFont.load_default(line)
    pen = ImageDraw.Draw(page)
    for place, name in enumerate(MODALITIES):
        pen.text((place * width // 2 + 4, 2), f"{name}, {caption}", fill="black", font=font)
    return page


def _shown(state: NDArray[Any], place: int) -> Uint8:
    """Return a state as an image: [-1, 1] is black to white, what lies beyond is cut."""
    image = bytes_from_network(state)
    return image[:, :, 0] if place == 0 else image


def _svg(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return written.getvalue()
