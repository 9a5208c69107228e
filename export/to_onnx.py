"""Write a bundle from a checkpoint: unet_step, fusion, fused_loop.onnx and manifest.json, verified before it appears.

    python -m export.to_onnx runs/nano/model.safetensors bundles/nano --pairs ../shared/data/pairs/msrs

The whole loop then runs in ONNX Runtime and in eager PyTorch on real pairs (or, without --pairs, on a rendered
scene); under 60 dB PSNR no bundle is written.
"""

import hashlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cled_edge import __version__
from cled_edge.errors import OutputError, one_line_errors
from cled_edge.manifest import (
    MANIFEST_NAME,
    FileSpec,
    Manifest,
    PreprocessingSpec,
    ScheduleSpec,
    VerificationSpec,
)
from cled_edge.network.checkpoint import load_checkpoint
from cled_edge.network.sampler import CledFusion
from export.graphs import Graph, graphs_of, write_graph
from export.parity import MIN_PSNR_DB, Pair, read_pairs, synthetic_pairs, verify_bundle

log = logging.getLogger("export")
_UNVERIFIED = VerificationSpec(min_psnr_db=0, pairs=0, sizes=(), inputs="none yet")


def export_bundle(model: CledFusion, training: dict[str, Any], out: Path, pairs: list[Pair], inputs: str) -> Manifest:
    """Write and verify a bundle in `out`, replacing a bundle there only after the new one has passed.

    ParityError if any output is under 60 dB of eager; OutputError if `out` is something else than a bundle.
    """
    if out.exists() and not (out / MANIFEST_NAME).exists():
        raise OutputError(f"{out} exists and is no bundle; choose another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        graphs = graphs_of(model)
        for graph in graphs:
            log.info("tracing %s", graph.name)
            write_graph(graph, model.config.size_multiple, folder / graph.file)
        _write_manifest(folder, model, graphs, training, _UNVERIFIED)
        log.info("verifying on %d pairs (%s)", len(pairs), inputs)
        verification = verify_bundle(folder, model, pairs, inputs)
        manifest = _write_manifest(folder, model, graphs, training, verification)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return manifest


def _write_manifest(
    folder: Path,
    model: CledFusion,
    graphs: tuple[Graph, ...],
    training: dict[str, Any],
    verification: VerificationSpec,
) -> Manifest:
    contents = {graph.file: (folder / graph.file).read_bytes() for graph in graphs}
    manifest = Manifest(
        schema_version=1,
        name=model.config.name,
        created_by=f"cled-edge {__version__}",
        size_multiple=model.config.size_multiple,
        graphs={graph.name: graph.spec() for graph in graphs},
        schedule=ScheduleSpec.from_schedule(model.sampler.schedule, model.config.default_steps),
        preprocessing=PreprocessingSpec(),
        files={
            name: FileSpec(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in contents.items()
        },
        training=training,
        verification=verification,
    )
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def main(
    checkpoint: Annotated[Path, typer.Argument(help="model.safetensors of a training run")],
    bundle_dir: Annotated[Path, typer.Argument(help="folder to write; a bundle there is replaced")],
    pairs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="real pairs to verify on: DIR/{infrared,visible}")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="number of pairs to verify on")] = 9,
) -> None:
    """Export CHECKPOINT as a verified bundle."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("torch").setLevel(logging.ERROR)
    model, training = load_checkpoint(checkpoint)
    chosen = read_pairs(pairs, count) if pairs else synthetic_pairs(count)
    inputs = f"real pairs of {pairs.name}" if pairs else "rendered night street"
    manifest = export_bundle(model, training, bundle_dir, chosen, inputs)
    worst = manifest.verification.min_psnr_db
    log.info("wrote %s; worst output is %.1f dB from eager (needed %.0f)", bundle_dir, worst, MIN_PSNR_DB)


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
