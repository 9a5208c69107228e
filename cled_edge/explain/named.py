"""What an explanation is told to be, by name: kinds before and after each step, measures, and what was done."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cled_edge.evidence.likelihood import KINDS, likely_kinds
from cled_edge.evidence.removal import Removal, removal_of
from cled_edge.evidence.signs import signs_of
from cled_edge.explain.explanation import MODALITIES, Explanation

Arrays = Mapping[str, NDArray[Any]]
# Of the measures of `signs_of`: what is shown, its unit, what it means.
SHOWN = {
    "sigma_flat": ("noise", "levels", "standard deviation of the noise in flat places"),
    "columns": ("pattern along columns", "levels", "root mean square of what all rows share"),
    "rows": ("pattern along rows", "levels", "root mean square of what all columns share"),
    "columns_wide": ("wide pattern along columns", "levels", "of columns of several pixels, as in an enlarged image"),
    "dead": ("dead pixels", "share", "pixels far from the median of their neighbours"),
    "ridges": ("bright against dark lines", "ratio", "above 1: bright streaks, as rain"),
    "lobe_mirrored": ("slanted one way", "log ratio", "a slanted direction against its mirror image: rain"),
    "detail_2": ("finest detail", "levels", "root mean square at a period of 2 px"),
    "detail_8": ("coarser detail", "levels", "root mean square at a period of 8 px"),
    "spread": ("contrast", "levels", "standard deviation of the thumbnail"),
    "q1": ("darkest", "levels", "1 % of the image is darker"),
    "q50": ("middle", "levels", "half of the image is darker"),
    "q99": ("brightest", "levels", "99 % of the image is darker"),
    "white": ("overexposed", "share", "pixels of 250 or more"),
    "dark": ("dark channel", "levels", "darkest colour nearby; high in haze"),
    "transmission": ("transmission", "share", "of haze, by the dark channel; 1 is clear"),
    "saturation": ("saturation", "share", "of colour; haze and darkness take it away"),
}


def named_arrays(told: Explanation) -> dict[str, NDArray[Any]]:
    """Return, for each modality M, these arrays.

    kinds_M: (K,) names. kinds_M_probability: (S + 1, K), of the input, then after each step. measures: (F,) names.
    measures_M: (S + 1, F). removal: (7,) names. removal_M: (S, 7), see `Removal`, from the input to each step's clean
    estimate. heads_M: (J,) names, and heads_M_probability: (S, J), what the network said of its kinds at each step; not
    there if the bundle tells none.
    """
    found: dict[str, NDArray[Any]] = {"measures": np.array(list(SHOWN)), "removal": np.array(Removal._fields)}
    for place, modality in enumerate(MODALITIES):
        images = [told.images(step)[place] for step in (None, *range(told.steps))]
        signs = [signs_of(image) for image in images]
        kinds = [likely_kinds(each, modality) for each in signs]
        done = [removal_of(images[0], images[k + 1], told.residual_levels[k, place]) for k in range(told.steps)]
        found |= {
            f"kinds_{modality}": np.array(KINDS[modality]),
            f"kinds_{modality}_probability": np.array([[each[kind] for kind in KINDS[modality]] for each in kinds]),
            f"measures_{modality}": np.array([[each[name] for name in SHOWN] for each in signs]),
            f"removal_{modality}": np.array(done),
        }
        if told.heads:
            said = [each._asdict()[modality] for each in told.heads]
            found[f"heads_{modality}"] = np.array(list(said[0]))
            found[f"heads_{modality}_probability"] = np.array([list(each.values()) for each in said])
    return found
