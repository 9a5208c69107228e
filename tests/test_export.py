"""Export writes a bundle whose every variant agrees with its checkpoint, or none at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto  # noqa: E402

from cled_edge import Bundle, Fuser  # noqa: E402
from cled_edge.engine.options import BuildOptions  # noqa: E402
from cled_edge.engine.trial import judged, make_trial  # noqa: E402
from cled_edge.errors import OptionError, OutputError, ParityError  # noqa: E402
from cled_edge.fuser import Controls  # noqa: E402
from cled_edge.network.precision import at_precision  # noqa: E402
from cled_edge.network.presets import FusionConfig, ModelConfig, UNetConfig, preset  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from export import bisect, to_onnx  # noqa: E402
from export.golden import Pair, synthetic_pairs, whole_cases  # noqa: E402
from export.graphs import Plan, graphs_of, node_counts, write_graph  # noqa: E402
from export.to_onnx import default_plan, export_bundle, read_size, verify_bundle  # noqa: E402

OPERATORS = Path(to_onnx.__file__).parent / "tensorrt_8_6_operators.json"
TINY = ModelConfig(
    "tiny",
    UNetConfig("patch", (8, 8, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1, 0), unshuffle=2),
    FusionConfig(
        (8, 8, 16, 16),
        blocks=(0, 0, 1, 1),
        decoder_blocks=(0, 0, 0, 0),
        heads=(1, 1, 2, 2),
        windows=(0, 0, 4, 0),
        merges=("concat", "concat", "concat", "channel"),
        refinement="convolution",
        unshuffle=2,
        mix=True,
    ),
    default_steps=2,
)
PLAN = Plan(("fp32", "fp16", "int8"), sizes=((56, 90),), steps=(1, 2), strength_map=True)


def randomised(config: ModelConfig) -> CledFusion:
    made = CledFusion(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def model() -> CledFusion:
    return randomised(TINY)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return synthetic_pairs(3)


@pytest.fixture(scope="module")
def bundle(model, pairs, tmp_path_factory) -> Path:
    """One that has everything: three precisions, a fixed size, two loops, each with and without a map."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    export_bundle(model, {"commit": "abc"}, out, pairs, "rendered night street", PLAN)
    return out


def test_the_bundle_is_complete_verified_and_runs(bundle: Path, pairs) -> None:
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    roles = ("unet_step", "fusion", "fused_loop-1steps", "fused_loop-1steps-map", "fused_loop", "fused_loop-map")
    padded = {"unet_step": "64x96", "fusion": "64x96"}
    assert set(manifest.graphs) == {
        f"{role}{precision}{size}"
        for role in roles
        for precision in ("", "-fp16", "-int8")
        for size in ("", f"-{padded.get(role, '56x90')}")
    }
    assert sorted(p.name for p in bundle.iterdir()) == sorted(
        [*(f"{name}.onnx" for name in manifest.graphs), "golden.safetensors", "manifest.json"]
    )
    assert (manifest.name, manifest.training) == ("tiny", {"commit": "abc"})
    checks = manifest.verification.checks
    assert {check.precision for check in checks} == {"fp32", "fp16", "int8"}
    assert {check.form for check in checks} == {"step by step", "one graph"}
    assert len({check.size for check in checks}) >= 4
    assert {check.steps for check in checks} >= {1, 2, 3}
    assert all(check.verdict == "OK" and check.psnr_db >= check.needed_db for check in checks)
    with Fuser.load(bundle) as fuser:
        assert fuser(pairs[0].infrared[:70, :90], pairs[0].visible[:70, :90]).picture.shape == (70, 90, 3)
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny"]


def test_every_graph_passes_the_trial_that_engines_are_put_to(bundle: Path) -> None:
    """In every precision, loops of a size that is no multiple and loops with a map among them."""
    opened = Bundle.open(bundle)
    found = {}
    for precision in opened.manifest.precisions():
        with Fuser.load(bundle, backend=f"onnxruntime:{precision}") as fuser:
            for name, spec in opened.manifest.graphs.items():
                size = spec.size or (64, 96)
                if spec.precision == precision:
                    trial = make_trial(opened, name, size)
                    assert list(trial.inputs) == [tensor.name for tensor in spec.inputs]
                    assert list(trial.expected) == [tensor.name for tensor in spec.outputs]
                    outputs = dict(zip(trial.expected, fuser.backend.run(name, trial.inputs), strict=True))
                    record = judged(trial, outputs, BuildOptions(precision=precision, size=size), size, "")
                    found[name] = record.verdict, record.psnr_db, record.needed_db
    assert {verdict for verdict, *_ in found.values()} == {"OK"}, found
    assert {needed_db for *_, needed_db in found.values()} == {60.0, 50.0, 40.0}


def test_every_graph_is_valid_is_loaded_and_counts_its_nodes(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for name, spec in opened.manifest.graphs.items():
        graph = onnx.load_from_string(opened.graph(name))
        onnx.checker.check_model(graph, full_check=True)
        session = onnxruntime.InferenceSession(opened.graph(name), providers=["CPUExecutionProvider"])
        assert [i.name for i in session.get_inputs()] == [tensor.name for tensor in spec.inputs]
        assert node_counts(graph) == spec.nodes
        assert graph.opset_import[0].version == spec.opset == 17
        if spec.size:
            assert not {"Shape", "If", "Loop", "ConstantOfShape"} & spec.nodes.keys()
            assert [list(i.shape) for i in session.get_inputs()] == [list(tensor.shape) for tensor in spec.inputs]


def test_graphs_hold_what_tensorrt_8_6_documents(bundle: Path) -> None:
    listed = json.loads(OPERATORS.read_text())
    known = {*listed["8.4"], *listed["8.5"], *listed["8.6"]}
    opened = Bundle.open(bundle)
    for name, spec in opened.manifest.graphs.items():
        assert spec.nodes.keys() <= known, name
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(opened.graph(name)))
        bytes_inside = {v.name for v in graph.graph.value_info if v.type.tensor_type.elem_type == TensorProto.UINT8}
        assert not bytes_inside, f"{name}: UINT8 may be nothing but an input or output"
        ends = {
            v.name
            for v in (*graph.graph.input, *graph.graph.output)
            if v.type.tensor_type.elem_type == TensorProto.UINT8
        }
        touching = [node.op_type for node in graph.graph.node if ends & {*node.input, *node.output}]
        assert set(touching) <= {"Cast"}, name


def test_fp16_graphs_hold_halves_and_keep_fp32_where_fp16_breaks(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(opened.graph("fused_loop-fp16-56x90")))
    kinds = {v.name: v.type.tensor_type.elem_type for v in graph.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    dense = [
        node for node in graph.graph.node if node.op_type == "Conv" and kinds[node.input[1]] == TensorProto.FLOAT16
    ]
    assert len(dense) > 20
    for node in graph.graph.node:
        if node.op_type in ("Softmax", "ReduceMean", "ReduceSum", "LayerNormalization", "Exp", "Log", "Sqrt"):
            assert kinds.get(node.input[0], TensorProto.FLOAT) == TensorProto.FLOAT, node.name
    sizes = {tensor.name: np.prod(tensor.dims) for tensor in graph.graph.initializer}
    halves = sum(size for name, size in sizes.items() if kinds[name] == TensorProto.FLOAT16)
    assert halves > 0.6 * sum(sizes.values())


def test_int8_graphs_quantise_the_dense_convolutions_symmetrically(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    graph = onnx.load_from_string(opened.graph("fused_loop-int8")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantising = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantising) >= 10
    assert all(not constants[node.input[2]].any() for node in quantising)  # TensorRT: y_zero_point must be 0
    assert any(constants[node.input[0]].dtype == np.int8 for node in quantising if node.input[0] in constants)


def test_a_map_of_strengths_is_the_strength_where_it_is_constant_and_local_where_not(bundle: Path, pairs) -> None:
    infrared, visible = pairs[0].infrared[:60, :80], pairs[0].visible[:60, :80]
    whole = np.full((60, 80, 2), 255, np.uint8)
    left = whole.copy()
    left[:, 40:] = 0
    with Fuser.load(bundle) as fuser:
        for controls in (Controls(2), Controls(3)):  # a loop that takes a map, and step by step
            plain, mapped = fuser(infrared, visible, controls), fuser(infrared, visible, controls, whole)
            assert np.abs(plain.picture.astype(int) - mapped.picture).max() <= 1
            half = fuser(infrared, visible, controls, left)
            assert np.array_equal(half.visible[:, 40:], visible[:, 40:])
            assert np.abs(half.visible[:, :40].astype(int) - plain.visible[:, :40]).max() <= 1
            assert not np.array_equal(half.visible, plain.visible)
        with pytest.raises(OptionError, match=r"strength_map is uint8 \(60, 80\), needed uint8 \(60, 80, 2\)"):
            fuser(infrared, visible, Controls(2), whole[:, :, 0])


def test_the_dynamo_lane_writes_fixed_sizes_that_agree(model, pairs, tmp_path: Path) -> None:
    plan = Plan(opsets=(17, 20), sizes=((48, 64),), steps=(1,))
    manifest = export_bundle(model, {}, tmp_path / "lanes", pairs[:1], "rendered", plan)
    assert {name for name, spec in manifest.graphs.items() if spec.opset == 20} == {
        "unet_step-opset20-48x64",
        "fusion-opset20-48x64",
        "fused_loop-1steps-opset20-48x64",
    }
    newer = [check for check in manifest.verification.checks if check.opset == 20]
    assert {check.form for check in newer} == {"step by step", "one graph"}
    assert all(check.verdict == "OK" for check in newer)


def test_a_graph_of_the_lineage_keeps_instance_normalization_out(tmp_path: Path) -> None:
    config = replace(
        preset("T"),
        fusion=replace(TINY.fusion, unshuffle=1),
        unet=replace(preset("T").unet, widths=(16, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    )
    for graph in graphs_of(randomised(config), Plan(("fp32", "fp16"), sizes=((32, 32),))):
        if graph.role == "unet_step":
            write_graph(graph, config.size_multiple, tmp_path / graph.file)
            assert "InstanceNormalization" not in node_counts(onnx.load(tmp_path / graph.file))


def test_another_network_fails_the_verification_and_leaves_a_report(bundle: Path, pairs, tmp_path: Path) -> None:
    other = randomised(TINY)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05)
    report = tmp_path / "report.json"
    with pytest.raises(ParityError, match=r"TOLERANCE: .* dB from eager, needed 60; \d+ of \d+ checks failed"):
        verify_bundle(bundle, other, pairs, "rendered", Plan(steps=(2,)), report)
    assert {check["verdict"] for check in json.loads(report.read_text())} == {"TOLERANCE"}


def test_nothing_but_a_report_is_written_when_verification_fails(model, pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(to_onnx.verify.__globals__["NEEDED_DB"], "fp32", 500.0)
    with pytest.raises(ParityError, match="no bundle was written"):
        export_bundle(model, {}, tmp_path / "tiny", pairs[:1], "rendered", Plan())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.verification.json"]


def test_a_folder_that_is_no_bundle_is_not_replaced(model, pairs, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is no bundle"):
        export_bundle(model, {}, tmp_path, pairs, "rendered")
    assert (tmp_path / "thesis.txt").exists()


def test_bisect_names_the_node_where_fp16_breaks(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    name = "unet_step-fp16"
    inputs = bisect.inputs_of(opened, name)
    choice = bisect.BackendChoice.parse("onnxruntime")
    graph = onnx.load_from_string(opened.graph(name))
    sound = bisect.compare(graph, inputs, choice)
    assert bisect.first_beyond(sound, 30.0) is None
    # Break one: a bias that FP16 cannot hold beside a weight of 1.
    broken = next(n for n in graph.graph.node if n.op_type == "Conv" and "stem_input" in n.name)
    bias = next(t for t in graph.graph.initializer if t.name == broken.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(bias.dims[0], 3e4, np.float16), bias.name))
    findings = bisect.compare(graph, inputs, choice)
    first = bisect.first_beyond(findings, 60.0)
    assert first is not None
    before = [f for f in findings[: findings.index(first)] if f.operator == "Conv"]
    assert all("decoder" not in f.node for f in before)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"opsets": (18,)}, "opset 18 is none of 17, 20"),
        ({"opsets": (20,)}, "give --size HEIGHTxWIDTH"),
        ({"sizes": ((16, 640),)}, "size 16x640 has a side under 32"),
        ({"precisions": ("int8",), "opsets": (17, 20), "sizes": ((64, 64),)}, "INT8 is written at opset 17 alone"),
    ],
)
def test_plans_that_cannot_be_had(plan, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Plan(**plan)


def test_sizes_are_read_or_refused(model) -> None:
    assert read_size("480x640") == (480, 640)
    for text in ("480", "480x", "x640", "480X640", "-1x5", "480x640x3"):
        with pytest.raises(OptionError, match="is not HEIGHTxWIDTH"):
            read_size(text)
    assert default_plan(model).steps == (2,)
    with pytest.raises(OptionError, match="leave --unrolled out"):
        list(graphs_of(CledFusion(preset("T")), Plan(steps=(1,))))


def test_cases_cover_every_size_and_number_of_steps(model, pairs) -> None:
    cases = list(whole_cases(model, pairs, PLAN))
    assert {case.size for case in cases} >= {(464, 624), (320, 256), (300, 421), (56, 90)}
    assert {case.controls.steps for case in cases} >= {1, 2, 3}
    assert any(case.strength_map is not None for case in cases)


def test_half_weights_are_a_copy(model) -> None:
    half = at_precision(model, "fp16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {torch.float32, torch.float16}
