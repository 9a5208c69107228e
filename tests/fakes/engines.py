"""Engines that compute with NumPy, and a bundle to run them for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.backend.tensorrt.build_options import RECIPE, BuildOptions
from cled_edge.backend.tensorrt.build_record import BuildRecord, GraphFacts, PlanSpec, ReadBack, TrialRecord, engine_key
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.backend.tensorrt.store import default_folder, graph_sha256, write_engine
from cled_edge.bundle.manifest import OPSETS, GraphSpec, KindSpec
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import GRAPHS, TensorSpec
from tests.fakes.small_bundle import written
from tests.fakes.tensorrt.releases import VERSIONS

MULTIPLE = 8
KINDS = KindSpec(name="stripes", infrared=(2.0, -1.0)), KindSpec(name="noise", infrared=(1.0, 0.0), visible=(1.0, 0.5))
ARENA_BYTES = {"unet_step": 700, "fusion": 1500, "fused_loop": 2000}
F = np.float32


def unet_step(x_t, x_in, t, coef):
    residual = (x_in - F(0.5) * x_t) * (F(1) + t[0] / F(1000)) * F(0.1)
    x_prev = coef[0] * x_t + coef[1] * (x_in - residual) + coef[2] * residual + coef[3] * x_in
    return {"x_prev": x_prev, "residual": residual, "kinds": told(x_in.mean(axis=(1, 2, 3)))}


def told(means):
    """Return what is said of two kinds of degradation, (N, 2), of images by a number each."""
    return np.stack([means, F(1) - F(2) * means], axis=1)


def fusion(infrared, infrared_residual, visible, visible_residual, strength, balance):
    one, other = infrared - strength[0] * infrared_residual, visible - strength[1] * visible_residual
    return {"fused": balance[0] * one + (F(1) - balance[0]) * other}


def fused_loop(steps, infrared, visible, strength, balance, strength_map=None):
    shares = np.full((*infrared.shape[:3], 2), 255, np.uint8) if strength_map is None else strength_map
    one = infrared * (F(1) - F(0.05) * steps * strength[0] * shares[..., :1] / F(255))
    other = visible * (F(1) - F(0.07) * steps * strength[1] * shares[..., 1:] / F(255))
    fused = balance[0] * one + (F(1) - balance[0]) * other
    return {
        "fused": fused.astype(np.uint8),
        "infrared_restored": one.astype(np.uint8),
        "visible_restored": other.astype(np.uint8),
        "kinds": told(np.stack([infrared.mean(dtype=F), visible.mean(dtype=F)]) / F(127.5) - F(1)),
    }


def doubt(x_in, residual, noise):
    return {"drawn": residual - F(0.1) * noise, "uncertainty": F(20) + F(10) * x_in.mean(axis=1, keepdims=True)}


def compute(spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if spec.role == "fused_loop":
        return fused_loop(F(spec.steps), **inputs)
    return {"unet_step": unet_step, "fusion": fusion, "doubt": doubt}[spec.role](**inputs)


class NumpyBackend:
    """What the engines compute, on the host."""

    opsets = OPSETS
    description = "numpy"
    in_use = None

    def __init__(self, bundle: Bundle, choice: str = "tensorrt:fp16") -> None:
        self.bundle, self.choice = bundle, BackendChoice.parse(choice)
        self.facts, self.runs = BackendFacts("numpy", "CPU", "fp32"), RunFacts()

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(compute(self.bundle.manifest.graphs[graph], inputs).values())

    def close(self) -> None:
        pass


def _tensor(name: str, shape: tuple[int | str, ...], dtype: str = "float32") -> TensorSpec:
    layout = "vector" if len(shape) == 1 else "NHWC" if dtype == "uint8" else "NCHW"
    return TensorSpec(name=name, dtype=dtype, shape=shape, range=(-3, 3), layout=layout, color_order=None, meaning=name)


def _kinds(images: int | str) -> TensorSpec:
    return replace(_tensor("kinds", (images, len(KINDS))), layout="NK")


def _spec(role: str, name: str, precision: str, opset: int, steps: int | None, has_map: bool, size) -> GraphSpec:
    picture = ("batch", 3, "height", "width")
    controls = (_tensor("strength", (2,)), _tensor("balance", (1,)))
    if role == "unet_step":
        inputs = (_tensor("x_t", picture), _tensor("x_in", picture), _tensor("t", (1,)), _tensor("coef", (4,)))
        outputs = (_tensor("x_prev", picture), _tensor("residual", picture), _kinds("batch"))
    elif role == "fusion":
        names = ("infrared", "infrared_residual", "visible", "visible_residual")
        inputs, outputs = (*(_tensor(n, picture) for n in names), *controls), (_tensor("fused", picture),)
    elif role == "doubt":
        inputs, outputs = GRAPHS["doubt"].inputs, GRAPHS["doubt"].outputs
    else:

        def frame(tensor: str, channels: int) -> TensorSpec:
            return _tensor(tensor, ("batch", "height", "width", channels), "uint8")

        inputs = (
            frame("infrared", 1),
            frame("visible", 3),
            *controls,
            *([frame("strength_map", 2)] if has_map else []),
        )
        outputs = (frame("fused", 3), frame("infrared_restored", 1), frame("visible_restored", 3), _kinds(2))
    return GraphSpec(
        role=role,
        file=f"{name}.onnx",
        precision=precision,
        opset=opset,
        size=size,
        steps=steps,
        strength_map=has_map,
        nodes={},
        inputs=inputs,
        outputs=outputs,
    )


def empty_graph(name: str) -> bytes:
    """Return an ONNX file of IR version 8 whose producer is `name` and whose graph of that name has no nodes."""
    text = name.encode()
    graph = b"\x12" + bytes([len(text)]) + text
    return b"\x08\x08\x12" + bytes([len(text)]) + text + b"\x3a" + bytes([len(graph)]) + graph


def small_bundle(folder: Path, *, opset_20_size: tuple[int, int] | None = None, doubts: bool = False) -> Bundle:
    """Return a bundle that is written to `folder`: both reference graphs and loops of two steps, in FP32 and FP16.

    doubts: whether it has a doubt graph.
    """
    wanted = [("doubt", "fp32", 17, None, False, None)] if doubts else []
    for precision in ("fp32", "fp16"):
        wanted += [(role, precision, 17, None, False, None) for role in ("unet_step", "fusion")]
        wanted += [("fused_loop", precision, 17, 2, has_map, None) for has_map in (False, True)]
        if opset_20_size:
            wanted += [(role, precision, 20, None, False, opset_20_size) for role in ("unet_step", "fusion")]
    graphs, contents = {}, {}
    for role, precision, opset, steps, has_map, size in wanted:
        parts = [role, *["map"] * has_map, *[precision] * (precision != "fp32"), *[f"opset{opset}"] * (opset != 17)]
        name = "-".join(parts)
        graphs[name] = _spec(role, name, precision, opset, steps, has_map, size)
        contents[f"{name}.onnx"] = empty_graph(name)
    return written(folder, "small", MULTIPLE, graphs, contents, KINDS)


def facts_of(release: str) -> DeviceFacts:
    import platform

    from cled_edge.backend.tensorrt.device import kernel_driver, power_mode

    return DeviceFacts(
        gpu="Fake Orin",
        sm="87",
        multiprocessors=8,
        memory_gib=8,
        power_mode=power_mode(),
        driver="12.6",
        cuda="12.6",
        kernel_driver=kernel_driver(),
        tensorrt=VERSIONS[release],
        os=platform.system().lower(),
        arch=platform.machine().lower(),
    )


def write_plan(
    bundle: Bundle,
    graph: str,
    size: tuple[int, int],
    release: str,
    options: BuildOptions | None = None,
    folder: Path | None = None,
    **behaviour: Any,
) -> Path:
    """Put an engine where `cled-edge build` does, and return its file.

    options: it was built with; None are the usual ones for `size`.

    behaviour, of a broken one: refuse ("always", "captured"), stale (repeats what it computed when captured), drift
    (a replay computes something else), dynamic (sizes are chosen at run time), memory (bytes of activations),
    rename (of a tensor), shape (of its first input), missing (what infer_shapes returns).
    """
    spec = bundle.manifest.graphs[graph]
    plan = (
        b"plan"
        + json.dumps(
            {"major": release.partition(".")[0], "spec": spec.model_dump(mode="json"), "size": size, **behaviour}
        ).encode()
    )
    options = options or BuildOptions(precision=spec.precision, size=size)
    facts, sha256 = facts_of(release), graph_sha256(bundle, graph)
    record = BuildRecord(
        record_version=3,
        created_by="a test",
        key=engine_key(sha256, options, facts),
        graph=GraphFacts(
            name=graph, bundle="small", role=spec.role, precision=spec.precision, opset=spec.opset, sha256=sha256
        ),
        facts=facts,
        options=options,
        plan=PlanSpec(bytes=len(plan), sha256=hashlib.sha256(plan).hexdigest()),
        read_back=ReadBack(tensors=(), profiles=1, device_memory_bytes=1, aux_streams=0, hardware_compatibility=None),
        recipe=RECIPE,
        layers=(),
        trials=(
            TrialRecord(size=size, tensor="x", psnr_db=99.0, needed_db=50.0, verdict="OK", launched="one CUDA graph"),
        ),
        strongly_typed=release != "8.6",
        build_s=1.0,
        timing_cache_bytes=0,
    )
    return write_engine(folder or default_folder(), plan, record)
