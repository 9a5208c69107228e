"""An ONNX detector with suppression inside its graph: an image in, boxes out.

Its output is (1, N, 6): x1 y1 x2 y2 score class, in pixels of its input. YOLOv10 is exported so, and others with
`nms=True`.
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

# Of YOLOv9's own evaluation: a curve of precision over recall needs the boxes of low scores too.
SCORE_THRESHOLD = 0.001
_GREY = 114  # around a letterboxed image, as in YOLO's training
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Detections:
    """Boxes (N, 4) float64, x1 y1 x2 y2 in pixels; scores (N,) in 0 to 1; classes (N,)."""

    boxes: Float64
    scores: Float64
    classes: NDArray[np.int64]


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

    size: (height, width) of a network whose input has no fixed one.
    SourceMissingError, BackendError if ONNX Runtime fails, OptionError for a network that is not understood.
    """

    def __init__(self, path: Path, size: Size | None = None, threads: int = 0) -> None:
        if not path.is_file():
            raise SourceMissingError(f"{path} does not exist; give the ONNX file of a detector")
        self.path = path
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
        boxes, scores, numbers = self._decoded(output)
        keep = np.isin(numbers, list(classes)) & (scores > SCORE_THRESHOLD)
        return Detections(box.undo(boxes[keep]), scores[keep], numbers[keep].astype(np.int64))

    def _decoded(self, output: NDArray[Any]) -> tuple[Float64, Float64, Float64]:
        """Return boxes, scores and class numbers of one output; OptionError if it is none of boxes."""
        if len(output.shape) != 3 or output.shape[2] != 6:
            raise OptionError(f"{self.path} gives {output.shape}; needed (1, N, 6); export it with suppression inside")
        rows = output[0].astype(np.float64)
        scores = rows[:, 4]
        low, high = (scores.min(), scores.max()) if scores.size else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise OptionError(
                f"{self.path}: scores run from {low:.3g} to {high:.3g}, needed 0 to 1 in the fifth column; "
                "export it with suppression inside"
            )
        return rows[:, :4], scores, rows[:, 5]


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
