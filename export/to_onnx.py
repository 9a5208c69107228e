r"""Write a bundle from a checkpoint: graphs, golden pairs and manifest.json, verified before it appears.

    python -m export.to_onnx runs/nano/model.safetensors bundles/nano --pairs DATA/pairs/msrs
    python -m export.to_onnx runs/nano/model.safetensors bundles/jetson --precision fp32 --precision fp16 \\
        --size 480x640 --opset 17 --opset 20 --unrolled 1 --unrolled 2

The whole loop then runs in ONNX Runtime and in eager PyTorch, on real pairs (or, without --pairs, on a rendered scene)
and on noise, in every variant and at every size. Under 60 dB PSNR in FP32, 50 in FP16 or 40 in INT8 no bundle is
written, only BUNDLE_DIR.verification.json, which says what was found.
"""

import hashlib
import logging
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import onnx
import typer

from cled_edge import __version__
from cled_edge.bundle.manifest import (
    GOLDEN_NAME,
    MANIFEST_NAME,
    REFERENCE_OPSET,
    SCHEMA_VERSION,
    CheckSpec,
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
from cled_edge.contract import STRENGTH_MAPS, WARM_MAPS
from cled_edge.errors import CheckpointError, OptionError, OutputError, ParityError, one_line_errors
from cled_edge.files import make_folder, write_whole
from cled_edge.json_text import json_of, shown
from cled_edge.network.checkpoint import CALIBRATION, load_checkpoint
from cled_edge.network.presets import ModelConfig
from cled_edge.network.sampler import CledFusion
from cled_edge.size import parse_size
from cled_edge.verify import read_golden, verify, write_golden
from export.golden import ImagePair, golden_cases, read_pairs, synthetic_pairs, whole_cases
from export.graphs import GraphSet, graphs_of, manifest_name, require_warm
from export.int8 import measured_scales, quantised
from export.tracing import node_counts, write_graph

log = logging.getLogger("export")


def export_bundle(
    model: CledFusion,
    training: dict[str, Any],
    out: Path,
    pairs: list[ImagePair],
    inputs: str,
    graph_set: GraphSet | None = None,
    name: str | None = None,
) -> Manifest:
    """Write and verify a bundle in `out`, replacing a bundle there only after the new one has passed.

    graph_set: None is FP32 at opset 17 for any size, with the loop of the default number of steps. inputs: what the
    pairs are, for the manifest. name: None is that of the preset.
    ParityError if any output is too far from eager; OutputError if `out` is something else than a bundle.
    """
    graph_set, name = graph_set or default_set(model), name or model.config.name
    if out.is_symlink() or (out.exists() and not (out / MANIFEST_NAME).exists()):
        raise OutputError(f"{out} exists and is no bundle; choose another folder, or remove it")
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        draft = _Draft(Path(scratch) / out.name, name, model, training)
        draft.write_graphs(graph_set, pairs)
        if "int8" in graph_set.precisions:
            draft.write_int8(pairs, graph_set)
        report = out.with_name(f"{out.name}.verification.json")
        manifest = draft.write_manifest(verify_bundle(draft.folder, model, pairs, inputs, graph_set, report))
        if out.exists():
            shutil.rmtree(out)
        draft.folder.rename(out)
    return manifest


def default_set(model: CledFusion) -> GraphSet:
    """Return FP32 at opset 17 for any size, with the loop of the default number of steps."""
    return GraphSet(steps=(model.config.default_steps,))


class _Draft:
    """A bundle that is being written. Its manifest says that it is not verified until it is."""

    def __init__(self, folder: Path, name: str, model: CledFusion, training: dict[str, Any]) -> None:
        self.folder, self.name, self.model, self.training = folder, name, model, training
        self.graphs: dict[str, GraphSpec] = {}
        folder.mkdir()

    def write_graphs(self, graph_set: GraphSet, pairs: list[ImagePair]) -> None:
        """Write every graph but those in INT8, and the golden pairs."""
        traced = graph_set
        if "int8" in graph_set.precisions:  # INT8 is made of FP32, at each size
            traced = replace(graph_set, precisions=tuple(dict.fromkeys(("fp32", *graph_set.precisions))))
        for graph in graphs_of(self.model, traced):
            log.info("tracing %s", graph.name)
            self.graphs[graph.name] = write_graph(graph, self.model.config.size_multiple, self.folder / graph.file)
        write_whole(self.folder / GOLDEN_NAME, write_golden(golden_cases(self.model, pairs, graph_set)))
        self.write_manifest(_UNVERIFIED)

    def write_int8(self, pairs: list[ImagePair], graph_set: GraphSet) -> None:
        """Write the INT8 form of each FP32 graph of the reference opset; ParityError if the loop cannot bear any.

        FP32 graphs of one size go again unless they were asked for.
        """
        bundle = Bundle.open(self.folder, trusted=True)
        log.info("measuring what INT8 does to the loop, a convolution at a time")
        scales = measured_scales(bundle, pairs)
        default_steps = bundle.manifest.schedule.default_steps
        for name, spec in bundle.manifest.graphs.items():
            is_plain = spec.precision == "fp32" and spec.opset == REFERENCE_OPSET
            if not is_plain or spec.maps == WARM_MAPS or spec.role == "doubt":
                continue
            new = manifest_name(spec.role, "int8", spec.opset, spec.size, spec.steps, spec.maps, default_steps)
            graph = quantised(onnx.load_from_string(bundle.graph(name)), scales)
            write_whole(self.folder / f"{new}.onnx", graph.SerializeToString())
            update = {"file": f"{new}.onnx", "precision": "int8", "nodes": node_counts(graph)}
            self.graphs[new] = spec.model_copy(update=update)
            if spec.size is not None and "fp32" not in graph_set.precisions:
                (self.folder / self.graphs.pop(name).file).unlink()
        self.write_manifest(_UNVERIFIED)

    def write_manifest(self, verification: VerificationSpec) -> Manifest:
        """Write `manifest.json` for the files that there are."""
        names = (*(graph.file for graph in self.graphs.values()), GOLDEN_NAME)
        contents = {name: (self.folder / name).read_bytes() for name in names}
        config = self.model.config
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=self.name,
            created_by=f"cled-edge {__version__}",
            size_multiple=config.size_multiple,
            graphs=self.graphs,
            schedule=ScheduleSpec.from_schedule(self.model.sampler.schedule, config.default_steps),
            preprocessing=PreprocessingSpec(),
            kinds=told_kinds(config, self.training),
            tints_grey=config.tints_grey,
            files={
                name: FileSpec(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
                for name, content in contents.items()
            },
            training=self.training,
            verification=verification,
        )
        write_whole(self.folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
        return manifest


def told_kinds(config: ModelConfig, training: dict[str, Any]) -> tuple[KindSpec, ...]:
    """Return what the graphs tell of kinds; the lineage's tell none.

    training: the checkpoint's record, in which `training.fit_kinds` left the calibration of each modality's kinds. A
    checkpoint without it tells every kind in both modalities, uncalibrated. CheckpointError for one that is malformed.
    """
    if config.unet.form == "lineage":
        return ()
    plain = dict.fromkeys(config.kinds, (1.0, 0.0))
    fitted = training.get(CALIBRATION, {"infrared": plain, "visible": plain})
    try:
        known = {modality: dict(kinds) for modality, kinds in fitted.items()}
        return tuple(KindSpec(name=n, **{key: kinds.get(n) for key, kinds in known.items()}) for n in config.kinds)
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint's record has a {CALIBRATION} that is none ({shown(error, 200)}); run "
            "python -m training.fit_kinds on it again"
        ) from error


_UNVERIFIED = VerificationSpec(inputs="none yet", backend="none yet", checks=())


def verify_bundle(
    folder: Path, model: CledFusion, pairs: list[ImagePair], inputs: str, graph_set: GraphSet, report: Path
) -> VerificationSpec:
    """Run every variant on whole images; ParityError, and a report, unless each is finite and close enough."""
    bundle = Bundle.open(folder, trusted=True)
    log.info("verifying on %d pairs (%s) and noise", len(pairs), inputs)
    # What stays in the bundle is to pass too: anybody may repeat it.
    cases = [*whole_cases(model, pairs, graph_set), *read_golden(bundle)]
    checks: list[CheckSpec] = []
    forms = [(precision, opset) for precision, opset, _ in graph_set.variants()]
    forms += [("fp16", REFERENCE_OPSET)] * bool(graph_set.lone_sizes())
    for precision, opset in dict.fromkeys(forms):
        found = verify(bundle, f"onnxruntime:{precision}", cases, opset, any_size=False)
        if not found:
            raise ParityError(f"no case ran in {precision} at opset {opset}; no bundle was written; give other sizes")
        worst = min(check.psnr_db for check in found)
        log.info("  %s, opset %d: %d checks, worst %.1f dB", precision, opset, len(found), worst)
        checks += found
    failed = [check for check in checks if check.verdict != "OK"]
    if failed:
        write_whole(report, json_of([check.model_dump() for check in checks]))
        first = failed[0]
        raise ParityError(
            f"{first.verdict}: {first.tensor}, {first.form}, {first.steps} steps, {first.precision}, opset "
            f"{first.opset}, {first.size[0]}x{first.size[1]} is {first.psnr_db} dB from eager, needed "
            f"{first.needed_db:g}; {len(failed)} of {len(checks)} checks failed, see {report}; no bundle was written; "
            "python -m export.bisect finds the node"
        )
    report.unlink(missing_ok=True)
    return VerificationSpec(inputs=f"{inputs}, and noise", backend=_reference_backend(), checks=tuple(checks))


def _reference_backend() -> str:
    import onnxruntime  # noqa: PLC0415

    return f"onnxruntime {onnxruntime.__version__} cpu"


def read_precision(text: str) -> GraphPrecision:
    """Return the precision of that name, or raise an OptionError."""
    known: tuple[GraphPrecision, ...] = get_args(GraphPrecision)
    for precision in known:
        if text == precision:
            return precision
    raise OptionError(f"precision {text!r} is unknown; known: {', '.join(known)}")


Pairs = Annotated[Path | None, typer.Option(metavar="DIR", help="real pairs to verify on: DIR/{infrared,visible}")]
Name = Annotated[str | None, typer.Option(help="of the bundle in its manifest", show_default="the preset's")]
Count = Annotated[int, typer.Option(min=1, help="number of pairs to verify on")]
Precisions = Annotated[
    list[str] | None, typer.Option(help="of the graphs: fp32, fp16, int8; repeat for several", show_default="fp32")
]
Opsets = Annotated[
    list[int] | None,
    typer.Option(help="17 for TensorRT 8.6, 20 by the dynamo exporter; repeat for both", show_default="17"),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(metavar="HEIGHTxWIDTH", help="also graphs of this one size, a camera mode; repeatable"),
]
Unrolled = Annotated[
    list[int] | None,
    typer.Option(min=1, max=10, help="steps of a loop in one graph; repeatable", show_default="the model's own"),
]
Map = Annotated[
    bool,
    typer.Option("--strength-map", help="also a loop that takes a strength for each pixel, of the first --unrolled"),
]
Warm = Annotated[
    bool, typer.Option("--warm", help="also a loop of one step that starts from the last frame's estimate, FP32")
]
RobotSizes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEIGHTxWIDTH",
        help="also an FP16 loop of this size, of the first --unrolled, for TensorRT where nobody exports; repeatable",
    ),
]


def main(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of a training run")],
    bundle_dir: Annotated[Path, typer.Argument(help="folder to write; a bundle there is replaced")],
    pairs: Pairs = None,
    name: Name = None,
    count: Count = 9,
    precision: Precisions = None,
    opset: Opsets = None,
    size: Sizes = None,
    unrolled: Unrolled = None,
    strength_map: Map = False,
    robot_size: RobotSizes = None,
    warm: Warm = False,
) -> None:
    """Export CHECKPOINT as a verified bundle."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise OptionError(
            f"--name is {name!r}, needed letters, digits, dots, dashes and underscores: results are named by it"
        )
    model, training = load_checkpoint(checkpoint)
    if warm:
        require_warm(model.config)
    usual = default_set(model)
    graph_set = GraphSet(
        precisions=tuple(read_precision(text) for text in precision or usual.precisions),
        opsets=tuple(opset or usual.opsets),
        sizes=tuple(parse_size(text) for text in size or ()),
        steps=tuple(unrolled or usual.steps),
        maps=STRENGTH_MAPS if strength_map else (),
        robot_sizes=tuple(parse_size(text) for text in robot_size or ()),
        warm=warm,
    )
    chosen = read_pairs(pairs, count) if pairs else synthetic_pairs(count)
    inputs = f"real pairs of {pairs.name}" if pairs else "rendered night street"
    _report(export_bundle(model, training, bundle_dir, chosen, inputs, graph_set, name), bundle_dir)


def _report(manifest: Manifest, bundle_dir: Path) -> None:
    checks = manifest.verification.checks
    worst = min(checks, key=lambda check: check.psnr_db - check.needed_db)
    log.info(
        "wrote %s, %d graphs; of %d checks the closest is %.1f dB from eager (needed %.0f)",
        *(bundle_dir, len(manifest.graphs), len(checks), worst.psnr_db, worst.needed_db),
    )


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
