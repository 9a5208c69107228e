"""An ONNX detector of the YOLO family, as its authors export it: an image in, boxes out.

Layouts of the output, which --layout names; C classes, coordinates are pixels of the network's input:

    v8      (1, 4+C, N)  cx cy w h scores             YOLOv8, v9, v11: overlapping boxes are suppressed here
    v10     (1, N, 6)    x1 y1 x2 y2 score class      YOLOv10, or another with NMS inside the graph
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.failures import one_line
from cled_edge.cpu import usable_cores
from cled_edge.errors import BackendError, OptionError, SourceMissingError
from cled_edge.image import Uint8
from cled_edge.size import Size

LAYOUTS = {"v8": "(1, 4+C, N)", "v10": "(1, N, 6)"}
# Of YOLOv9's own evaluation: a curve of precision over recall needs the boxes of low scores too.
SCORE_THRESHOLD = 0.001
NMS_IOU = 0.7
MOST_BOXES = 300  # that an image keeps; COCO counts 100 of each class
_MOST_CANDIDATES = 30000  # that NMS looks at
_GREY = 114  # around a letterboxed image, as in YOLO's training
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Detections:
    """Boxes (N, 4) float64, x1 y1 x2 y2 in pixels; scores (N,) in 0 to 1; classes (N,)."""

    boxes: Float64
    scores: Float64
    classes: NDArray[np.int64]

    def best(self) -> "Detections":
        """Return the MOST_BOXES of the highest scores."""
        keep = np.argsort(-self.scores, kind="stable")[:MOST_BOXES]
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])


@dataclass(frozen=True)
class Letterbox:
    """An image scaled to fit into a network's input, its shape kept, centred on grey. Sizes are (height, width)."""

    image: Size
    inner: Size
    outer: Size

    @classmethod
    def fit(cls, image: Size, outer: Size) -> "Letterbox":
        """Return the largest that fits."""
        scale = min(outer[0] / image[0], outer[1] / image[1])
        return cls(image, (max(1, round(image[0] * scale)), max(1, round(image[1] * scale))), outer)

    @property
    def corner(self) -> Size:
        """Top and left of the scaled image in the input."""
        return (self.outer[0] - self.inner[0]) // 2, (self.outer[1] - self.inner[1]) // 2

    def apply(self, image: Uint8) -> Uint8:
        """Return the network's input, (height, width, 3) uint8."""
        boxed = np.full((*self.outer, 3), _GREY, np.uint8)
        top, left = self.corner
        scaled = cv2.resize(image, self.inner[::-1], interpolation=cv2.INTER_LINEAR)
        boxed[top : top + self.inner[0], left : left + self.inner[1]] = scaled
        return boxed

    def undo(self, boxes: Float64) -> Float64:
        """Return boxes of the input in pixels of the image, cut off at its edges."""
        (top, left), (height, width) = self.corner, self.image
        scale_y, scale_x = height / self.inner[0], width / self.inner[1]
        moved = (boxes - (left, top, left, top)) * (scale_x, scale_y, scale_x, scale_y)
        return np.clip(moved, 0, (width, height, width, height))


class Detector:
    """One ONNX file on ONNX Runtime's CPU; it takes one letterboxed image at a time, RGB in 0 to 1.

    layout: of `LAYOUTS`. size: (height, width) of a network whose input has no fixed one.
    SourceMissingError, BackendError if ONNX Runtime fails, OptionError for a network that is not understood.
    """

    def __init__(self, path: Path, layout: str, size: Size | None = None, threads: int = 0) -> None:
        if layout not in LAYOUTS:
            raise OptionError(f"--layout is {layout!r}; known: {', '.join(LAYOUTS)}")
        if not path.is_file():
            raise SourceMissingError(f"{path} does not exist; give the ONNX file of a detector")
        self.path, self.layout = path, layout
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._session = _open_session(path, threads)
        entry = self._session.get_inputs()[0]
        if len(entry.shape) != 4 or entry.shape[1] != 3 or entry.type not in _DTYPES:
            raise OptionError(f"{path} takes {entry.type} {entry.shape}; needed float (1, 3, H, W); export it so")
        self._input, self._dtype = entry.name, _DTYPES[entry.type]
        fixed = tuple(entry.shape[2:])
        if all(isinstance(side, int) for side in fixed):
            self.size: Size = fixed
        elif size is None:
            raise OptionError(f"{path} takes images of any size; say the one it was trained for, as --size 640x640")
        else:
            self.size = size

    def __call__(self, image: Uint8, classes: Collection[int]) -> Detections:
        """Return what it finds of `classes` in an RGB image (H, W, 3)."""
        box = Letterbox.fit((image.shape[0], image.shape[1]), self.size)
        # In float32 also for a float16 network: PyTorch divides so.
        x = (box.apply(image) * np.float32(1 / 255)).astype(self._dtype).transpose(2, 0, 1)[None]
        try:
            output = self._session.run(None, {self._input: np.ascontiguousarray(x)})[0]
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise BackendError(f"{self.path}: ONNX Runtime failed on {self.size}: {one_line(error)}") from error
        found = self._decode(output, sorted(classes))
        return Detections(box.undo(found.boxes), found.scores, found.classes)

    @property
    def suppresses(self) -> bool:
        """Whether overlapping boxes are left to this module, not to the graph."""
        return self.layout == "v8"

    def _decode(self, output: NDArray[Any], classes: list[int]) -> Detections:
        """Return the boxes of one output in pixels of the network's input."""
        shape = tuple(output.shape)
        fits = len(shape) == 3 and (shape[2] == 6 if self.layout == "v10" else 4 < shape[1] < shape[2])
        if not fits:
            raise OptionError(f"{self.path} gives {shape}; --layout {self.layout} is {LAYOUTS[self.layout]}; choose")
        rows = output[0].astype(np.float64)
        scores = rows[:, 4] if self.layout == "v10" else rows[4:]
        low, high = (scores.min(), scores.max()) if scores.size else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise OptionError(
                f"{self.path}: read as {self.layout}, scores run from {low:.3g} to {high:.3g}, needed 0 to 1; "
                "choose another --layout, or export it with its sigmoid and without other heads"
            )
        if self.layout == "v10":
            keep = np.isin(rows[:, 5], classes) & (scores > SCORE_THRESHOLD)
            return Detections(rows[keep, :4], scores[keep], rows[keep, 5].astype(np.int64)).best()
        known = [number for number in classes if number < len(scores)]
        return _suppressed(_corners(rows[:4].T), scores[known].T, np.array(known, np.int64))


def _corners(boxes: Float64) -> Float64:
    """Return x1 y1 x2 y2 of cx cy w h."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _suppressed(boxes: Float64, scores: Float64, classes: NDArray[np.int64]) -> Detections:
    """Return the best boxes of each class that overlap no better one of it; `scores` has a column for each class."""
    rows, columns = np.nonzero(scores > SCORE_THRESHOLD)
    order = np.argsort(-scores[rows, columns], kind="stable")[:_MOST_CANDIDATES]
    rows, columns = rows[order], columns[order]
    found = Detections(boxes[rows], scores[rows, columns], classes[columns])
    if not len(rows):
        return found
    # OpenCV parts the classes by an offset of the largest coordinate: below zero they would meet again.
    corner = found.boxes[:, :2] - found.boxes.min()
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    # OpenCV's stubs want lists; an array does as well.
    arrays: tuple[Any, Any, Any] = np.hstack([corner, sides]), np.float32(found.scores), np.int32(columns)
    keep = np.asarray(cv2.dnn.NMSBoxesBatched(*arrays, SCORE_THRESHOLD, NMS_IOU), np.int64).reshape(-1)
    return Detections(found.boxes[keep], found.scores[keep], found.classes[keep]).best()


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
