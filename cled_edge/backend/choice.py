"""Which backend, at which precision: the grammar NAME[:PRECISION], the registry behind it, and opening one."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cled_edge.backend.cpu import check_threads
from cled_edge.errors import BackendError, OptionError
from cled_edge.size import Size

if TYPE_CHECKING:  # the command line's help reads the registry: it need not wait for NumPy
    from cled_edge.backend.protocol import Backend, BackendType
    from cled_edge.backend.tensorrt.device import DeviceFacts
    from cled_edge.bundle.manifest import GraphPrecision
    from cled_edge.bundle.reader import Bundle

AUTO = "auto"
# Builds a missing engine: of a bundle, a graph's name, a size, for this device, into a folder, by a binding to CUDA.
BuildMissing = Callable[["Bundle", str, Size, "DeviceFacts", Path, str], None]


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


@dataclass(frozen=True)
class CudaOptions:
    """What `tensorrt` alone takes.

    binding: `cuda`, NVIDIA's cuda-python, or `pycuda`, for programs that live in a pycuda context; that has no graphs.
    build_missing: builds an engine that is missing, which takes minutes; None raises an EngineError instead. It is
    `cled_edge.build.builder.build_missing`, which lies above the backends and so is handed in.
    engines: the folder they are in; None is CLED_EDGE_ENGINES or, without it, in the user's cache folder.
    graphs: False launches call by call, to measure what CUDA graphs gain. timed: keep each frame's time on the GPU, by
    events, as `details["gpu_ms"]`.
    """

    binding: str = "cuda"
    build_missing: BuildMissing | None = None
    engines: Path | None = None
    graphs: bool = True
    timed: bool = False


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


def open_backend(
    choice: BackendChoice | str, bundle: "Bundle", threads: int = 0, cuda: CudaOptions | None = None
) -> "Backend":
    """Open a bundle's graphs on a backend that is named, NAME or NAME:PRECISION; `auto` is measured above this.

    threads: CPU threads, 0 is the backend's choice. cuda: of `tensorrt` alone. OptionError for a choice that does not
    exist and for `auto`, BackendError for one that this machine cannot run: another is never taken in its place.
    """
    choice = BackendChoice.parse(choice) if isinstance(choice, str) else choice
    check_threads(threads)
    check_cuda(choice, cuda)
    if choice.name == AUTO:
        raise OptionError(
            "backend is auto, needed one by name; measure which is fastest here with cled_edge.select.choose(bundle, "
            "threads, size) and give its choice, or open it with cled_edge.select.open_chosen"
        )
    if choice.graphs not in bundle.manifest.precisions():
        raise BackendError(
            f"backend {choice}: {bundle.path} has no {choice.graphs} graphs, only "
            f"{', '.join(bundle.manifest.precisions())}; export the bundle again with graphs in {choice.graphs}"
        )
    options = {"options": cuda} if choice.name == "tensorrt" else {}
    return backend_type(choice.name)(bundle, choice, threads, **options)


def check_cuda(choice: BackendChoice, cuda: CudaOptions | None) -> None:
    """Raise OptionError if options of CUDA are given for a backend that has none."""
    if cuda not in (None, CudaOptions()) and choice.name != "tensorrt":
        raise OptionError(
            f"options of CUDA are given for backend {choice}; they are of backend tensorrt alone; leave the "
            "binding and the building of engines out"
        )


def available_backends() -> list[BackendChoice]:
    """Return what this machine can run: the package is installed, the device is there and has the precision."""
    choices = []
    for name, entry in REGISTRY.items():
        try:
            runnable = backend_type(name).precisions(name)
        except BackendError:
            continue
        choices += [BackendChoice(name, precision) for precision in entry.precisions if precision in runnable]
    return choices


def backends_of(bundle: "Bundle") -> list[BackendChoice]:
    """Return what this machine can run of a bundle: of `available_backends`, those whose graphs it has."""
    known = bundle.manifest.precisions()
    return [choice for choice in available_backends() if choice.graphs in known]


def backend_type(name: str) -> "BackendType":
    """Return the class behind a name; its SDK is imported only when it is used."""
    entry = REGISTRY[name]
    return cast("BackendType", getattr(import_module(entry.module), entry.type_name))
