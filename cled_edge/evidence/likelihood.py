"""How likely each kind of degradation is, by the measures of an image: a logistic regression for each kind.

Its coefficients are `likelihood.json` beside this module, which `fit_evidence` of the training stage wrote. A kind's
probability is that of simulated images in which it is as frequent as there: one in ten or so.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cled_edge.evidence.signs import Signs, numbers_of
from cled_edge.files import write_whole

Modality = Literal["infrared", "visible"]
KINDS: dict[str, tuple[str, ...]] = {
    "infrared": ("blur", "low_contrast", "shading", "noise", "stripes", "rows", "dead_pixels"),
    "visible": ("haze", "rain", "blur", "overexposure", "low_light", "noise", "jpeg"),
}
MODEL_SIGNS = (
    *("sigma", "sigma_flat", "sigma_haar", "columns", "columns_wide", "rows", "rows_wide", "dead"),
    *("ridges", "ridges_aligned", "ridges_upright", "lobe", "lobe_mirrored"),
    *("detail_2", "detail_4", "detail_8", "detail_16", "blocks"),
    *("mean", "spread", "q1", "q5", "q25", "q50", "q75", "q95", "q99"),
    *("dark", "transmission", "saturation", "shade", "white", "black"),
)
_FILE = "likelihood.json"
_FAR = 4.0  # standard deviations at which a measure is cut: beyond them nothing was fitted


class Model(NamedTuple):
    """kinds: K names. mean, scale: (F,) of the numbers. weights: (K, 2 F), of a number and its square. bias: (K,)."""

    kinds: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def terms(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the weights multiply, (..., 2 F), of numbers (..., F)."""
        z = np.clip((numbers - self.mean) / self.scale, -_FAR, _FAR)
        return np.concatenate([z, z * z], axis=-1)

    def log_odds(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of the odds, (..., K)."""
        return self.terms(numbers) @ self.weights.T + self.bias

    def probabilities(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities, (..., K)."""
        return 1 / (1 + np.exp(-self.log_odds(numbers)))


def likely_kinds(signs: Signs, modality: Modality) -> dict[str, float]:
    """Return the probability of each of `KINDS` by the signs of an image of a modality."""
    model = _models()[modality]
    found = model.probabilities(numbers_of(signs, MODEL_SIGNS))
    return dict(zip(model.kinds, found.tolist(), strict=True))


def summary_line(kinds: Mapping[str, float], least: float = 0.2) -> str:
    """Return such as "haze .7, noise .2": kinds of a probability of `least` or more, the likeliest first, or "none"."""
    named = sorted(((p, name) for name, p in kinds.items() if p >= least), reverse=True)
    return ", ".join(f"{name.replace('_', ' ')} {_short(p)}" for p, name in named) or "none"


def write_models(path: Path, models: Mapping[str, Model]) -> None:
    """Write coefficients as the robot reads them; OutputError if the file cannot be written."""
    values: dict[str, Any] = {"signs": MODEL_SIGNS}
    for modality, model in models.items():
        kinds = zip(model.kinds, model.weights, model.bias, strict=True)
        values[modality] = {
            "mean": _rounded(model.mean),
            "scale": _rounded(model.scale),
            "kinds": {kind: {"bias": round(float(b), 4), "weights": _rounded(w)} for kind, w, b in kinds},
        }
    text = json.dumps(values, indent=1)
    write_whole(path, _one_line_lists(text) + "\n")


@cache
def _models() -> dict[str, Model]:
    values = json.loads(files("cled_edge.evidence").joinpath(_FILE).read_text("utf-8"))
    assert tuple(values["signs"]) == MODEL_SIGNS, "likelihood.json is of other measures"  # noqa: S101
    return {modality: _model(values[modality]) for modality in KINDS}


def _model(values: Mapping[str, Any]) -> Model:
    kinds = values["kinds"]
    return Model(
        tuple(kinds),
        np.array(values["mean"]),
        np.array(values["scale"]),
        np.array([kinds[kind]["weights"] for kind in kinds]),
        np.array([kinds[kind]["bias"] for kind in kinds]),
    )


def _short(probability: float) -> str:
    """Return .7 for 0.7, and 1 for what rounds to it."""
    text = f"{probability:.1f}"
    return "1" if text == "1.0" else text[1:]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _one_line_lists(text: str) -> str:
    """Return indented JSON with each list of numbers on a line of its own."""
    parts: list[str] = []
    depth = 0
    for line in text.splitlines():
        depth += line.rstrip().endswith("[")
        parts.append(line.strip() + " " * line.rstrip().endswith(",") if depth and parts else f"\n{line}")
        depth -= line.strip().rstrip(",") == "]"
    return "".join(parts).strip()
