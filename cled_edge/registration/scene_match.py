"""A map found in what both cameras see of any scene: searched, voted on by patches, and judged.

Every judgement is of the images alone: how far halves of the patches agree with each other, how far they would if any
lens were as likely, and how far the best place stands above the next one. Images of two scenes fail the first.
What was judged is then placed more finely, within twice the error that was found.

Differs from ECC (Evangelidis and Psarakis, 2008) on gradients: the votes of patches are climbed on the same pyramid.
ECC wants one start that is near, takes one pair of frames, and one moving object or one band of light misleads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cled_edge.registration.calibration import SURE
from cled_edge.registration.lens import PixelMap, Points, grid_points
from cled_edge.registration.patches import DOUBT, Level, Model, Votes, collect, elect
from cled_edge.registration.search import GreyPair, places, runner_up

_SEARCHED_PAIRS = 4  # that take part in the search over all places: it is the slow part
_COARSE = (Level(160, 32, 8, 8), Level(320, 64, 14, 10), Level(320, 64, 14, 5))
_FINE = (Level(320, 48, 14, 6), Level(480, 48, 16, 6))
_LAST = Level(960, 96, 32, 8)  # the place between two pixels of the levels before
_LEVEL_PX_PER_INFRARED_PX, _LAST_PX_PER_INFRARED_PX = 2.0, 4.0  # more finely there is nothing to see
_BLOCKS = 4  # along a side; patches of one block stand or fall together
_HALVES = 8
_LEAST_PATCHES = 16
# Error, in widths of the visible image, and lead at which confidence is halved. Of 94 rigs, real and rendered, and
# pairs of two scenes, mirrored or turned, all that were grossly wrong had an error of 0.013 and more.
_HALF_ERROR, _HALF_LEAD = 0.0072, 1.03


@dataclass(frozen=True)
class Evidence:
    """What speaks for a map, before it is placed more finely.

    error_px: what to expect of it anywhere in the image, in visible pixels: the geometric mean of agreement_px and
    freedom_px. agreement_px: how far maps by halves of the patches differ from it, coarsely or finely, and half of
    spread_px. freedom_px: how far they differ where any lens is as likely as another. spread_px: how far from the map
    the median patch alone would move: parallax and noise. lead: similarity of the best place over that of the next one.
    patches: that voted. score: their mean vote.
    confidence: 0 to 1.
    """

    error_px: float
    agreement_px: float
    freedom_px: float
    spread_px: float
    lead: float
    patches: int
    score: float
    confidence: float

    @property
    def is_sure(self) -> bool:
        """Whether the map may be used."""
        return self.confidence >= SURE


_NOTHING = Evidence(np.inf, np.inf, np.inf, np.inf, 0.0, 0, 0.0, 0.0)


def match(pairs: Sequence[GreyPair]) -> tuple[PixelMap, Model, Evidence]:
    """Return the map of a rig by pairs of one scene or of several, at one distance, its model and what speaks for it.

    pairs: infrared and visible, grey, of any depth; all of the same two sizes. Takes seconds for each pair.
    """
    found = places(pairs[:_SEARCHED_PAIRS])
    other = runner_up(found, pairs[0])
    lead = found[0].similarity / max(other.similarity, 1e-6) if other else 2.0
    best, votes = _refined(pairs, PixelMap(found[0].matrix()), "similarity", _COARSE)
    if votes is None:
        return best, "similarity", _NOTHING
    coarsely = _halves_differ_by(votes, best, "similarity")
    if coarsely > 4 * _HALF_ERROR * votes.visible_size[1]:
        return best, "similarity", _judged(votes, best, "similarity", lead, coarsely)
    levels = [_no_finer(level, pairs, best, _LEVEL_PX_PER_INFRARED_PX) for level in _FINE]
    best, votes = _refined(pairs, best, "similarity", levels)
    if votes is None:
        return best, "similarity", _NOTHING
    best, votes = _refined(pairs, best, "lenses", levels)
    if votes is None:
        return best, "lenses", _NOTHING
    evidence = _judged(votes, best, "lenses", lead, coarsely)
    return _placed(pairs, best, evidence.error_px), "lenses", evidence


def _no_finer(level: Level, pairs: Sequence[GreyPair], base: PixelMap, px_per_infrared_px: float) -> Level:
    visible_size = pairs[0][1].shape
    finest = px_per_infrared_px * base.infrared_px_per_visible_px(visible_size) * visible_size[1]
    return replace(level, width_px=int(np.clip(finest, 160, level.width_px)))


def _votes(pairs: Sequence[GreyPair], base: PixelMap, level: Level) -> Votes | None:
    votes = collect(pairs, base, level)
    return votes if len(votes.points) >= _LEAST_PATCHES else None


def _refined(
    pairs: Sequence[GreyPair], base: PixelMap, model: Model, levels: Sequence[Level]
) -> tuple[PixelMap, Votes | None]:
    """Return the map after every level, and the votes of the last; the map as it was from where patches are too few."""
    votes = None
    for level in levels:
        votes = _votes(pairs, base, level)
        if votes is None:
            break
        base = elect(votes, model)
    return base, votes


def _placed(pairs: Sequence[GreyPair], judged: PixelMap, error_px: float) -> PixelMap:
    """Return the most likely map at the last level, or the judged one if they differ by more than both may be off."""
    votes = _votes(pairs, judged, _no_finer(_LAST, pairs, judged, _LAST_PX_PER_INFRARED_PX))
    if votes is None or not np.isfinite(error_px):
        return judged
    best = elect(votes.as_likelihoods(), "lenses")
    grid, at = _overlap(votes, judged)
    apart = float(np.sqrt(np.mean(np.sum((best.visible_points(at) - grid) ** 2, axis=1))))
    return best if apart <= 2 * error_px else judged


def _overlap(votes: Votes, best: PixelMap) -> tuple[Points, Points]:
    """Return points of the visible image that the infrared sees, and where it sees them."""
    grid = grid_points(votes.visible_size, 8, 6)
    at = best.infrared_points(grid)
    height, width = votes.infrared_size
    inside = (at >= 0).all(axis=1) & (at <= (width - 1, height - 1)).all(axis=1)
    return grid[inside], at[inside]


def _blocks(points: Points) -> NDArray[np.int64]:
    """Return the number of the block of each patch."""
    low, high = points.min(axis=0), points.max(axis=0)
    at = ((points - low) / np.maximum(high - low, 1) * _BLOCKS).astype(np.int64).clip(0, _BLOCKS - 1)
    return at[:, 0] + _BLOCKS * at[:, 1]


def _judged(votes: Votes, best: PixelMap, model: Model, lead: float, coarsely: float) -> Evidence:
    by = votes.displacements(best)
    spread = float(np.median(np.linalg.norm(votes.own_displacements() - by, axis=1)) / votes.factor)
    finely = _halves_differ_by(votes, best, model)
    freedom = _halves_differ_by(votes, best, "lenses", doubt=0.0)
    agreement = float(np.hypot(max(coarsely, finely), spread / 2))
    error_px = float(np.sqrt(agreement * freedom))
    share = error_px / votes.visible_size[1]
    confidence = 1 / (1 + (share / _HALF_ERROR) ** 3) / (1 + np.exp(-(lead - _HALF_LEAD) / 0.01))
    score = votes.score(best)
    return Evidence(error_px, agreement, freedom, spread, float(lead), len(votes.points), score, float(confidence))


def _halves_differ_by(votes: Votes, best: PixelMap, model: Model, doubt: float = DOUBT) -> float:
    """Return the root of the mean squared distance, in visible pixels, of the maps by halves of the blocks from `best`.

    A half has twice the variance of the whole, and shares half of it: the difference is as large as the whole's error.
    """
    grid, at = _overlap(votes, best)
    if not len(at):
        return float("inf")
    blocks = _blocks(votes.points)
    names = np.unique(blocks)
    random = np.random.default_rng(0)
    squares = []
    for _ in range(_HALVES):
        half = votes.part(np.isin(blocks, random.permutation(names)[: (len(names) + 1) // 2]))
        moved = elect(half, model, doubt).visible_points(at)
        squares.append(np.sum((moved - grid) ** 2, axis=1))
    return float(np.sqrt(np.mean(squares)))
