"""Which backend, at which precision: the grammar NAME[:PRECISION], and the registry behind it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cled_edge.errors import OptionError

if TYPE_CHECKING:  # the command line's help reads the registry: it need not wait for NumPy
    from cled_edge.bundle.manifest import GraphPrecision

AUTO = "auto"


@dataclass(frozen=True)
class Registered:
    """Where a backend lives, the precisions it knows, and how to install what it needs.

    precisions: to each, the first is the default, the precision of the graphs it runs. OpenVINO's bf16 and fp16 are its
    own way to run FP32 graphs.
    """

    module: str
    type_name: str
    precisions: "dict[str, GraphPrecision]"
    install: str


_TYPED: "dict[str, GraphPrecision]" = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
_ORT = "cled_edge.backend.ort", "OnnxRuntimeBackend"
_INSTALL_ORT_GPU = (
    "pip uninstall onnxruntime, then: pip install onnxruntime-gpu (there is none for a Jetson: take backend tensorrt)"
)
_OPENVINO = "cled_edge.backend.openvino", "OpenVinoBackend"
_INSTALL_OPENVINO = "pip install 'cled-edge[openvino]'"
REGISTRY = {
    "onnxruntime": Registered(*_ORT, _TYPED, "pip install onnxruntime"),
    "onnxruntime-cuda": Registered(*_ORT, {"fp32": "fp32", "fp16": "fp16"}, _INSTALL_ORT_GPU),
    "onnxruntime-tensorrt": Registered(*_ORT, {"fp32": "fp32", "fp16": "fp16"}, _INSTALL_ORT_GPU),
    "tensorrt": Registered(
        "cled_edge.backend.tensorrt.runner",
        "TensorRtBackend",
        {"fp16": "fp16", "fp32": "fp32", "int8": "int8"},
        "pip install 'cled-edge[tensorrt]'; on a Jetson TensorRT comes with JetPack",
    ),
    "openvino": Registered(
        *_OPENVINO, {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32", "int8": "int8"}, _INSTALL_OPENVINO
    ),
    "openvino-gpu": Registered(*_OPENVINO, {"fp16": "fp32", "fp32": "fp32", "int8": "int8"}, _INSTALL_OPENVINO),
    "openvino-npu": Registered(*_OPENVINO, {"fp16": "fp32", "int8": "int8"}, _INSTALL_OPENVINO),
}


@dataclass(frozen=True)
class BackendChoice:
    """A backend and its precision, `openvino:bf16`; or `auto`, which has no precision until it has measured."""

    name: str
    precision: str | None

    def __post_init__(self) -> None:
        """Refuse what the registry does not hold with an OptionError."""
        if self.name == AUTO:
            if self.precision is not None:
                raise OptionError(f"backend auto:{self.precision}: auto takes no precision; it measures them all")
            return
        if self.name not in REGISTRY:
            raise OptionError(f"backend {self.name!r} is unknown; known: {', '.join((*REGISTRY, AUTO))}; choose one")
        known = REGISTRY[self.name].precisions
        if self.precision not in known:
            raise OptionError(
                f"precision {self.precision!r} is not one of backend {self.name}; it has {', '.join(known)}; "
                f"write {self.name}:{next(iter(known))}"
            )

    @classmethod
    def parse(cls, text: str) -> "BackendChoice":
        """Read NAME or NAME:PRECISION; without a precision it is the backend's default. OptionError if unknown."""
        name, colon, precision = text.strip().partition(":")
        default = next(iter(REGISTRY[name].precisions)) if name in REGISTRY else None
        return cls(name, precision if colon else default)

    @property
    def graphs(self) -> "GraphPrecision":
        """The precision of the graphs it runs; `auto` has none yet, an OptionError."""
        if self.precision is None:
            raise OptionError("backend auto runs no graphs before it has measured")
        return REGISTRY[self.name].precisions[self.precision]

    def __str__(self) -> str:
        return self.name if self.precision is None else f"{self.name}:{self.precision}"


REFERENCE = BackendChoice("onnxruntime", "fp32")  # what bundles are verified on at export
