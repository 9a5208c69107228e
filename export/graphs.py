"""The graphs of a bundle: how each is traced, and what its inputs and outputs are."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from cled_edge.manifest import GraphName, GraphSpec, TensorSpec
from cled_edge.network.lineage import LineageUNet, folded
from cled_edge.network.sampler import CledFusion, FusedLoop, ResidualStep
from cled_edge.network.unet import ResidualUNet

OPSET = 17

PICTURE = (-1.0, 1.0)
RESIDUAL = (-2.0, 2.0)


@dataclass(frozen=True)
class Graph:
    """A module to trace and the names of its tensors, in order."""

    name: GraphName
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: int | None = None

    @property
    def file(self) -> str:
        """Name of its ONNX file."""
        return f"{self.name}.onnx"

    def spec(self) -> GraphSpec:
        """Return its entry in the manifest."""
        return GraphSpec(file=self.file, steps=self.steps, opset=OPSET, inputs=self.inputs, outputs=self.outputs)


def graphs_of(model: CledFusion) -> tuple[Graph, ...]:
    """Return the step graph (one evaluation and state update), the fusion graph and, of our own presets, the loop.

    The loop is of the default number of steps.
    """
    controls = (
        _vector("strength", 2, (0.0, 1.0), "share of the residual to remove, infrared then visible"),
        _vector("balance", 1, (0.0, 1.0), "0 is the visible, 1 the infrared, 0.5 the paper's loss"),
    )
    unet = model.unet
    step = Graph(
        "unet_step",
        ResidualStep(folded(unet)) if isinstance(unet, LineageUNet) else model.sampler.step,
        (
            _picture("x_t", (-3.0, 3.0), "state, I_t of Eq. 12"),
            _picture("x_in", PICTURE, "degraded input"),
            _vector("t", 1, (0.0, 1000.0), "time input, A_t * 1000, from the schedule table"),
            _vector("coef", 4, (-3.0, 3.0), "weights of x_t, x0, residual and x_in in x_prev, from the schedule table"),
        ),
        (
            _picture("x_prev", (-3.0, 3.0), "next state"),
            _picture("residual", RESIDUAL, "estimated I_res; x_in - residual is the clean estimate"),
        ),
    )
    fusion = Graph(
        "fusion",
        model.fusion,
        (
            _picture("infrared", PICTURE, "degraded infrared, one channel repeated three times"),
            _picture("infrared_residual", RESIDUAL, "its last residual"),
            _picture("visible", PICTURE, "degraded visible"),
            _picture("visible_residual", RESIDUAL, "its last residual"),
            *controls,
        ),
        (_picture("fused", PICTURE, "fused picture"),),
    )
    if not isinstance(unet, ResidualUNet):
        return step, fusion
    steps = model.config.default_steps
    loop = Graph(
        "fused_loop",
        FusedLoop(model, steps),
        (_frame("infrared", 1, "degraded infrared"), _frame("visible", 3, "degraded visible"), *controls),
        (
            _frame("fused", 3, "fused picture"),
            _frame("infrared_restored", 1, "infrared less its degradation"),
            _frame("visible_restored", 3, "visible less its degradation"),
        ),
        steps,
    )
    return step, fusion, loop


def write_graph(graph: Graph, size_multiple: int, path: Path) -> None:
    """Trace with dynamic batch, height and width and write one self-contained file.

    By the TorchScript exporter at opset 17, the newest that TensorRT 8.6 parses. The dynamo exporter agrees to the bit,
    but reasons about the windows' symbolic sizes for minutes (torch 2.13).
    """
    # Two and three multiples: a size of one would be taken for a constant.
    example = tuple(_example(spec, 2 * size_multiple, 3 * size_multiple) for spec in graph.inputs)
    dynamic = {
        spec.name: {axis: name for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in (*graph.inputs, *graph.outputs)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation of this exporter, and traced comparisons that verification covers
        torch.onnx.export(
            graph.module.eval(),
            example,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            dynamic_axes=dynamic,
        )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    _require_names("inputs", (i.name for i in model.graph.input), graph.inputs)
    _require_names("outputs", (o.name for o in model.graph.output), graph.outputs)


def _require_names(what: str, seen: Iterable[str], specs: tuple[TensorSpec, ...]) -> None:
    names, needed = list(seen), [spec.name for spec in specs]
    if names != needed:
        raise RuntimeError(f"the exporter wrote {what} {names}, needed {needed}")


def _example(spec: TensorSpec, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(spec.name))
    sizes = {"batch": 2, "height": height, "width": width}
    shape = [sizes[n] if isinstance(n, str) else n for n in spec.shape]
    if spec.dtype == "uint8":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.rand(shape, generator=generator)


def _frame(name: str, channels: int, meaning: str) -> TensorSpec:
    return TensorSpec(
        name=name,
        dtype="uint8",
        shape=(1, "height", "width", channels),
        range=(0, 255),
        layout="NHWC",
        color_order="RGB" if channels == 3 else None,
        meaning=meaning,
    )


def _picture(name: str, bounds: tuple[float, float], meaning: str) -> TensorSpec:
    return TensorSpec(
        name=name,
        dtype="float32",
        shape=("batch", 3, "height", "width"),
        range=bounds,
        layout="NCHW",
        color_order="RGB",
        meaning=meaning,
    )


def _vector(name: str, length: int, bounds: tuple[float, float], meaning: str) -> TensorSpec:
    return TensorSpec(
        name=name, dtype="float32", shape=(length,), range=bounds, layout="vector", color_order=None, meaning=meaning
    )
