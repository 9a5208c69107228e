"""What a run writes while it trains: a log, curves for TensorBoard, and samples."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from cled_edge.errors import OutputError
from cled_edge.files import make_folder, open_to_append
from cled_edge.image import write_png


@dataclass(frozen=True)
class Evaluation:
    """What validation found: numbers, and rows of images by name, each (3, H, W) in [-1, 1]."""

    numbers: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[Tensor]] = field(default_factory=dict)


class Journal:
    """Writes `log.jsonl`, `curves/` and `samples/` below `out`; silent unless active, as in all but one process.

    As a context manager it ends the curves. Everything it writes may raise an OutputError, as of a full disk.
    """

    def __init__(self, stage: str, out: Path, active: bool) -> None:
        self.stage, self.out = stage, out
        if active:
            make_folder(out / "curves")
        with _writing(out / "curves"):
            self.curves = SummaryWriter(str(out / "curves")) if active else None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OutputError):  # of a full disk, which the first error tells already
            self.close()

    def write(self, iteration: int, numbers: dict[str, float]) -> None:
        """Log numbers."""
        if self.curves is None:
            return
        line = {"stage": self.stage, "time_s": round(time.time(), 1), "iteration": iteration}
        with _writing(self.out / "log.jsonl"), open_to_append(self.out / "log.jsonl") as file:
            text = json.dumps(line | {name: round(value, 5) for name, value in numbers.items()})
            file.write(f"{text}\n".encode())
        with _writing(self.out / "curves"):
            for name, value in numbers.items():
                self.curves.add_scalar(f"{self.stage}/{name}", value, iteration)

    def write_evaluation(self, iteration: int, result: Evaluation) -> None:
        """Log numbers and keep images, a row a file, in `samples/`."""
        if self.curves is None:
            return
        self.write(iteration, result.numbers)
        folder = self.out / "samples"
        make_folder(folder)
        for name, images in result.samples.items():
            row = ((torch.cat(images, dim=2).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
            with _writing(self.out / "curves"):
                self.curves.add_image(f"{self.stage}/{name}", row, iteration)
            write_png(folder / f"{self.stage}-{name}-{iteration:07d}.png", row.permute(1, 2, 0).numpy())

    def close(self) -> None:
        """End the curves."""
        if self.curves is not None:
            with _writing(self.out / "curves"):
                self.curves.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError, as of a full disk, into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; make room, then run the same again") from error
