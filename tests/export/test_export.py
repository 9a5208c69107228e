"""Export writes a bundle whose every variant agrees with its checkpoint, or none at all."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto  # noqa: E402

from cled_edge import Bundle, Fuser  # noqa: E402
from cled_edge.backend.opener import open_backend  # noqa: E402
from cled_edge.backend.tensorrt.build_options import BuildOptions  # noqa: E402
from cled_edge.build.trial import judged, make_trial  # noqa: E402
from cled_edge.bundle.manifest import GraphSpec  # noqa: E402
from cled_edge.contract import STRENGTH_MAPS, Controls  # noqa: E402
from cled_edge.errors import CheckpointError, OptionError, OutputError, ParityError  # noqa: E402
from cled_edge.network.checkpoint import load_checkpoint  # noqa: E402
from cled_edge.network.precision import at_precision  # noqa: E402
from cled_edge.network.presets import DoubtConfig, FusionConfig, ModelConfig, UNetConfig, preset  # noqa: E402
from cled_edge.network.sampler import CledFusion  # noqa: E402
from cled_edge.verify import judge, read_golden, verify  # noqa: E402
from export import bisect, golden, int8, to_onnx  # noqa: E402
from export.golden import ImagePair, synthetic_pairs, whole_cases  # noqa: E402
from export.graphs import GraphSet, graphs_of  # noqa: E402
from export.to_onnx import default_set, export_bundle, told_kinds, verify_bundle  # noqa: E402
from export.tracing import node_counts, write_graph  # noqa: E402
from export.untrained import untrained  # noqa: E402

OPERATORS = Path(to_onnx.__file__).parent / "tensorrt_8_6_operators.json"
# Every kind of part that the own presets have, once: the exporters take a second or more of each graph.
TINY = ModelConfig(
    "tiny",
    UNetConfig("patch", (8, 16), encoder_blocks=(0, 1), decoder_blocks=(1, 0), unshuffle=2),
    FusionConfig(
        (8, 16),
        blocks=(0, 1),
        decoder_blocks=(0, 0),
        heads=(1, 2),
        windows=(0, 4),
        merges=("concat", "channel"),
        refinement="convolution",
        unshuffle=2,
        mix=True,
        detail=8,
    ),
    default_steps=2,
)
PLAN = GraphSet(("fp32", "fp16", "int8"), steps=(2,), maps=STRENGTH_MAPS)
SIZES = ((116, 156), (80, 64), (75, 105))
LANES = GraphSet(opsets=(17, 20), sizes=((50, 90),), steps=(1,))  # no multiple of 4: the loop pads in its graph


def randomised(config: ModelConfig) -> CledFusion:
    made = CledFusion(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made.eval()


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "SIZES", SIZES)
        patch.setattr(int8, "SIZE", (96, 128))
        yield


@pytest.fixture(scope="module")
def model() -> CledFusion:
    return randomised(TINY)


@pytest.fixture(scope="module")
def pairs() -> list[ImagePair]:
    return synthetic_pairs(3)


@pytest.fixture(scope="module")
def bundle(model, pairs, tmp_path_factory) -> Path:
    """One of three precisions, with and without a map, for any size."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    export_bundle(model, {"commit": "abc"}, out, pairs, "rendered night street", PLAN)
    return out


@pytest.fixture(scope="module")
def lanes(model, pairs, tmp_path_factory) -> Path:
    """One of both opsets, for a fixed size, with a loop of another number of steps than the usual."""
    out = tmp_path_factory.mktemp("export") / "lanes"
    export_bundle(model, {}, out, pairs[:1], "rendered", LANES)
    return out


def test_the_bundle_is_complete_verified_and_runs(bundle: Path, pairs) -> None:
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    roles = ("unet_step", "fusion", "fused_loop", "fused_loop-map")
    assert set(manifest.graphs) == {f"{role}{precision}" for role in roles for precision in ("", "-fp16", "-int8")}
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


def test_the_bundle_tells_kinds_as_the_network_does_in_every_form(bundle: Path, model, pairs) -> None:
    infrared, visible = pairs[0].infrared[:64, :96], pairs[0].visible[:64, :96]
    assert [kind.name for kind in Bundle.open(bundle).manifest.kinds] == list(TINY.kinds)
    assert all(graph.kinds == len(TINY.kinds) * (graph.role != "fusion") for _, _, graph in graphs(bundle))
    for precision in ("fp32", "fp16"):
        with Fuser.load(bundle, backend=f"onnxruntime:{precision}") as fuser:
            x_in = torch.from_numpy(fuser.prepare(infrared, visible))
            with torch.no_grad():
                wanted = model.sampler.kinds(x_in, 2)
            for fuse in (fuser.in_one_graph, fuser.step_by_step):
                seen = fuse(infrared, visible, Controls(steps=2))
                assert seen.kinds.shape == (2, len(TINY.kinds))
                assert np.abs(seen.kinds - wanted.numpy()).max() < (1e-4 if precision == "fp32" else 0.05)
            likely = fuser.kinds(seen)
    assert list(likely.visible) == list(TINY.kinds), "uncalibrated, it tells every kind in both modalities"
    assert likely.visible["haze"] == pytest.approx(1 / (1 + np.exp(-seen.kinds[1, 0])), abs=1e-6)


def test_the_calibration_of_a_checkpoint_goes_into_the_manifest_and_a_broken_one_is_told() -> None:
    fitted = {"infrared": {"stripes": [1.5, -0.5]}, "visible": {"haze": [0.8, 0.1]}}
    told = {kind.name: kind for kind in told_kinds(TINY, {"kinds_calibration": fitted})}
    assert told["stripes"].infrared == (1.5, -0.5)
    assert told["stripes"].visible is None
    assert told["haze"].visible == (0.8, 0.1)
    for broken in ([1], {"infrared": {"stripes": ["a", 1]}}, {"thermal": {"stripes": [1, 1]}}):
        with pytest.raises(
            CheckpointError, match=r"has a kinds_calibration that is none .*; run python -m training\.fit"
        ):
            told_kinds(TINY, {"kinds_calibration": broken})


def graphs(*bundles: Path) -> list[tuple[Bundle, str, GraphSpec]]:
    return [(opened, *item) for opened in map(Bundle.open, bundles) for item in opened.manifest.graphs.items()]


def test_every_graph_passes_the_trial_that_engines_are_put_to(bundle: Path, lanes: Path) -> None:
    """In every precision, loops of a size that is no multiple and loops with a map among them."""
    found = {}
    for opened, name, spec in graphs(bundle, lanes):
        size = spec.size or (64, 96)
        trial = make_trial(opened, name, size)
        assert list(trial.inputs) == [tensor.name for tensor in spec.inputs]
        assert list(trial.expected) == [tensor.name for tensor in spec.outputs]
        with Fuser(opened, open_backend(f"onnxruntime:{spec.precision}", opened)) as fuser:
            outputs = dict(zip(trial.expected, fuser.backend.run(name, trial.inputs), strict=True))
        record = judged(trial, outputs, BuildOptions(precision=spec.precision, size=size), size, "")
        found[opened.path, name] = record.verdict, record.psnr_db, record.needed_db
    assert {verdict for verdict, *_ in found.values()} == {"OK"}, found
    assert {needed_db for *_, needed_db in found.values()} == {60.0, 50.0, 40.0}


def test_every_graph_is_valid_is_loaded_and_counts_its_nodes(bundle: Path, lanes: Path) -> None:
    for opened, name, spec in graphs(bundle, lanes):
        graph = onnx.load_from_string(opened.graph(name))
        onnx.checker.check_model(graph, full_check=True)
        session = onnxruntime.InferenceSession(opened.graph(name), providers=["CPUExecutionProvider"])
        assert [i.name for i in session.get_inputs()] == [tensor.name for tensor in spec.inputs]
        assert node_counts(graph) == spec.nodes
        assert graph.opset_import[0].version == spec.opset == (20 if "opset20" in name else 17)
        if spec.size:
            assert not {"Shape", "If", "Loop", "ConstantOfShape"} & spec.nodes.keys()
            assert [list(i.shape) for i in session.get_inputs()] == [list(tensor.shape) for tensor in spec.inputs]


def test_graphs_hold_what_tensorrt_8_6_documents(bundle: Path, lanes: Path) -> None:
    listed = json.loads(OPERATORS.read_text())
    known = {*listed["8.4"], *listed["8.5"], *listed["8.6"]}
    for opened, name, spec in graphs(bundle, lanes):
        if spec.opset != 17:
            continue
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
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(opened.graph("fused_loop-fp16")))
    kinds = {v.name: v.type.tensor_type.elem_type for v in graph.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    dense = [
        node for node in graph.graph.node if node.op_type == "Conv" and kinds[node.input[1]] == TensorProto.FLOAT16
    ]
    assert len(dense) > 10
    for node in graph.graph.node:
        if node.op_type in ("Softmax", "ReduceMean", "ReduceSum", "LayerNormalization", "Exp", "Log", "Sqrt"):
            assert kinds.get(node.input[0], TensorProto.FLOAT) == TensorProto.FLOAT, node.name
    sizes = {tensor.name: np.prod(tensor.dims) for tensor in graph.graph.initializer}
    halves = sum(size for name, size in sizes.items() if kinds[name] == TensorProto.FLOAT16)
    assert halves > 0.5 * sum(sizes.values())


def test_int8_graphs_quantise_the_dense_convolutions_symmetrically(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    graph = onnx.load_from_string(opened.graph("fused_loop-int8")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantising = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantising) >= 10
    assert all(not constants[node.input[2]].any() for node in quantising)  # TensorRT: y_zero_point must be 0
    assert any(constants[node.input[0]].dtype == np.int8 for node in quantising if node.input[0] in constants)
    # A stream that goes around a convolution is not rounded with what enters it.
    rounded = {name for node in quantising for name in node.output}
    readers = {node.op_type for node in graph.node if rounded & set(node.input)}
    assert readers == {"DequantizeLinear", "Conv"}


def test_graphs_of_one_size_hold_the_same_convolutions(bundle: Path, lanes: Path) -> None:
    """By their weights INT8 knows them again, in a loop once for each step."""
    measured, fixed = Bundle.open(bundle), Bundle.open(lanes)
    graphs = [onnx.load_from_string(measured.graph(name)) for name in ("unet_step", "fusion")]
    scales = {int8.key(weights): 0.1 for graph in graphs for weights in int8.dense_convolutions(graph).values()}
    assert len(scales) == 7
    quantised = int8.quantised(onnx.load_from_string(fixed.graph("fused_loop-1steps-50x90")), scales)
    assert node_counts(quantised)["QuantizeLinear"] == 7
    loop = int8.quantised(onnx.load_from_string(measured.graph("fused_loop")), scales)
    assert (node_counts(loop)["QuantizeLinear"], node_counts(loop)["DequantizeLinear"]) == (11, 18)
    with pytest.raises(KeyError):
        int8.quantised(graphs[0], {})


def test_int8_leaves_out_the_convolutions_that_harm_the_loop_most(bundle: Path, pairs, monkeypatch) -> None:
    monkeypatch.setattr(int8, "CLIPS", (1.0, 0.02))  # the second harms
    opened = Bundle.open(bundle)
    loop = int8._Loop(opened, pairs[:1])
    alone = {conv: loop.psnr_db({conv: largest / 127}) for conv, largest in loop.largest.items()}
    all_of_them = loop.psnr_db({conv: largest / 127 for conv, largest in loop.largest.items()})
    assert all_of_them < min(alone.values())
    monkeypatch.setattr(int8, "MARGIN_DB", all_of_them + 0.1 - 40)
    scales = int8.measured_scales(opened, pairs[:1])
    kept = [alone[conv] for conv, scale in scales.items() if scale]
    left_out = [alone[conv] for conv, scale in scales.items() if not scale]
    assert left_out
    assert max(left_out) <= min(kept)
    assert all(scale in (0, loop.largest[conv] / 127) for conv, scale in scales.items())
    monkeypatch.setattr(int8._Loop, "psnr_db", lambda self, scales: 30.0)
    with pytest.raises(ParityError, match=r"with one of 7 dense convolutions in INT8 the loop is 30.0 dB from"):
        int8.measured_scales(opened, pairs[:1])


def test_a_map_of_strengths_is_the_strength_where_it_is_constant_and_local_where_not(bundle: Path, pairs) -> None:
    infrared, visible = pairs[0].infrared[:60, :80], pairs[0].visible[:60, :80]
    whole = np.full((60, 80, 2), 255, np.uint8)
    left = whole.copy()
    left[:, 40:] = 0
    with Fuser.load(bundle) as fuser:
        for controls in (Controls(2), Controls(3)):  # a loop that takes a map, and step by step
            plain, mapped = fuser(infrared, visible, controls), fuser(infrared, visible, controls, strength_map=whole)
            assert np.abs(plain.picture.astype(int) - mapped.picture).max() <= 1
            half = fuser(infrared, visible, controls, strength_map=left)
            assert np.array_equal(half.visible[:, 40:], visible[:, 40:])
            assert np.abs(half.visible[:, :40].astype(int) - plain.visible[:, :40]).max() <= 1
            assert not np.array_equal(half.visible, plain.visible)
        with pytest.raises(OptionError, match=r"strength_map is uint8 \(60, 80\), needed uint8 \(60, 80, 2\)"):
            fuser(infrared, visible, Controls(2), strength_map=whole[:, :, 0])


def test_both_lanes_write_fixed_sizes_that_agree(lanes: Path) -> None:
    manifest = Bundle.open(lanes).manifest
    padded = {"unet_step": "52x92", "fusion": "52x92", "fused_loop-1steps": "50x90"}
    assert set(manifest.graphs) == {
        *padded,
        *(f"{role}{lane}-{size}" for role, size in padded.items() for lane in ("", "-opset20")),
    }
    for opset in (17, 20):
        checks = [check for check in manifest.verification.checks if check.opset == opset and check.size == (50, 90)]
        assert {check.form for check in checks} == {"step by step", "one graph"}
        assert all(check.verdict == "OK" for check in checks)


def test_a_graph_of_the_lineage_keeps_instance_normalization_out(tmp_path: Path) -> None:
    config = replace(
        preset("T"),
        fusion=replace(TINY.fusion, unshuffle=1),
        unet=replace(preset("T").unet, widths=(16, 16), encoder_blocks=(1,), decoder_blocks=(1,)),
    )
    written = [
        graph
        for graph in graphs_of(randomised(config), GraphSet(("fp32", "fp16"), sizes=((32, 32),)))
        if graph.role == "unet_step" and (graph.precision == "fp32") == (graph.size is None)
    ]
    assert len(written) == 2
    for graph in written:
        write_graph(graph, config.size_multiple, tmp_path / graph.file)
        assert "InstanceNormalization" not in node_counts(onnx.load(tmp_path / graph.file))


def test_the_shipped_weights_are_near_fp32_where_openvino_works_in_bf16(tmp_path: Path) -> None:
    """Near black, where BF16 tells x_in's values not apart: see cled_edge/network/unet.py."""
    openvino = pytest.importorskip("openvino", reason="needs openvino: pip install 'cled-edge[openvino]'")
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a CPU with bfloat16")
    shipped, _ = load_checkpoint(Path(__file__).parents[2] / "training" / "weights" / "nano.safetensors")
    graph = next(graph for graph in graphs_of(shipped, GraphSet()) if graph.role == "unet_step")
    write_graph(graph, shipped.config.size_multiple, tmp_path / graph.file)
    rng = np.random.default_rng(0)
    x_in = (rng.integers(0, 6, (2, 3, 96, 128)) / 127.5 - 1).astype(np.float32)
    table = shipped.sampler.schedule.step_table(1)
    inputs = {
        "x_t": x_in * np.float32(table.start_input),
        "x_in": x_in,
        "t": np.array([table.time[0]], np.float32),
        "coef": np.array(table.coef[0], np.float32),
    }
    exact, rough = (
        core.compile_model(tmp_path / graph.file, "CPU", {"INFERENCE_PRECISION_HINT": kind})(inputs)["residual"]
        for kind in ("f32", "bf16")
    )
    assert judge(rough, exact)[1] >= 45


def test_an_untrained_preset_has_no_weight_that_is_zero() -> None:
    made, again = untrained("nano", seed=1), untrained("nano", seed=1)
    assert all(parameter.any() for parameter in made.parameters())
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    with pytest.raises(OptionError, match="preset 'pico' is unknown"):
        untrained("pico", seed=0)


def test_another_network_fails_the_verification_and_leaves_a_report(bundle: Path, pairs, tmp_path: Path) -> None:
    other = randomised(TINY)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05)
    report = tmp_path / "report.json"
    with pytest.raises(ParityError, match=r"TOLERANCE: .* dB from eager, needed 60; \d+ of \d+ checks failed"):
        verify_bundle(bundle, other, pairs, "rendered", GraphSet(steps=(2,)), report)
    verdicts = [check["verdict"] for check in json.loads(report.read_text())]
    assert set(verdicts) == {"TOLERANCE", "OK"}  # what stays in the bundle was written of the network that it holds
    assert verdicts.count("TOLERANCE") >= 2


def test_nothing_but_a_report_is_written_when_verification_fails(model, pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(to_onnx.verify.__globals__["NEEDED_DB"], "fp32", 500.0)
    with pytest.raises(ParityError, match="no bundle was written"):
        export_bundle(model, {}, tmp_path / "tiny", pairs[:1], "rendered", GraphSet())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.verification.json"]


def test_int8_of_one_size_is_written_without_the_fp32_it_is_made_of(model, pairs, tmp_path: Path, monkeypatch) -> None:
    """Which convolutions bear INT8 is measured in `bundle`; here all are taken to."""
    monkeypatch.setattr(
        to_onnx,
        "measured_scales",
        lambda opened, some: {conv: most / 127 for conv, most in int8._Loop(opened, some).largest.items()},
    )
    export_bundle(
        model, {}, tmp_path / "tiny", pairs[:1], "rendered", GraphSet(("int8",), sizes=((64, 96),), steps=(2,))
    )
    graphs = Bundle.open(tmp_path / "tiny").manifest.graphs
    sized = {name for name, spec in graphs.items() if spec.size == (64, 96)}
    assert sized == {"unet_step-int8-64x96", "fusion-int8-64x96", "fused_loop-int8-64x96"}
    assert {path.name for path in (tmp_path / "tiny").glob("*.onnx")} == {spec.file for spec in graphs.values()}
    checked = Bundle.open(tmp_path / "tiny").manifest.verification.checks
    assert {"step by step", "one graph"} == {c.form for c in checked if (c.precision, c.size) == ("int8", (64, 96))}


def test_a_bundle_that_misses_what_it_holds_itself_to_is_not_written(model, pairs, tmp_path: Path, monkeypatch) -> None:
    def other(*arguments: object) -> Iterator[golden.Case]:
        for case in golden.golden_cases(*arguments):
            yield replace(case, expected={name: values * 0 for name, values in case.expected.items()})

    monkeypatch.setattr(to_onnx, "golden_cases", other)
    with pytest.raises(ParityError, match="no bundle was written"):
        export_bundle(model, {}, tmp_path / "tiny", pairs[:1], "rendered", GraphSet())
    assert not (tmp_path / "tiny").exists()


def test_the_doubt_of_a_model_is_a_graph_that_draws_as_the_network_does(pairs, tmp_path: Path) -> None:
    model = randomised(replace(TINY, doubt=DoubtConfig((8, 8, 8))))
    manifest = export_bundle(model, {}, tmp_path / "b", pairs[:1], "rendered", GraphSet(steps=(2,)))
    assert {name for name in manifest.graphs if "doubt" in name} == {"doubt"}, "in FP32 alone, for any size"
    assert manifest.size_multiple == 32
    listed = json.loads(OPERATORS.read_text())
    assert manifest.graphs["doubt"].nodes.keys() <= {*listed["8.4"], *listed["8.5"], *listed["8.6"]}
    bundle = Bundle.open(tmp_path / "b")
    samples = [case for case in read_golden(bundle) if case.controls.start_noise]
    assert {tuple(case.expected) for case in samples} == {("residual", "drawn", "uncertainty", "fused")}
    assert {check.verdict for check in verify(bundle, "onnxruntime", samples)} == {"OK"}
    trial = make_trial(bundle, "doubt", (64, 96))
    assert set(trial.expected) == {"drawn", "uncertainty"}
    infrared, visible = pairs[0].infrared[:70, :90], pairs[0].visible[:70, :90]
    with Fuser.load(bundle.path, uncertainty=True) as fuser:
        told = fuser(infrared, visible)
        sample = fuser(infrared, visible, Controls(start_noise=1.0, seed=4))
        fuser.uncertainty = False
        plain = fuser.step_by_step(infrared, visible, Controls())
    assert np.array_equal(told.visible, plain.visible), "no noise is the estimate itself, bit for bit"
    assert not np.array_equal(sample.visible, plain.visible)
    assert np.array_equal(told.uncertainty, sample.uncertainty)
    model.doubt.calibration += 1
    with torch.no_grad():
        case = golden.eager_case(model, pairs[0], Controls(start_noise=0.3))
    assert {check.tensor for check in verify(bundle, "onnxruntime", [case])} == {"uncertainty"}, (
        "another network is found"
    )


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
    broken = next(n for n in graph.graph.node if n.op_type == "Conv" and "downs.0" in n.name)
    bias = next(t for t in graph.graph.initializer if t.name == broken.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(bias.dims[0], 3e4, np.float16), bias.name))
    findings = bisect.compare(graph, inputs, choice)
    first = bisect.first_beyond(findings, 60.0)
    assert first is not None
    before = [f for f in findings[: findings.index(first)] if f.operator == "Conv"]
    assert all("decoder" not in f.node for f in before)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"opsets": (18,)}, "opset 18 is none of 17, 20"),
        ({"opsets": (20,)}, "give a size, or opset 17"),
        ({"sizes": ((16, 640),)}, "size 16x640 has a side under 32"),
        ({"precisions": ("int8",), "opsets": (17, 20), "sizes": ((64, 64),)}, "INT8 is written at opset 17 alone"),
    ],
)
def test_graphs_that_cannot_be_had(values, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        GraphSet(**values)


def test_the_loop_of_a_bundle_is_of_the_models_own_steps(model) -> None:
    assert default_set(model).steps == (2,)


def test_cases_cover_every_size_and_number_of_steps(model, pairs) -> None:
    graph_set = GraphSet(sizes=((56, 90),), steps=(1, 2), maps=STRENGTH_MAPS)
    cases = list(whole_cases(model, pairs, graph_set))
    assert {case.size for case in cases} >= {*SIZES, (56, 90)}
    assert {case.controls.steps for case in cases} >= {1, 2, 3}
    assert any(case.strength_map is not None for case in cases)


def test_half_weights_are_a_copy(model) -> None:
    half = at_precision(model, "fp16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {torch.float32, torch.float16}


def test_a_robot_without_an_exporter_gets_a_typed_loop_of_each_of_its_sizes(model, pairs, tmp_path: Path) -> None:
    graph_set = GraphSet(steps=(2, 1), maps=STRENGTH_MAPS, robot_sizes=((64, 96),))
    manifest = export_bundle(model, {}, tmp_path / "tiny", pairs[:1], "rendered", graph_set)
    loops = {name for name, spec in manifest.graphs.items() if spec.role == "fused_loop"}
    assert loops == {"fused_loop-1steps", "fused_loop", "fused_loop-map", "fused_loop-fp16-64x96"}
    typed = [check for check in manifest.verification.checks if check.precision == "fp16"]
    assert [(check.form, check.steps, check.size) for check in typed] == [("one graph", 2, (64, 96))]
