"""What one pair's explanation holds: the recorded loop, and what is told of it. All of it can be kept as one NPZ."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.evidence.likelihood import Modality
from cled_edge.evidence.told import Evidence
from cled_edge.explain.pixel_origin import LEVELS, PixelOrigin, difference_levels, luma_levels
from cled_edge.explain.spectrum import Spectrum, spectrum_of
from cled_edge.explain.terms import TERMS, StepWeights
from cled_edge.files import draft
from cled_edge.frame import FusedFrame
from cled_edge.image import Float32, Uint8, bytes_from_network
from cled_edge.tensors import grey_of

MODALITIES: tuple[Modality, Modality] = ("infrared", "visible")


@dataclass(frozen=True, eq=False)
class Explanation:
    """How a pair was restored in S steps and fused. Images are in the network's unit: [-1, 1] is black to white.

    x_in: (2, 3, H, W), infrared first, its one channel three times. states: (S + 1, 2, 3, H, W), I_t before each step
    and after the last. residuals: (S, 2, 3, H, W), each step's estimate of what the degradation added. weights: of each
    step. fused: the result, RGB. origin: see there. spread_levels: (2, H, W), standard deviation over `seeds` start
    noises of the last clean estimate's luma, grey levels; None if no noise was tried. uncertainty_levels: (2, H, W), of
    the last clean estimate, see `FusedFrame`; None if its bundle tells none. Where it does, the spread is of samples
    that the bundle's doubt graph draws. identity_error: the largest difference between a state and its split. heads:
    what the network said of kinds at each step, S of them; none if its bundle tells none. model, backend: what ran.
    """

    x_in: Float32
    states: Float32
    residuals: Float32
    weights: tuple[StepWeights, ...]
    fused: FusedFrame
    origin: PixelOrigin
    spread_levels: Float32 | None
    uncertainty_levels: Float32 | None
    seeds: int
    identity_error: float
    heads: tuple[Evidence, ...]
    model: str
    backend: str

    @property
    def steps(self) -> int:
        """Number of steps, S."""
        return len(self.weights)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.x_in.shape[2], self.x_in.shape[3]

    def terms(self, step: int) -> dict[str, Float32]:
        """Return what each of `TERMS` adds to the state at a step from 0, (2, 3, H, W); they add up to its change."""
        return self.weights[step].terms(self.states[step], self.x_in, self.residuals[step])

    def images(self, step: int | None) -> tuple[Uint8, Uint8]:
        """Return the clean estimate of a step from 0, the input for None: bytes, grey (H, W) and RGB (H, W, 3)."""
        infrared, visible = self.x_in if step is None else self.x_in - self.residuals[step]
        return grey_of(infrared), bytes_from_network(visible)

    @cached_property
    def changes(self) -> Float32:
        """What each step took away, R_k - R_(k-1) with R_0 = 0: lumas, (S, 2, H, W) in grey levels."""
        lumas = self.residual_levels
        return np.diff(lumas, axis=0, prepend=np.zeros_like(lumas[:1]))

    @cached_property
    def residual_levels(self) -> Float32:
        """Lumas of the residuals, (S, 2, H, W) in grey levels."""
        return difference_levels(self.residuals)

    @cached_property
    def removed_share(self) -> NDArray[np.float64]:
        """The share of the whole residual that each step took away, (S, 2); NaN where nothing at all was taken.

        It is <R_k - R_(k-1), R_S> / <R_S, R_S> over all pixels and colours, R_0 = 0: all steps add up to 1. A step that
        puts something back has a share below 0.
        """
        flat = self.residuals.reshape(self.steps, 2, -1).astype(np.float64)
        along = np.einsum("smp,mp->sm", flat, flat[-1])
        whole = along[-1]
        moved = np.diff(along, axis=0, prepend=0.0)
        return np.divide(moved, whole, out=np.full_like(moved, np.nan), where=whole > 0)

    @cached_property
    def change_rms_levels(self) -> NDArray[np.float64]:
        """Root mean square of R_k - R_(k-1) over all pixels and colours, (S, 2) in grey levels."""
        flat = self.residuals.reshape(self.steps, 2, -1)
        moved = np.diff(flat, axis=0, prepend=np.zeros_like(flat[:1]))
        return np.sqrt(np.mean(np.square(moved, dtype=np.float64), axis=2)) * LEVELS

    @cached_property
    def term_rms_levels(self) -> NDArray[np.float64]:
        """Root mean square of each of `TERMS`, (S, 2, 3) in grey levels."""
        rows = [[np.sqrt(np.mean(np.square(t), axis=(1, 2, 3))) for t in self.terms(k).values()] for k in self._range]
        return np.array(rows, np.float64).transpose(0, 2, 1) * LEVELS

    @cached_property
    def spectra(self) -> tuple[tuple[Spectrum, Spectrum], ...]:
        """Spectra of what each step took away, infrared first."""
        return tuple((spectrum_of(pair[0]), spectrum_of(pair[1])) for pair in self.changes)

    @cached_property
    def input_spectra(self) -> tuple[Spectrum, Spectrum]:
        """Spectra of both inputs' lumas."""
        infrared, visible = luma_levels(self.x_in)
        return spectrum_of(infrared), spectrum_of(visible)

    @property
    def _range(self) -> range:
        return range(self.steps)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that `save_npz` keeps, by name. Everything that a report tells is made of these."""
        spectra = [list(pair) for pair in self.spectra]
        return {
            "x_in": self.x_in,
            "states": self.states,
            "residuals": self.residuals,
            **{f"weight_{name}": np.array([vars(w)[name] for w in self.weights]) for name in vars(self.weights[0])},
            "removed_share": self.removed_share,
            "change_rms_levels": self.change_rms_levels,
            "term_names": np.array(TERMS),
            "term_rms_levels": self.term_rms_levels,
            "spectrum_period_px": self.input_spectra[0].period_px,
            "spectrum_input_rms_levels": np.array([each.rms_levels for each in self.input_spectra]),
            "spectrum_change_rms_levels": np.array([[each.rms_levels for each in pair] for pair in spectra]),
            "change_mean_levels": np.array([[each.mean_level for each in pair] for pair in spectra]),
            "fused": self.fused.picture,
            "restored_infrared": self.fused.infrared,
            "restored_visible": self.fused.visible,
            **{f"origin_{name}": value for name, value in vars(self.origin).items()},
            **({} if self.spread_levels is None else {"spread_levels": self.spread_levels}),
            **({} if self.uncertainty_levels is None else {"uncertainty_levels": self.uncertainty_levels}),
            "identity_error": np.array(self.identity_error),
        }

    def save_npz(self, path: Path, more: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write `arrays`, and `more`, as NPZ, whole or not at all; OutputError if it cannot."""
        with draft(path) as made:
            kept: dict[str, Any] = {**self.arrays(), **(more or {})}
            np.savez(made, **kept)
