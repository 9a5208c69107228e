"""Labelled boxes and those that a detector found, and COCO's mean average precision of them, by pycocotools."""

import contextlib
import importlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detector import Detections, Float64
from benchmarks.result import Row
from cled_edge.errors import DataError, OptionError, SourceMissingError
from cled_edge.size import Size

COCO_NAMES = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck")
TIMES = {"D": "day", "N": "night"}  # by the last letter of a stem
CLASSES_FILE = "classes.txt"


@dataclass(frozen=True)
class Labels:
    """What is in one image: classes (n,), boxes (n, 4) x1 y1 x2 y2 as shares of its width and height, in 0 to 1."""

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
                "height as shares of the image; mend or remove it"
            )
        x, y, width, height = values[1:]
        classes.append(int(values[0]))
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return Labels(np.array(classes, np.int64), np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, 1))


@dataclass
class Coco:
    """Labelled images, and what was found in them, as COCO numbers them: from 1, since 0 is its word for none."""

    names: Mapping[int, str]
    images: list[dict[str, Any]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add_image(self, stem: str, size: Size, labels: Labels) -> None:
        """Begin the next image; of its labels only those of `names` count."""
        height, width = size
        self.images.append({"id": len(self.images) + 1, "file_name": stem, "height": height, "width": width})
        for number, box in zip(labels.classes, labels.boxes * (width, height, width, height), strict=True):
            if int(number) in self.names:
                self.truth.append(self._annotation(len(self.truth), int(number), box))

    def add_found(self, source: str, detections: Detections) -> None:
        """Add what a detector found in the last image as `source` shows it."""
        entries = self.found.setdefault(source, [])
        for number, box, score in zip(detections.classes, detections.boxes, detections.scores, strict=True):
            entries.append({**self._annotation(len(entries), int(number), box), "score": float(score)})

    def _annotation(self, before: int, number: int, box: Float64) -> dict[str, Any]:
        left, top, right, bottom = (float(side) for side in box)
        width, height = right - left, bottom - top
        place = {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
        return {"id": before + 1, "image_id": len(self.images), "category_id": number, **place}

    def row(self, source: str) -> Row:
        """Return mAP in 0 to 1 of a source: of all images, of each class, and of day and night where stems tell."""
        truth, found = (self._coco(entries) for entries in (self.truth, self.found.get(source, [])))
        everything, numbers = [image["id"] for image in self.images], list(self.names)
        at_50, over_all = _evaluated(truth, found, everything, numbers)
        row: Row = {"source": source, "map_50": at_50, "map_50_95": over_all}
        row |= {f"{name}_ap_50": _evaluated(truth, found, everything, [n])[0] for n, name in self.names.items()}
        for letter, time in TIMES.items():
            some = [image["id"] for image in self.images if image["file_name"].endswith(letter)]
            row[f"{time}_map_50"] = _evaluated(truth, found, some, numbers)[0]
        return row

    def counts(self) -> Row:
        """Return how many images and boxes were judged."""
        boxes = Counter(self.names[entry["category_id"]] for entry in self.truth)
        times = Counter(TIMES.get(image["file_name"][-1:], "") for image in self.images)
        of_times = {time: times[time] for time in TIMES.values()}
        return {"images": len(self.images), **of_times, **{f"{n}_boxes": boxes[n] for n in self.names.values()}}

    def _coco(self, entries: list[dict[str, Any]]) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = pycocotools("coco").COCO()
            categories = [{"id": number, "name": name} for number, name in self.names.items()]
            coco.dataset = {"info": {}, "images": self.images, "categories": categories, "annotations": entries}
            coco.createIndex()
        return coco


def _evaluated(truth: Any, found: Any, images: list[int], classes: list[int]) -> tuple[float | None, float | None]:
    """Return mAP at IoU 0.5 and over 0.5 to 0.95, in 0 to 1; None where there is no such box to find."""
    if not images:
        return None, None
    with contextlib.redirect_stdout(io.StringIO()):
        judge = pycocotools("cocoeval").COCOeval(truth, found, "bbox")
        judge.params.imgIds, judge.params.catIds = images, classes
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    over_all, at_50 = (float(value) for value in judge.stats[:2])
    return at_50 if at_50 >= 0 else None, over_all if over_all >= 0 else None


def pycocotools(module: str) -> Any:
    """Import a module of pycocotools; OptionError says how to install it."""
    try:
        return importlib.import_module(f"pycocotools.{module}")
    except ImportError as error:
        raise OptionError(
            f"mAP needs pycocotools ({error}); install it: pip install 'cled-edge[benchmarks]'"
        ) from error
