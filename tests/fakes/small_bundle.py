"""A bundle of a few nodes, written by hand: what tests of engines need, without torch and without the shipped one."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from cled_edge.bundle.manifest import (
    FileSpec,
    GraphPrecision,
    GraphSpec,
    KindSpec,
    Manifest,
    PreprocessingSpec,
    ScheduleSpec,
    VerificationSpec,
)
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import GraphRole, TensorSpec
from cled_edge.schedule import Schedule

Shape = tuple[int | str, ...]
_PICTURE: Shape = ("batch", 3, "height", "width")
_TENSORS: dict[GraphRole, tuple[dict[str, Shape], dict[str, Shape]]] = {
    "unet_step": (
        {"x_t": _PICTURE, "x_in": _PICTURE, "t": (1,), "coef": (4,)},
        {"x_prev": _PICTURE, "residual": _PICTURE},
    ),
    "fusion": (
        {
            "infrared": _PICTURE,
            "infrared_residual": _PICTURE,
            "visible": _PICTURE,
            "visible_residual": _PICTURE,
            "strength": (2,),
            "balance": (1,),
        },
        {"fused": _PICTURE},
    ),
    "fused_loop": (
        {
            "infrared": (1, "height", "width", 1),
            "visible": (1, "height", "width", 3),
            "strength": (2,),
            "balance": (1,),
        },
        {
            "fused": (1, "height", "width", 3),
            "infrared_restored": (1, "height", "width", 1),
            "visible_restored": (1, "height", "width", 3),
        },
    ),
}
_NODES = ("Softmax", "Exp", "Sqrt", "Add", "Pow", "Conv")  # the fake parser looks at their kinds alone


def write_bundle(folder: Path, name: str = "tiny") -> Bundle:
    """Write a bundle with every kind of graph that `build` can choose between."""
    graphs: dict[str, GraphSpec] = {}
    contents: dict[str, bytes] = {}

    def add(role: GraphRole, precision: GraphPrecision = "fp32", opset: int = 17, size=None, steps=None) -> None:
        parts = [role, *([precision] if precision != "fp32" else []), *([f"opset{opset}"] if opset != 17 else [])]
        parts += ["x".join(map(str, size))] if size else []
        key = "-".join(parts)
        inputs, outputs = (_specs(tensors, size) for tensors in _TENSORS[role])
        contents[f"{key}.onnx"] = _onnx(inputs, outputs, opset, name).SerializeToString()
        graphs[key] = GraphSpec(
            role=role, file=f"{key}.onnx", precision=precision, opset=opset, size=size, steps=steps,
            strength_map=False, nodes={}, inputs=inputs, outputs=outputs,
        )  # fmt: skip

    add("unet_step")
    add("fusion")
    add("unet_step", "fp16")
    add("fusion", "fp16")
    add("unet_step", "fp16", 20, (64, 96))
    add("fusion", "fp16", 20, (64, 96))
    add("fused_loop", "fp16", 17, (64, 96), 2)
    add("fused_loop", "fp16", 20, (64, 96), 2)
    add("fused_loop", "fp16", 17, (32, 32), 2)
    add("fused_loop", "fp16", 17, (56, 90), 2)  # whose step and fusion take 64x96
    add("unet_step", "int8")
    return written(folder, name, 16, graphs, contents)


def written(
    folder: Path,
    name: str,
    size_multiple: int,
    graphs: dict[str, GraphSpec],
    contents: dict[str, bytes],
    kinds: tuple[KindSpec, ...] = (),
) -> Bundle:
    """Write a bundle of two default steps with these graphs, whose files have these contents, and open it."""
    manifest = Manifest(
        schema_version=2,
        name=name,
        created_by="a test",
        size_multiple=size_multiple,
        graphs=graphs,
        schedule=ScheduleSpec.from_schedule(Schedule.named("rddm09"), 2),
        preprocessing=PreprocessingSpec(),
        kinds=kinds,
        files={
            file: FileSpec(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for file, content in contents.items()
        },
        training={},
        verification=VerificationSpec(inputs="none", backend="none", checks=()),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return Bundle.open(folder)


def _specs(tensors: dict[str, Shape], size: tuple[int, int] | None) -> tuple[TensorSpec, ...]:
    batch = 2 if "x_t" in tensors or "x_prev" in tensors else 1
    numbers = {} if size is None else {"batch": batch, "height": size[0], "width": size[1]}
    return tuple(
        TensorSpec(
            name=name,
            dtype="uint8" if len(shape) == 4 and shape[-1] in (1, 3) else "float32",
            shape=tuple(numbers.get(side, side) for side in shape),
            range=(0, 1),
            layout="vector" if len(shape) == 1 else "NCHW",
            color_order=None,
            meaning="",
        )
        for name, shape in tensors.items()
    )


def _onnx(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], opset: int, name: str) -> onnx.ModelProto:
    kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    values = [
        [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in side] for side in (inputs, outputs)
    ]
    nodes = [helper.make_node(kind, [inputs[0].name], [outputs[0].name]) for kind in _NODES]
    graph = helper.make_graph(nodes, name, *values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
