"""A model's numbers as they are to stand in its graphs: standardised convolutions made plain, dense weights in FP16.

The type is in the graph and nowhere else, so that a strongly typed TensorRT network, ONNX Runtime and OpenVINO mean the
same by it. What stays FP32 are the places where FP16 breaks (method.md 2.4): embeddings, norms, softmax, means over a
image, the L2 norm over H * W, what is of the size of 1 / (H W), and the arithmetic that ends in an image.
"""

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

from cled_edge.bundle.manifest import GraphPrecision
from cled_edge.network import unet
from cled_edge.network.blocks import ScaledConv2d, WindowSelfAttention
from cled_edge.network.light_fusion import DeepStreams, SceneRange
from cled_edge.network.lineage import GroupNorm, LinearAttention, StandardisedConv2d
from cled_edge.network.row_offsets import RowOffsets
from cled_edge.network.sampler import CledFusion

# Modules that work in FP32 whatever the graph's precision, with all that is in them.
_EXACT = (unet.ChannelGate, unet.ColumnContext, RowOffsets, SceneRange, DeepStreams)
Module = TypeVar("Module", bound=nn.Module)
_EXACT_NAMES = ("time_mlp", "probe")


def at_precision(model: CledFusion, precision: GraphPrecision) -> CledFusion:
    """Return a copy for export, in evaluation mode: plain convolutions, and FP16 dense weights if `fp16`."""
    plain = with_plain_convolutions(model).eval()
    for module in plain.modules():
        if isinstance(module, GroupNorm):
            module.written_out = True
    if precision == "fp16":
        for module in _dense(plain):
            module.half()
    return plain


def with_plain_convolutions(model: Module) -> Module:
    """Return a copy whose standardised convolutions are plain ones that hold the result, computed in FP32.

    Checkpoints keep the weights as they were trained. In FP16 the division by a small deviation would change them.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ScaledConv2d | StandardisedConv2d):
                plain = nn.Conv2d(child.in_channels, child.out_channels, 3, child.stride[0], padding=1)  # both are 3x3
                with torch.no_grad():
                    plain.weight.copy_(child.plain_weight())
                    if plain.bias is not None and child.bias is not None:
                        plain.bias.copy_(child.bias)
                setattr(parent, name, plain)
    return model


def _dense(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the convolutions, and the projections of window attention, that take the bulk of the time."""
    for name, child in module.named_children():
        if isinstance(child, _EXACT) or name in _EXACT_NAMES:
            continue
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d) or (
            isinstance(child, nn.Linear) and isinstance(module, WindowSelfAttention)
        ):
            yield child
        elif isinstance(child, LinearAttention):
            yield child.to_qkv
        else:
            yield from _dense(child)
