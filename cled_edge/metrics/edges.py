"""Metrics of edges: how many of the sources' edges a fused image keeps (Q^AB/F), and how many it invents (N^AB/F).

Legend: a, b the sources, f the fused image. Strength (g in the papers) and orientation are of an edge; relative (G)
and turn (A) compare them between a source and the fused image; quality (Q) is how well an edge is kept, 0 to 1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from cled_edge.metrics.luma import Float64
from cled_edge.metrics.reference import Profile

ARTEFACT_EDGE = 2.0  # grey levels a pixel: a weaker edge of a source weighs next to nothing in N^AB/F
# The toolkit behind the paper's numbers declares 0.001 too, then sets 0. The difference stays under 2e-4.
ARTEFACT_WEIGHT_MIN: dict[Profile, float] = {"strict": 1e-3, "paper": 0.0}


@dataclass(frozen=True)
class Edges:
    """Sobel edges of a luma: the two differences, and their length, each (H, W)."""

    dx: Float64
    dy: Float64
    strength: Float64


def edge_preservation(a: Float64, b: Float64, f: Float64) -> float:
    """Return Q^AB/F of lumas (H, W), 0 to 1 (Xydeas and Petrovic 2000), 1 if the sources hold no edge at all.

    Sobel with zeros beyond the border. The toolkits' quirk is kept: where source and fused edge are equally strong,
    G is that strength instead of 1, which the saturating curve makes as good as 1.
    """
    fused = _edges(f, cv2.BORDER_CONSTANT, 1.0)
    orientation = _upright_orientation(fused)
    kept, weights = 0.0, 0.0
    for source in (_edges(a, cv2.BORDER_CONSTANT, 1.0), _edges(b, cv2.BORDER_CONSTANT, 1.0)):
        relative = _ratio(source.strength, fused.strength)
        relative = np.where(source.strength == fused.strength, fused.strength, relative)
        turn = 1 - np.abs(_upright_orientation(source) - orientation) * (2 / np.pi)
        quality = _curve(relative, 0.9994, 15, 0.5) * _curve(turn, 0.9879, 22, 0.8)
        kept += float((quality * source.strength).sum())
        weights += float(source.strength.sum())
    return kept / weights if weights else 1.0


def edge_artefacts(a: Float64, b: Float64, f: Float64, profile: Profile = "strict") -> float:
    """Return N^AB/F of lumas (H, W), 0 without artefacts, as modified by Kumar 2013; 0 if no source edge has a weight.

    Sobel / 8 with a mirrored border. An artefact is an edge stronger than in both sources; its loss towards either
    source counts with that source's weight: strength^1.5 from 2 grey levels on, else `ARTEFACT_WEIGHT_MIN`. Petrovic's
    own form, (2 - Q_AF - Q_BF)(w_A + w_B), is some ten times as large.
    """
    sources = [_edges(x, cv2.BORDER_REFLECT_101, 1 / 8) for x in (a, b)]
    fused = _edges(f, cv2.BORDER_REFLECT_101, 1 / 8)
    artefact = (fused.strength > sources[0].strength) & (fused.strength > sources[1].strength)
    orientation = _orientation(fused)
    lost, weights = 0.0, 0.0
    for source in sources:
        weight = np.where(source.strength >= ARTEFACT_EDGE, source.strength**1.5, ARTEFACT_WEIGHT_MIN[profile])
        weights += float(weight.sum())
        turn = np.abs(np.abs(_orientation(source) - orientation)[artefact] - np.pi / 2) * (2 / np.pi)
        strength = _curve(_ratio(source.strength[artefact], fused.strength[artefact]), 0.9999, 19, 0.5)
        quality = np.sqrt(strength * _curve(turn, 0.9995, 22, 0.5))
        lost += float(((1 - quality) * weight[artefact]).sum())
    return lost / weights if weights else 0.0


def _edges(luma: Float64, border: int, scale: float) -> Edges:
    dx = np.asarray(cv2.Sobel(luma, cv2.CV_64F, 1, 0, scale=scale, borderType=border), np.float64)
    dy = np.asarray(cv2.Sobel(luma, cv2.CV_64F, 0, 1, scale=scale, borderType=border), np.float64)
    return Edges(dx, dy, np.hypot(dx, dy))


def _upright_orientation(edges: Edges) -> Float64:
    """Return atan(-dy / dx), and pi/2 where dx is 0.

    The sign matters: a steep edge on the other side of upright counts as turned by almost pi, not by almost nothing.
    """
    slope = np.divide(-edges.dy, edges.dx, out=np.full_like(edges.dx, np.inf), where=edges.dx != 0)
    return np.arctan(slope)


def _orientation(edges: Edges) -> Float64:
    """Return atan(dx / dy), 0 where there is no edge; only its value modulo pi is used."""
    slope = np.divide(edges.dx, edges.dy, out=np.full_like(edges.dx, np.inf), where=edges.dy != 0)
    return np.where(edges.strength == 0, 0, np.arctan(slope))


def _ratio(x: Float64, y: Float64) -> Float64:
    """Return the smaller over the larger, 0 where both are 0."""
    larger = np.maximum(x, y)
    return np.divide(np.minimum(x, y), larger, out=np.zeros_like(larger), where=larger > 0)


def _curve(x: Float64, ceiling: float, steepness: float, middle: float) -> Float64:
    return np.asarray(ceiling / (1 + np.exp(-steepness * (x - middle))), np.float64)
