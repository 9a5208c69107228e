"""How well one detector finds the labelled people and cars in infrared, visible and fused images (COCO mAP).

    python -m benchmarks.detection --detector yolov10m.onnx --data DATA/pairs/msrs --update

The detector stays as it is, so that only the images differ; `benchmarks.detector` says which ONNX files it can be.
`--data` holds infrared/ and visible/ (or ir/ and vi/, as MSRS has them) and, unless `--labels` names another folder,
labels/ with one YOLO file an image: lines of class, centre x, centre y, width, height as shares of the image.
Images without such a file are left out. A classes.txt beside the labels names the classes, one a line; without it
they are COCO's. Images whose stem ends in D or N, as in MSRS, also count as day or night.
"""

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.baselines import BASELINES, copy_of_visible, luma_of, with_color
from benchmarks.coco import Coco, Labels, pycocotools, read_labels
from benchmarks.detector import SCORE_THRESHOLD, Detections, Detector
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from benchmarks.tables_paper import DETECTION
from cled_edge.camera.picture_folder import PictureFolder, find_pictures
from cled_edge.camera.source import camera_address
from cled_edge.contract import Controls
from cled_edge.errors import NoPairsError, OptionError, one_line_errors
from cled_edge.frame import FramePair
from cled_edge.fuser import Fuser
from cled_edge.image import Uint8, grey_from_any, rgb_from_any
from cled_edge.pair_facts import check_sizes
from cled_edge.pairing import PairedCameras, pair_cameras
from cled_edge.size import parse_size

_LOWEST_SCORE = 0.01  # if none is lower, the graph was exported with a threshold

Fuse = Callable[[NDArray[Any], NDArray[Any]], Uint8]


def shown(pair: FramePair, fuse: Fuse) -> dict[str, Uint8]:
    """Return the RGB images, (H, W, 3) uint8, that the detector is given of a pair, by source."""
    check_sizes(pair.infrared.image.shape, pair.visible.image.shape)
    infrared = grey_from_any(pair.infrared.image, pair.infrared.color_order)
    visible = rgb_from_any(pair.visible.image, pair.visible.color_order)
    luma = luma_of(visible)
    baselines = {
        name: with_color(mix(infrared, luma), visible) for name, mix in BASELINES.items() if mix is not copy_of_visible
    }
    fused = fuse(infrared, visible)
    return {"infrared": np.dstack([infrared] * 3), "visible": visible, **baselines, "fused": fused}


def detect_all(
    pairs: Iterable[FramePair],
    labels: Mapping[str, Labels],
    names: Mapping[int, str],
    detect: Callable[[Uint8], Detections],
    fuse: Fuse,
) -> Coco:
    """Return what is labelled and what is found in every source of every pair; all pairs have labels."""
    coco = Coco(names)
    for pair in pairs:
        images = shown(pair, fuse)
        height, width = pair.infrared.image.shape[:2]
        coco.add_image(pair.name, (height, width), labels[pair.name])
        for source, image in images.items():
            coco.add_found(source, detect(image))
    return coco


def check_found(coco: Coco, detector: Detector) -> None:
    """Raise OptionError if a class that these images have was found in none of any source."""
    missing = {entry["category_id"] for entry in coco.truth}
    missing -= {entry["category_id"] for entries in coco.found.values() for entry in entries}
    if missing:
        listed = ", ".join(f"{number} ({coco.names[number]})" for number in sorted(missing))
        raise OptionError(
            f"{detector.path} never found class {listed} in {len(coco.images)} images of {len(coco.found)} sources; "
            "it must count classes as the labels do; number the labels so"
        )


def labelled_pairs(data: Path, labels: Mapping[str, Labels]) -> tuple[PairedCameras, int]:
    """Return the pairs that have labels, and how many have none; NoPairsError if none has any."""
    folders = [(data / "infrared", data / "visible"), (data / "ir", data / "vi")]
    infrared, visible = next((pair for pair in folders if pair[0].is_dir()), folders[0])
    every = [find_pictures(str(folder)) or [] for folder in (infrared, visible)]
    some = [[path for path in paths if path.stem in labels] for paths in every]
    if not any(some):
        raise NoPairsError(
            f"none of {len(every[0])} images of {infrared} has the stem of one of {len(labels)} label files, such as "
            f"{next(iter(labels))}.txt; give the labels of these images by --labels"
        )
    cameras = [
        PictureFolder(camera_address(str(folder)), paths)
        for folder, paths in zip((infrared, visible), some, strict=True)
    ]
    return pair_cameras(*cameras), len(every[0]) - len(some[0])


def main(
    detector: Annotated[Path, typer.Option(metavar="MODEL.onnx", help="what looks for the labelled classes")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="holds infrared/ and visible/")],
    labels: Annotated[Path | None, typer.Option(metavar="DIR", help="YOLO labels", show_default="DATA/labels")] = None,
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="exported model", show_default="nano")] = None,
    backend: Annotated[str, typer.Option(help="what runs the bundle")] = "onnxruntime",
    balance: Annotated[float, typer.Option(help="0 visible ... 1 infrared")] = 0.5,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="the detector's input, if not fixed")] = None,
    threads: Annotated[int, typer.Option(min=0, help="0 is all cores")] = 0,
    out: Out = None,
    update: Update = False,
) -> None:
    """Detect, judge, and print the table."""
    with one_line_errors():
        pycocotools("coco")
        check_target(out, update)
        found_labels, names = read_labels(labels or data / "labels")
        pairs, unlabelled = labelled_pairs(data, found_labels)
        model = Detector(detector, parse_size(size, "--size") if size else None, threads)
        controls = Controls(balance=balance)
        with Fuser.load(bundle, backend=backend, threads=threads) as fuser:
            coco = detect_all(
                track(pairs, "detecting", total=pairs.announced[0] if pairs.announced else None, transient=True),
                found_labels,
                names,
                lambda image: model(image, names),
                lambda infrared, visible: fuser(infrared, visible, controls).picture,
            )
            opened, used = fuser.bundle, fuser.backend.description
        check_found(coco, model)
        settings = {"backend": used, "balance": balance, **_described(model, coco), "unlabelled": unlabelled}
        rows = [coco.row(source) for source in coco.found]
        result = new_result("detection", f"{detector.stem}-{opened.manifest.name}", rows, [opened], settings)
        print("\n".join(DETECTION.lines(result)))
        save(result, out, update)


def _described(model: Detector, coco: Coco) -> Row:
    """Return what the detector is and what was judged; say so if its graph dropped the boxes of low scores."""
    lowest = min((entry["score"] for entries in coco.found.values() for entry in entries), default=None)
    if lowest is not None and lowest > _LOWEST_SCORE:
        print(f"the graph gives no score below {lowest:.2f}: export it with a threshold of 0.001, or mAP is too low")
    return {
        "detector": model.path.name,
        "detector_sha256": model.sha256,
        "detector_size": list(model.size),
        "score_threshold": SCORE_THRESHOLD,
        "lowest_score": lowest,
        "judge": f"pycocotools {importlib.metadata.version('pycocotools')}",
        **coco.counts(),
    }


if __name__ == "__main__":
    typer.run(main)
