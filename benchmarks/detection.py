"""How well one detector finds the labelled people and cars in infrared, visible and fused pictures (COCO mAP).

    python -m benchmarks.detection --detector yolov9c.onnx --data ../shared/data/pairs/msrs

writes benchmarks/results/detection-<detector>-<bundle>-<machine>.json.

The detector stays as it is, so that only the pictures differ; `benchmarks.detector` says which ONNX files it can be.
`--data` holds infrared/ and visible/ (or ir/ and vi/, as MSRS has them) and, unless `--labels` names another folder,
labels/ with one YOLO file a picture: lines of class, centre x, centre y, width, height as shares of the picture.
Pictures without such a file are left out. A classes.txt beside the labels names the classes, one a line; without it
they are COCO's. Pictures whose stem ends in D or N, as in MSRS, also count as day or night.

The precision over recall is pycocotools' own, at 101 points, for boxes of all sizes.
"""

import contextlib
import importlib
import importlib.metadata
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.detector import NMS_IOU, SCORE_THRESHOLD, Detections, Detector, Float64, Size
from benchmarks.sections import detection_rows
from benchmarks.timing import RESULTS, write_result
from benchmarks.trivial import TRIVIAL, copy_of_visible, luma_of, with_color
from cled_edge.camera.picture_folder import PictureFolder, find_pictures
from cled_edge.camera.source import camera_address
from cled_edge.contract import Controls
from cled_edge.errors import DataError, NoPairsError, OptionError, SourceMissingError, one_line_errors
from cled_edge.frame import FramePair
from cled_edge.fuser import Fuser, check_sizes
from cled_edge.image import Uint8, grey_from_any, rgb_from_any
from cled_edge.pairing import PairedCameras, pair_cameras

COCO_NAMES = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck")
TIMES = {"D": "day", "N": "night"}  # by the last letter of a stem
CLASSES_FILE = "classes.txt"
_NMS_IN_GRAPH_LOWEST = 0.01  # lowest score above which a graph is taken to have dropped boxes itself

Fuse = Callable[[NDArray[Any], NDArray[Any]], Uint8]


@dataclass(frozen=True)
class Labels:
    """What is in one picture: classes (n,), boxes (n, 4) x1 y1 x2 y2 as shares of its width and height, in 0 to 1."""

    classes: NDArray[np.int64]
    boxes: Float64


def read_labels(folder: Path) -> tuple[dict[str, Labels], dict[int, str]]:
    """Return the labels by stem, and the name of each class that occurs.

    SourceMissingError without the folder or a file in it, DataError for a line that is no label.
    """
    files = sorted(path for path in folder.glob("*.txt") if path.name != CLASSES_FILE)
    if not files:
        raise SourceMissingError(f"{folder} holds no .txt labels; give the folder of YOLO labels by --labels")
    labels = {path.stem: _read_boxes(path) for path in files}
    names: Sequence[str] = COCO_NAMES
    if (folder / CLASSES_FILE).is_file():
        names = (folder / CLASSES_FILE).read_text().split("\n")
    numbers = sorted({int(number) for each in labels.values() for number in each.classes})
    return labels, {n: names[n].strip() if n < len(names) and names[n].strip() else f"class {n}" for n in numbers}


def _read_boxes(path: Path) -> Labels:
    classes, boxes = [], []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
            right = len(values) == 5 and values[0] == int(values[0]) >= 0 and all(0 <= v <= 1 for v in values[1:])
        except (ValueError, OverflowError):
            right = False
        if not right:
            raise DataError(
                f"{path}, line {number} is {line.strip()[:60]!r}; needed a class number and centre x, centre y, width, "
                "height as shares of the picture; mend or remove it"
            )
        x, y, width, height = values[1:]
        classes.append(int(values[0]))
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return Labels(np.array(classes, np.int64), np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, 1))


@dataclass
class Coco:
    """Labelled pictures, and what was found in them, as COCO numbers them: from 1, since 0 is its word for none."""

    names: Mapping[int, str]
    pictures: list[dict[str, Any]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add_picture(self, stem: str, size: Size, labels: Labels) -> None:
        """Begin the next picture; of its labels only those of `names` count."""
        height, width = size
        self.pictures.append({"id": len(self.pictures) + 1, "file_name": stem, "height": height, "width": width})
        for number, box in zip(labels.classes, labels.boxes * (width, height, width, height), strict=True):
            if int(number) in self.names:
                self.truth.append(self._annotation(len(self.truth), int(number), box))

    def add_found(self, source: str, detections: Detections) -> None:
        """Add what a detector found in the last picture as `source` shows it."""
        entries = self.found.setdefault(source, [])
        for number, box, score in zip(detections.classes, detections.boxes, detections.scores, strict=True):
            entries.append({**self._annotation(len(entries), int(number), box), "score": float(score)})

    def _annotation(self, before: int, number: int, box: Float64) -> dict[str, Any]:
        left, top, right, bottom = (float(side) for side in box)
        width, height = right - left, bottom - top
        place = {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
        return {"id": before + 1, "image_id": len(self.pictures), "category_id": number, **place}

    def mean_precisions(self, source: str) -> dict[str, Any]:
        """Return mAP of all pictures, of each class, and of day and night where stems tell."""
        truth, found = (self._coco(entries) for entries in (self.truth, self.found.get(source, [])))
        everything, numbers = [picture["id"] for picture in self.pictures], list(self.names)
        result: dict[str, Any] = {"source": source, "all": _evaluated(truth, found, everything, numbers)}
        result["classes"] = {
            name: _evaluated(truth, found, everything, [number]) for number, name in self.names.items()
        }
        for letter, time in TIMES.items():
            some = [picture["id"] for picture in self.pictures if picture["file_name"].endswith(letter)]
            result[time] = _evaluated(truth, found, some, numbers)
        return result

    def counts(self) -> dict[str, Any]:
        """Return how many pictures and boxes were judged."""
        boxes = Counter(self.names[entry["category_id"]] for entry in self.truth)
        times = Counter(TIMES.get(picture["file_name"][-1:], "") for picture in self.pictures)
        day_night = {time: times[time] for time in TIMES.values()}
        return {"pictures": len(self.pictures), **day_night, "boxes": {n: boxes[n] for n in self.names.values()}}

    def _coco(self, entries: list[dict[str, Any]]) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = _pycocotools("coco").COCO()
            categories = [{"id": number, "name": name} for number, name in self.names.items()]
            coco.dataset = {"info": {}, "images": self.pictures, "categories": categories, "annotations": entries}
            coco.createIndex()
        return coco


def _evaluated(truth: Any, found: Any, pictures: list[int], classes: list[int]) -> dict[str, float | None]:
    """Return mAP at IoU 0.5 and over 0.5 to 0.95, in 0 to 1; None where there is no such box to find."""
    if not pictures:
        return {"map_50": None, "map_50_95": None}
    with contextlib.redirect_stdout(io.StringIO()):
        judge = _pycocotools("cocoeval").COCOeval(truth, found, "bbox")
        judge.params.imgIds, judge.params.catIds = pictures, classes
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    over_all, at_50 = (float(value) for value in judge.stats[:2])
    return {"map_50": at_50 if at_50 >= 0 else None, "map_50_95": over_all if over_all >= 0 else None}


def shown(pair: FramePair, fuse: Fuse) -> dict[str, Uint8]:
    """Return the RGB pictures, (H, W, 3) uint8, that the detector is given of a pair, by source."""
    check_sizes(pair.infrared.image.shape, pair.visible.image.shape)
    infrared = grey_from_any(pair.infrared.image, pair.infrared.color_order)
    visible = rgb_from_any(pair.visible.image, pair.visible.color_order)
    luma = luma_of(visible)
    trivial = {
        name: with_color(mix(infrared, luma), visible) for name, mix in TRIVIAL.items() if mix is not copy_of_visible
    }
    fused = fuse(infrared, visible)
    return {"infrared": np.dstack([infrared] * 3), "visible": visible, **trivial, "fused": fused}


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
        pictures = shown(pair, fuse)
        height, width = pair.infrared.image.shape[:2]
        coco.add_picture(pair.name, (height, width), labels[pair.name])
        for source, picture in pictures.items():
            coco.add_found(source, detect(picture))
    return coco


def class_map(text: str, names: Mapping[int, str], detector: Detector) -> dict[int, int]:
    """Return label class by detector class, of a list such as `0:0,2:2`; "" is equal numbers of all labelled classes.

    OptionError for another text, for a class that nothing is labelled with or that the detector does not have.
    """
    listed = ", ".join(f"{number} ({name})" for number, name in names.items())
    found = {number: number for number in names}
    if text:
        parts = [part.split(":") for part in text.split(",")]
        if not all(len(part) == 2 and all(number.strip().isdecimal() for number in part) for part in parts):
            raise OptionError(f"--classes is {text!r}; it must list detector:label class numbers, such as 0:0,2:2")
        found = {int(own): int(label) for own, label in parts}
    for own, label in found.items():
        if label not in names:
            raise OptionError(f"--classes has label class {label}, which no box has; labelled are {listed}")
        if detector.class_count is not None and own >= detector.class_count:
            raise OptionError(
                f"{detector.path} never finds class {own}, it knows {detector.class_count} (0 to "
                f"{detector.class_count - 1}); labelled are {listed}; map them by --classes DETECTOR:LABEL,..."
            )
    return found


def check_found(coco: Coco, detector: Detector) -> None:
    """Raise OptionError if a class that these pictures have was found in none of any source."""
    missing = {entry["category_id"] for entry in coco.truth}
    missing -= {entry["category_id"] for entries in coco.found.values() for entry in entries}
    if missing:
        listed = ", ".join(f"{number} ({coco.names[number]})" for number in sorted(missing))
        raise OptionError(
            f"{detector.path} never found class {listed} in {len(coco.pictures)} pictures of "
            f"{len(coco.found)} sources, at no score above {SCORE_THRESHOLD}; if it counts classes in another way, map "
            "them by --classes DETECTOR:LABEL,..., which also leaves out what it does not list"
        )


def find_pairs(data: Path, labels: Mapping[str, Labels]) -> tuple[PairedCameras, int]:
    """Return the pairs that have labels, and how many have none; NoPairsError if none has any."""
    folders = [(data / "infrared", data / "visible"), (data / "ir", data / "vi")]
    infrared, visible = next((pair for pair in folders if pair[0].is_dir()), folders[0])
    every = [find_pictures(str(folder)) or [] for folder in (infrared, visible)]
    some = [[path for path in paths if path.stem in labels] for paths in every]
    if not any(some):
        raise NoPairsError(
            f"none of {len(every[0])} pictures of {infrared} has the stem of one of {len(labels)} label files, such as "
            f"{next(iter(labels))}.txt; give the labels of these pictures by --labels"
        )
    cameras = [
        PictureFolder(camera_address(str(folder)), paths)
        for folder, paths in zip((infrared, visible), some, strict=True)
    ]
    return pair_cameras(*cameras), len(every[0]) - len(some[0])


def _pycocotools(module: str) -> Any:
    try:
        return importlib.import_module(f"pycocotools.{module}")
    except ImportError as error:
        raise OptionError(
            f"mAP needs pycocotools ({error}); install it: pip install 'cled-edge[benchmarks]'"
        ) from error


def _size(text: str) -> Size | None:
    sides = text.split("x")
    if not text:
        return None
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise OptionError(f"--size is {text!r}; it must be a side such as 640, or height x width such as 480x640")
    return int(sides[0]), int(sides[-1])


def main(
    detector: Annotated[Path, typer.Option(metavar="MODEL.onnx", help="what looks for the labelled classes")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="holds infrared/ and visible/")],
    labels: Annotated[Path | None, typer.Option(metavar="DIR", help="YOLO labels [default: DATA/labels]")] = None,
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="exported model [default: nano]")] = None,
    backend: Annotated[str, typer.Option(help="what runs the bundle")] = "onnxruntime",
    balance: Annotated[float, typer.Option(help="0 visible ... 1 infrared")] = 0.5,
    classes: Annotated[str, typer.Option(help="DETECTOR:LABEL,... [default: equal numbers]")] = "",
    layout: Annotated[str | None, typer.Option(help="v5, v8, v10, v7-nms [default: by shape]")] = None,
    output: Annotated[str | None, typer.Option(help="output of the detector, if several fit")] = None,
    size: Annotated[str, typer.Option(help="the detector's input, if not fixed: 640 or 480x640")] = "",
    threads: Annotated[int, typer.Option(min=0, help="0 is all cores")] = 0,
    results: Annotated[Path, typer.Option(metavar="DIR", help="where the JSON goes")] = RESULTS,
) -> None:
    """Detect, judge, and write the JSON."""
    with one_line_errors():
        _pycocotools("coco")
        found_labels, names = read_labels(labels or data / "labels")
        pairs, unlabelled = find_pairs(data, found_labels)
        model = Detector(detector, layout, output, _size(size), threads)
        mapped = class_map(classes, names, model)
        judged = {number: name for number, name in names.items() if number in mapped.values()}
        controls = Controls(balance=balance)
        with Fuser.load(bundle, backend=backend, threads=threads) as fuser:
            coco = detect_all(
                track(pairs, "detecting", total=pairs.announced[0] if pairs.announced else None),
                found_labels,
                judged,
                lambda picture: model(picture, mapped),
                lambda infrared, visible: fuser(infrared, visible, controls).picture,
            )
            manifest, used = fuser.bundle.manifest, fuser.backend.description
        check_found(coco, model)
        content = {
            "bundle": manifest.name,
            "files": manifest.hashes,
            "backend": used,
            "balance": balance,
            "detector": _described(model, mapped, coco),
            "judge": f"pycocotools {importlib.metadata.version('pycocotools')}",
            "counts": {**coco.counts(), **_left_out(coco, found_labels, names, judged), "unlabelled": unlabelled},
            "rows": [coco.mean_precisions(source) for source in coco.found],
        }
        write_result(f"detection-{detector.stem}-{manifest.name}", content, results)
    _print(content)


def _described(model: Detector, mapped: Mapping[int, int], coco: Coco) -> dict[str, Any]:
    scores = [entry["score"] for entries in coco.found.values() for entry in entries]
    return {
        "file": model.path.name,
        "sha256": model.sha256,
        "size": model.size,
        "output": model.output,
        "layout": model.layout,
        "classes": {str(own): label for own, label in mapped.items()},
        "score_threshold": SCORE_THRESHOLD,
        "nms_iou": NMS_IOU if model.suppresses else None,
        "lowest_score": min(scores, default=None),
    }


def _left_out(
    coco: Coco, labels: Mapping[str, Labels], names: Mapping[int, str], judged: Mapping[int, str]
) -> dict[str, Any]:
    stems = [picture["file_name"] for picture in coco.pictures]
    boxes = Counter(int(number) for stem in stems for number in labels[stem].classes)
    left_out = {name: boxes[number] for number, name in names.items() if number not in judged}
    return {"boxes_left_out": left_out, "labels_without_picture": len(labels) - len(stems)}


def _print(content: Mapping[str, Any]) -> None:
    console, counts = Console(), content["counts"]
    header, rows = detection_rows(content)
    table = Table(title=f"{content['detector']['file']} on {counts['pictures']} pictures, mAP in %")
    table.add_column(header[0], no_wrap=True)
    for name in header[1:]:
        table.add_column(name.replace("@", " @"), justify="right")  # a place to break the line
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    print(f"left out: {counts['unlabelled']} pictures without labels, boxes {counts['boxes_left_out'] or 0}")
    lowest = content["detector"]["lowest_score"]
    if content["detector"]["nms_iou"] is None and lowest is not None and lowest > _NMS_IN_GRAPH_LOWEST:
        print(f"the graph gives no score below {lowest:.2f}: export it with a threshold of 0.001, or mAP is too low")


if __name__ == "__main__":
    typer.run(main)
