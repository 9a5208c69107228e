"""Find the first node of a graph that is computed too far from exact FP32, when verification fails.

    python -m export.bisect bundles/nano --graph unet_step-fp16
    python -m export.bisect bundles/nano --graph fusion --backend openvino:bf16

Every tensor of the graph becomes an output. The reference is the same graph with every FP16 made FP32, in ONNX Runtime
without optimisation; the other side is the graph as it is on the backend. Nodes are compared in the order of the graph.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from rich.console import Console
from rich.table import Column, Table

from cled_edge.backend.choice import BackendChoice
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.json_text import json_of
from cled_edge.verify import read_golden
from export.recording import Inputs, recorded_inputs

log = logging.getLogger("export")
Array = NDArray[Any]
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Deviation:
    """How far a node's output is from the reference, as the ratio of signal to error in dB; NaN if it is not finite."""

    node: str
    operator: str
    tensor: str
    snr_db: float


def compare(graph: onnx.ModelProto, inputs: Inputs, choice: BackendChoice) -> list[Deviation]:
    """Return the deviation of every floating-point tensor that a node writes, in the order of the graph."""
    watched = _watched(graph)
    names = [output.name for output in watched.graph.output]
    reference = _run_ort(_exact(watched), inputs, names, optimise=False)
    seen = _run(watched, inputs, names, choice)
    by_output = {name: node for node in watched.graph.node for name in node.output}
    deviations = []
    for name in names:
        node, needed = by_output[name], reference[name].astype(np.float64)
        deviations.append(Deviation(node.name, node.op_type, name, _snr_db(seen[name].astype(np.float64), needed)))
    return deviations


def _snr_db(seen: Array, needed: Array) -> float:
    if not np.isfinite(seen).all():
        return float("nan")
    signal, noise = float(np.mean(np.square(needed))), float(np.mean(np.square(seen - needed)))
    return 200.0 if noise == 0 else float(10 * np.log10(max(signal, 1e-30) / noise))


def first_beyond(deviations: list[Deviation], needed_db: float) -> Deviation | None:
    """Return the first deviation under `needed_db`, or that is not finite, or None."""
    return next((finding for finding in deviations if not finding.snr_db >= needed_db), None)


def _watched(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with every floating-point tensor of known type that a node writes as an output, in order."""
    typed = onnx.shape_inference.infer_shapes(graph)
    kinds = {value.name: value for value in (*typed.graph.value_info, *typed.graph.output)}
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    del watched.graph.output[:]
    for node in graph.graph.node:
        for name in node.output:
            if name in kinds and kinds[name].type.tensor_type.elem_type in _FLOATS:
                watched.graph.output.append(kinds[name])
    return watched


def _exact(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with FP32 wherever it says FP16."""
    exact = onnx.ModelProto()
    exact.CopyFrom(graph)
    for tensor in exact.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in exact.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
    for value in (*exact.graph.input, *exact.graph.output, *exact.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return exact


def _run(graph: onnx.ModelProto, inputs: Inputs, names: list[str], choice: BackendChoice) -> Inputs:
    if choice.name == "onnxruntime":
        return _run_ort(graph, inputs, names, optimise=True)
    import openvino  # noqa: PLC0415

    from cled_edge.backend.openvino import DEVICES, TYPES  # noqa: PLC0415

    core = openvino.Core()
    model = core.read_model(graph.SerializeToString())
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    hint = {"INFERENCE_PRECISION_HINT": TYPES[choice.precision or "fp32"]}
    outputs = core.compile_model(model, DEVICES[choice.name], hint)(inputs)
    return {name: np.asarray(outputs[index]) for index, name in enumerate(names)}


def _run_ort(graph: onnx.ModelProto, inputs: Inputs, names: list[str], optimise: bool) -> Inputs:
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.log_severity_level = 3
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, inputs), strict=True))


def inputs_of(bundle: Bundle, name: str) -> Inputs:
    """Return what the graph is given when the bundle's first fitting golden pair is fused in ONNX Runtime."""
    steps = bundle.manifest.graphs[name].steps
    frames = (
        (case.infrared, case.visible, replace(case.controls, steps=steps or case.controls.steps), case.strength_map)
        for case in read_golden(bundle)
    )
    found = next(recorded_inputs(bundle, name, frames), None)
    if found is None:
        raise OptionError(f"{bundle.path}: no golden pair is of the size that graph {name} takes; export it again")
    return found


def main(
    bundle: Annotated[Path, typer.Argument(help="folder of the bundle")],
    graph: Annotated[str, typer.Option(help="name of the graph in manifest.json")],
    backend: Annotated[str, typer.Option(metavar="NAME[:PRECISION]", help="where it fails")] = "onnxruntime",
    needed_db: Annotated[float, typer.Option(help="ratio of signal to error that a tensor must reach")] = 40.0,
    as_json: Annotated[bool, typer.Option("--json", help="print every tensor as JSON")] = False,
) -> None:
    """Name the first node of GRAPH beyond tolerance."""
    opened = Bundle.open(bundle, trusted=True)
    if graph not in opened.manifest.graphs:
        raise OptionError(f"{bundle} has no graph {graph!r}; it has {', '.join(opened.manifest.graphs)}")
    choice = BackendChoice.parse(backend)
    deviations = compare(onnx.load_from_string(opened.graph(graph)), inputs_of(opened, graph), choice)
    if as_json:
        typer.echo(json_of([vars(finding) for finding in deviations]), nl=False)
        return
    first = first_beyond(deviations, needed_db)
    console = Console()
    if first is None:
        console.print(f"all {len(deviations)} tensors of {graph} reach {needed_db:g} dB on {choice}", highlight=False)
        return
    place = deviations.index(first)
    table = Table(
        "node", "operator", "tensor", Column("dB", justify="right"), title=f"around the first under {needed_db:g} dB"
    )
    for finding in deviations[max(0, place - 3) : place + 4]:
        table.add_row(finding.node, finding.operator, finding.tensor, f"{finding.snr_db:.1f}")
    console.print(table)
    console.print(f"first beyond tolerance: {first.operator} {first.node} ({first.snr_db:.1f} dB)", highlight=False)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
