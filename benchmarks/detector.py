"""An ONNX detector: a picture in, boxes in its pixels out, whatever layout its export gave them.

Layouts, of N boxes and C classes; coordinates are pixels of the network's input:

    v5      (1, N, 5+C)  cx cy w h objectness scores     YOLOv5, v7: three boxes a grid cell
    v8      (1, 4+C, N)  cx cy w h scores                YOLOv8, v9, v11: one box a grid cell
    v10     (1, N, 6)    x1 y1 x2 y2 score class         YOLOv10, and NMS inside the graph
    v7-nms  (N, 7)       picture x1 y1 x2 y2 class score YOLOv7 exported with --end2end --max-wh
"""

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.failures import one_line
from cled_edge.cpu import usable_cores
from cled_edge.errors import BackendError, OptionError, SourceMissingError
from cled_edge.image import Uint8

LAYOUTS = {"v5": "(1, N, 5+C)", "v8": "(1, 4+C, N)", "v10": "(1, N, 6)", "v7-nms": "(N, 7)"}
WITHOUT_NMS = ("v5", "v8")
# Of YOLOv9's own evaluation: a curve of precision over recall needs the boxes of low scores too.
SCORE_THRESHOLD = 0.001
NMS_IOU = 0.7
MOST_BOXES = 300  # that a picture keeps; COCO counts 100 of each class
_MOST_CANDIDATES = 30000  # that NMS looks at
_MOST_FINAL_ROWS = 1000  # of a graph that ends in NMS or top-k: exports have 100 to 300
_STRIDES = (4, 8, 16, 32, 64)
_GREY = 114  # around a letterboxed picture, as in YOLO's training
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Float64 = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Detections:
    """Boxes (N, 4) float64, x1 y1 x2 y2 in pixels; scores (N,) in 0 to 1; classes (N,), of the labels."""

    boxes: Float64
    scores: Float64
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Letterbox:
    """A picture scaled to fit into a network's input, its shape kept, centred on grey. Sizes are (height, width)."""

    picture: Size
    inner: Size
    outer: Size

    @classmethod
    def fit(cls, picture: Size, outer: Size) -> "Letterbox":
        """Return the largest that fits."""
        scale = min(outer[0] / picture[0], outer[1] / picture[1])
        return cls(picture, (max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))), outer)

    @property
    def corner(self) -> Size:
        """Top and left of the scaled picture in the input."""
        return (self.outer[0] - self.inner[0]) // 2, (self.outer[1] - self.inner[1]) // 2

    def apply(self, picture: Uint8) -> Uint8:
        """Return the network's input, (height, width, 3) uint8."""
        boxed = np.full((*self.outer, 3), _GREY, np.uint8)
        top, left = self.corner
        scaled = cv2.resize(picture, self.inner[::-1], interpolation=cv2.INTER_LINEAR)
        boxed[top : top + self.inner[0], left : left + self.inner[1]] = scaled
        return boxed

    def undo(self, boxes: Float64) -> Float64:
        """Return boxes of the input in pixels of the picture, cut off at its edges."""
        (top, left), (height, width) = self.corner, self.picture
        scale_y, scale_x = height / self.inner[0], width / self.inner[1]
        moved = (boxes - (left, top, left, top)) * (scale_x, scale_y, scale_x, scale_y)
        return np.clip(moved, 0, (width, height, width, height))


class Detector:
    """One ONNX file on ONNX Runtime's CPU; it takes one letterboxed picture at a time, RGB in 0 to 1.

    layout: of `LAYOUTS`; None finds it from the shape of the output. output: its name, where several would fit.
    size: (height, width) of a network whose input has no fixed one. threads: 0 is all cores.
    SourceMissingError, BackendError if ONNX Runtime fails, OptionError for a network that is not understood.
    """

    def __init__(
        self,
        path: Path,
        layout: str | None = None,
        output: str | None = None,
        size: Size | None = None,
        threads: int = 0,
    ) -> None:
        if layout is not None and layout not in LAYOUTS:
            raise OptionError(f"--layout is {layout!r}; known: {', '.join(LAYOUTS)}")
        if not path.is_file():
            raise SourceMissingError(f"{path} does not exist; give the ONNX file of a detector")
        self.path = path
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._session = _open_session(path, threads)
        names = self._class_names()
        self._read_input(size)
        self.output, self.layout, columns = self._find_layout(layout, output, len(names) or None)
        #: how many classes it tells apart; None if the file does not say
        self.class_count = columns if self.suppresses else len(names) or None

    def __call__(self, picture: Uint8, classes: Mapping[int, int]) -> Detections:
        """Return what it finds in an RGB picture (H, W, 3); `classes` maps its class numbers to those of the labels.

        What it takes for another class is left out.
        """
        box = Letterbox.fit((picture.shape[0], picture.shape[1]), self.size)
        found = self._decode(self._run(box.apply(picture))[self.output], classes)
        return Detections(box.undo(found.boxes), found.scores, found.classes)

    @property
    def suppresses(self) -> bool:
        """Whether overlapping boxes are left to this module, not to the graph."""
        return self.layout in WITHOUT_NMS

    def _class_names(self) -> dict[int, str]:
        """Return the class names that Ultralytics writes into the file, {} if there are none."""
        said = self._session.get_modelmeta().custom_metadata_map
        if said.get("task", "detect") != "detect":
            raise OptionError(f"{self.path} is a network for {said['task']!r}; needed one for detection")
        try:
            names = ast.literal_eval(said.get("names", "{}"))
        except (ValueError, SyntaxError):
            return {}
        return dict(enumerate(names)) if isinstance(names, list) else names

    def _read_input(self, size: Size | None) -> None:
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        batched = bool(shape) and isinstance(shape[0], int) and shape[0] != 1
        if len(shape) != 4 or 3 not in (shape[1], shape[3]) or batched:
            seen = ", ".join(f"{each.name} {_shown(each.shape)}" for each in inputs)
            raise OptionError(
                f"{self.path} takes {seen}; needed one RGB picture, (1, 3, H, W) or (1, H, W, 3); export it so"
            )
        if inputs[0].type not in _DTYPES:
            raise OptionError(f"{self.path} takes {inputs[0].type}; needed float or float16 in 0 to 1; export it so")
        self._input, self._dtype = inputs[0].name, _DTYPES[inputs[0].type]
        self._channels_first = shape[1] == 3
        fixed = tuple(shape[2:4] if self._channels_first else shape[1:3])
        if all(isinstance(side, int) for side in fixed):
            if size is not None and size != fixed:
                raise OptionError(
                    f"--size is {size[0]}x{size[1]}, but {self.path} takes {fixed[0]}x{fixed[1]}; leave --size out"
                )
            self.size: Size = fixed
        elif size is None:
            raise OptionError(f"{self.path} takes pictures of any size; say the one it was trained for, as --size 640")
        else:
            self.size = size

    def _find_layout(self, layout: str | None, output: str | None, count: int | None) -> tuple[str, str, int]:
        """Return the output's name, its layout and the number of columns with scores, from a run on plain grey."""
        grey = np.full((*self.size, 3), _GREY, np.uint8)
        shapes = {name: values.shape for name, values in self._run(grey).items()}
        seen = ", ".join(f"{name} {_shown(shape)}" for name, shape in shapes.items())
        if output is not None and output not in shapes:
            raise OptionError(f"--output is {output!r}; {self.path} has {seen}")
        fits = [
            (name, each)
            for name, shape in shapes.items()
            for each in LAYOUTS
            if output in (None, name) and layout in (None, each)
            if _fits(each, shape, count, None if layout else self.size)
        ]
        if not fits:
            known = ", ".join(f"{name} {shape}" for name, shape in LAYOUTS.items() if layout in (None, name))
            classes = f" with {count} classes" if count else ""
            raise OptionError(
                f"{self.path} gives {seen} for a {self.size[0]}x{self.size[1]} input{classes}; known: {known}"
                + ("" if layout else "; if it is one of them, say so by --layout, else export it so")
            )
        if len(fits) > 1:
            choices = ", ".join(f"--output {name} --layout {each}" for name, each in fits)
            raise OptionError(f"{self.path} gives {seen}, which can be read in several ways; choose one: {choices}")
        name, found = fits[0]
        return name, found, shapes[name][2] - 5 if found == "v5" else shapes[name][1] - 4

    def _run(self, boxed: Uint8) -> dict[str, NDArray[Any]]:
        # In float32 also for a float16 network: PyTorch divides so.
        x = (boxed * np.float32(1 / 255)).astype(self._dtype)[None]
        if self._channels_first:
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        try:
            outputs = self._session.run(None, {self._input: x})
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise BackendError(
                f"{self.path}: ONNX Runtime failed on a {boxed.shape[0]}x{boxed.shape[1]} input: {one_line(error)}"
            ) from error
        return {each.name: values for each, values in zip(self._session.get_outputs(), outputs, strict=True)}

    def _decode(self, output: NDArray[Any], classes: Mapping[int, int]) -> Detections:
        """Return the boxes of one output in pixels of the network's input."""
        rows = output.reshape(output.shape[-2:]).astype(np.float64)
        if self.layout == "v5":
            scores = self._checked(rows[:, 5:]) * self._checked(rows[:, 4:5])
            return _suppressed(_corners(rows[:, :4]), scores, classes)
        if self.layout == "v8":
            return _suppressed(_corners(rows[:4].T), self._checked(rows[4:].T), classes)
        boxes, scores, numbers = rows[:, :4], rows[:, 4], rows[:, 5]
        if self.layout == "v7-nms":
            boxes, scores, numbers = rows[:, 1:5], rows[:, 6], rows[:, 5]
        self._checked(scores)
        if (numbers != np.rint(numbers)).any():
            raise OptionError(f"{self.path}: read as {self.layout}, class numbers are broken; choose another --layout")
        wanted = np.array([classes.get(int(number), -1) for number in numbers], np.int64)
        keep = np.flatnonzero((wanted >= 0) & (scores > SCORE_THRESHOLD))
        keep = keep[np.argsort(-scores[keep], kind="stable")][:MOST_BOXES]
        return Detections(boxes[keep], scores[keep], wanted[keep])

    def _checked(self, scores: Float64) -> Float64:
        """Return the scores; OptionError unless they lie in 0 to 1, which tells a wrong reading from a right one."""
        low, high = (scores.min(), scores.max()) if scores.size else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise OptionError(
                f"{self.path}: read as {self.layout}, scores run from {low:.3g} to {high:.3g}, needed 0 to 1; "
                "choose another --layout, or export it with its sigmoid and without other heads"
            )
        return scores


def _fits(layout: str, shape: tuple[int, ...], count: int | None, size: Size | None) -> bool:
    """Return whether an output may have that layout; with the input's size, whether it has the boxes of its grid."""
    if layout == "v7-nms":
        return len(shape) == 2 and shape[1] == 7
    if len(shape) != 3 or shape[0] != 1:
        return False
    if layout == "v10":
        return shape[2] == 6 and (size is None or shape[1] <= _MOST_FINAL_ROWS)
    boxes, columns, per_cell = (shape[1], shape[2] - 5, 3) if layout == "v5" else (shape[2], shape[1] - 4, 1)
    if not 1 <= columns < boxes or count not in (None, columns):
        return False
    return size is None or boxes in {per_cell * cells for cells in _grid_cells(size)}


def _grid_cells(size: Size) -> set[int]:
    """Return how many cells the heads of a YOLO can have together: two or more neighbours of the usual strides."""
    cells = [ceil(size[0] / stride) * ceil(size[1] / stride) for stride in _STRIDES]
    return {sum(cells[first:end]) for first in range(len(cells)) for end in range(first + 2, len(cells) + 1)}


def _corners(boxes: Float64) -> Float64:
    """Return x1 y1 x2 y2 of cx cy w h."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _suppressed(boxes: Float64, scores: Float64, classes: Mapping[int, int]) -> Detections:
    """Return the best boxes of each class that overlap no better one of it; `scores` has a column for each class."""
    labels = np.array(sorted(set(classes.values())), np.int64)
    of_label = [scores[:, [own for own, label in classes.items() if label == wanted]].max(axis=1) for wanted in labels]
    by_label = np.stack(of_label, axis=1) if of_label else np.zeros((len(boxes), 0))
    rows, columns = np.nonzero(by_label > SCORE_THRESHOLD)
    order = np.argsort(-by_label[rows, columns], kind="stable")[:_MOST_CANDIDATES]
    rows, columns = rows[order], columns[order]
    found = Detections(boxes[rows], by_label[rows, columns], labels[columns])
    if not len(rows):
        return found
    # OpenCV parts the classes by an offset of the largest coordinate: below zero they would meet again.
    corner = found.boxes[:, :2] - found.boxes.min()
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    # OpenCV's stubs want lists; an array does as well.
    arrays: tuple[Any, Any, Any] = np.hstack([corner, sides]), np.float32(found.scores), np.int32(columns)
    kept = cv2.dnn.NMSBoxesBatched(*arrays, SCORE_THRESHOLD, NMS_IOU)
    keep = np.asarray(kept, np.int64).reshape(-1)
    keep = keep[np.argsort(-found.scores[keep], kind="stable")][:MOST_BOXES]
    return Detections(found.boxes[keep], found.scores[keep], found.classes[keep])


def _open_session(path: Path, threads: int) -> Any:
    import onnxruntime  # noqa: PLC0415  its 0.1 s is not for those who only want a table

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_cores()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base for its errors
        raise BackendError(
            f"{path} is no network that ONNX Runtime opens: {one_line(error)}; export it again"
        ) from error


def _shown(shape: Any) -> str:
    return f"({', '.join(str(side) for side in shape)})"
