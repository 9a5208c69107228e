"""What a batch of each stage holds, by name, and what changes all of its tensors at once."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Fields = TypeVar("Fields", bound=tuple[Any, ...])


class RestorationBatch(NamedTuple):
    """Stage 1: N images, each of one camera; infrared and visible take turns.

    degraded, clean: (N, 3, S, S), uint8 as they are made, float32 in [-1, 1] after `from_bytes`.
    kinds: (N, K) float32, K as the model has kinds: 1 if the degradation was simulated, 0 if not, NaN where nobody
        knows, in a real degraded image.
    held: (N,) float32, 0, or 1 where the network shall answer as it did before the stage. `clean` is then what it was
        shown, the degraded image. 2 is that of a monochrome camera, whose `clean` is what it was shown in colour.
    """

    degraded: Tensor
    clean: Tensor
    kinds: Tensor
    held: Tensor


class FusionBatch(NamedTuple):
    """Stage 2: N pairs and their clean references.

    All: (N, 3, S, S), uint8 as they are made, float32 in [-1, 1] after `from_bytes`.
    """

    infrared: Tensor
    infrared_clean: Tensor
    visible: Tensor
    visible_clean: Tensor


def each(fields: Fields, function: Callable[[Tensor], Tensor]) -> Fields:
    """Return the same fields with what `function` makes of each tensor; None stays None."""
    kind: Any = type(fields)
    changed: Fields = kind(*(None if value is None else function(value) for value in fields))
    return changed


def from_bytes(batch: Fields) -> Fields:
    """Return a batch with its images as float32 in [-1, 1], on the device where they are; other tensors stay."""
    return each(batch, lambda x: x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x)
