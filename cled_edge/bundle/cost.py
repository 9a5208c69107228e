"""What the graphs of a bundle, or one ONNX file, cost a frame, found out without a GPU, torch or running them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cled_edge.bundle.device_limits import DEVICES
from cled_edge.bundle.graph_cost import RULES, Cost, cost_of
from cled_edge.bundle.onnx_header import onnx_model, read_onnx
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import GRAPHS
from cled_edge.errors import BundleCorruptError, OptionError
from cled_edge.json_text import shown
from cled_edge.size import Size, padded, size_text

if TYPE_CHECKING:
    from onnx import ModelProto


def cost_of_path(path: Path, size: Size | None, public_key: Path | None = None) -> dict[str, Any]:
    """Return the costs of each graph as JSON has them, with the rules and the devices that they were counted by.

    path: a bundle's folder or an .onnx file. size: (height, width) in pixels, for graphs that leave theirs open; in a
    bundle it is padded to the bundle's multiple. A batch is that of a frame there, and 1 in a file. public_key: as
    `inspect_path` takes it.
    OptionError if the `onnx` package is missing, for any other file, for a size that no graph takes or that one lacks,
    and for graphs whose cost is not known; BundleMissingError and BundleCorruptError as they are read.
    """
    if path.is_dir():
        graphs = _of_bundle(path, size, public_key)
    elif path.suffix.lower() == ".onnx":
        if public_key is not None:
            raise OptionError(f"{path} is a file, and only bundles are signed; give its bundle's folder")
        graphs = [_row(path.stem, path, onnx_model(path, read_onnx(path)), size)]
    else:
        raise OptionError(f"{path} is no graph whose cost can be counted; give a bundle's folder or an .onnx file")
    if size is not None and not any(graph["takes_size"] for graph in graphs):
        raise OptionError(f"size is {size_text(size)}, but each graph of {path} has its own; leave the size out")
    return {
        "kind": "cost",
        "path": str(path),
        "graphs": graphs,
        "rules": list(RULES),
        "devices": [vars(device) for device in DEVICES],
    }


def _of_bundle(folder: Path, size: Size | None, public_key: Path | None) -> list[dict[str, Any]]:
    bundle = Bundle.open(folder, public_key=public_key)
    size = None if size is None else padded(size, bundle.manifest.size_multiple)
    rows = []
    for name, spec in bundle.manifest.graphs.items():
        model = onnx_model(folder / spec.file, bundle.graph(name))
        rows.append(_row(name, folder / spec.file, model, size, batch=GRAPHS[spec.role].batch, own_size=spec.size))
    return rows


def _row(
    name: str, path: Path, model: "ModelProto", size: Size | None, batch: int = 1, own_size: Size | None = None
) -> dict[str, Any]:
    """own_size: of a graph of one size, as the manifest has it."""
    cost = _cost(path, model, size, batch)
    at = size if cost.takes_size else own_size
    return {
        "name": name,
        "size": at and list(at),
        **cost.values(),
        "limits": [device.limits(cost) for device in DEVICES],
    }


def _cost(path: Path, model: "ModelProto", size: Size | None, batch: int) -> Cost:
    try:
        return cost_of(model, size, batch)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    except Exception as error:  # what reading a half-sensible message may raise
        raise BundleCorruptError(
            f"{path} is not a whole ONNX graph ({shown(error, 200)}); get it again from its source"
        ) from error
