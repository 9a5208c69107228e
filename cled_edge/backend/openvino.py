"""OpenVINO on an Intel or AMD CPU, an Intel GPU or an Intel NPU: each named, never OpenVINO's own AUTO device."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import BackendFacts, RunFacts
from cled_edge.backend.failures import missing_package, run_failure
from cled_edge.backend.graph_cache import cache_name, read_cached, write_cached
from cled_edge.backend.graph_trial import check_trial
from cled_edge.backend.protocol import Array
from cled_edge.bundle.manifest import OPSETS
from cled_edge.bundle.reader import Bundle
from cled_edge.cpu import instruction_sets, quota_cores, usable_cores
from cled_edge.errors import BackendError, CledEdgeError, OptionError

DEVICES = {"openvino": "CPU", "openvino-gpu": "GPU", "openvino-npu": "NPU"}
TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}  # our words, OpenVINO's around Q/DQ nodes
KEPT_SHAPES = 8  # compiled graphs in memory; a folder of pictures may hold a hundred sizes

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class OpenVinoBackend:
    """Each graph compiled for each set of input shapes, on first use. See `Backend`."""

    def __init__(self, bundle: Bundle, choice: BackendChoice, threads: int = 0) -> None:
        device = DEVICES[choice.name]
        if threads and device != "CPU":
            raise OptionError(f"threads is {threads}, but backend {choice.name} has none; give 0")
        runnable = self.precisions(choice.name)
        if choice.precision not in runnable:
            raise BackendError(
                f"backend {choice}: this {device} has no {choice.precision}; it has {', '.join(runnable)}; "
                f"choose {choice.name}:{runnable[0]}"
            )
        self._ov = _import_sdk(choice.name)
        self._core = _shared_core(self._ov)
        self._bundle, self._device = bundle, device
        # Around an INT8 graph's Q/DQ nodes a GPU works in what it is made for.
        rest = "f16" if choice.precision == "int8" and device != "CPU" else TYPES[choice.precision]
        self._properties = _properties(device, rest, threads)
        self._compiled: dict[tuple[str, Shapes], cycle[Any]] = {}
        self._lock = threading.Lock()
        self.in_use = threading.Lock()
        self._closed = False
        self.opsets = OPSETS
        self.choice = choice
        self.description = f"{self.sdk(choice.name)} {device.lower()} {choice.precision}"
        full_name = f"{device} {self._core.get_property(device, 'FULL_DEVICE_NAME')}"
        self.facts = BackendFacts(self.sdk(choice.name), full_name, str(choice.precision), threads or None)
        self.runs = RunFacts()

    @classmethod
    def precisions(cls, name: str) -> tuple[str, ...]:
        """Return the precisions that the device has; BackendError if there is no such device or no OpenVINO."""
        core, device = _shared_core(_import_sdk(name)), DEVICES[name]
        present = core.available_devices
        if device not in {found.partition(".")[0] for found in present}:
            raise BackendError(
                f"backend {name}: OpenVINO finds no {device} here, only {', '.join(present)}; "
                "install the driver of the device, or choose another backend"
            )
        # To be read before compiling: asked for f16, a CPU without it takes bf16 and says nothing (2026.4).
        capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        return tuple(precision for precision in TYPES if precision.upper() in capabilities)

    @classmethod
    def sdk(cls, name: str) -> str:
        """Return the SDK and its version."""
        return f"openvino {_import_sdk(name).__version__.partition('-')[0]}"

    def run(self, graph: str, inputs: Mapping[str, Array]) -> list[Array]:
        """Return the graph's outputs in the manifest's order."""
        contiguous = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        key = graph, tuple((name, value.shape) for name, value in sorted(contiguous.items()))
        with self._lock:
            if self._closed:
                raise BackendError(f"backend {self.choice} is closed; open another")
            try:
                requests = self._compiled.pop(key, None) or self._compile(graph, contiguous)
                self._compiled[key] = requests  # the last used is last
                if len(self._compiled) > KEPT_SHAPES:
                    del self._compiled[next(iter(self._compiled))]
                outputs = next(requests).infer(contiguous, share_inputs=True, share_outputs=True)
            except CledEdgeError:
                raise
            except Exception as error:  # RuntimeError, and TypeError or KeyError of the binding
                raise run_failure("OpenVINO", graph, error) from error
        return [outputs[k] for k in range(len(outputs))]

    def close(self) -> None:
        """Drop the compiled graphs."""
        with self._lock:
            self._closed = True
            self._compiled.clear()

    def _compile(self, graph: str, inputs: Mapping[str, Array]) -> "cycle[Any]":
        """Return two requests that take turns, so that outputs outlive the next run.

        The two share all but their outputs (nano at 480x640: 19 MB more). Copying the outputs of the step graph takes
        3.5 ms of its 52.
        """
        shapes = {name: list(value.shape) for name, value in inputs.items()}
        name = self._cache_name(graph, shapes)
        imported = self._import(name)
        compiled = imported or self._compile_anew(graph, shapes)
        self._check_precision(compiled)
        self.runs.cache[graph] = "read" if imported else self._export(compiled, name)
        if self._device == "CPU":
            self.facts = replace(self.facts, threads=compiled.get_property("INFERENCE_NUM_THREADS"))
        return cycle([compiled.create_infer_request() for _ in range(2)])

    def _compile_anew(self, graph: str, shapes: dict[str, list[int]]) -> Any:
        check_trial(self._bundle, graph)
        model = self._core.read_model(self._bundle.graph(graph))
        model.reshape(shapes)
        return self._core.compile_model(model, self._device, self._properties)

    def _import(self, name: str) -> Any:
        """Return the compiled model of an earlier process, or None: OpenVINO may refuse what another of it wrote."""
        content = read_cached(name)
        if content is None:
            return None
        try:
            return self._core.import_model(BytesIO(content), self._device, self._properties)
        except RuntimeError:
            return None

    def _export(self, compiled: Any, name: str) -> str:
        if "EXPORT_IMPORT" not in self._core.get_property(self._device, "OPTIMIZATION_CAPABILITIES"):
            return "not written: the device cannot export"
        return write_cached(name, compiled.export_model().getvalue())

    def _check_precision(self, compiled: Any) -> None:
        """Raise BackendError unless the compiled graph says it has the precision that was asked for."""
        wanted = self._properties["INFERENCE_PRECISION_HINT"]
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != wanted:
            raise BackendError(f"asked for {wanted}, OpenVINO compiled for {found}; choose another precision")

    def _cache_name(self, graph: str, shapes: dict[str, list[int]]) -> str:
        """Name a compiled graph by all it depends on.

        OpenVINO's own CACHE_DIR hashes the model, the properties, its version and the device's CACHING_PROPERTIES.
        For a CPU these are its name alone, and a virtual "AMD EPYC" has AVX-512 on one host and not on another. It
        also reads and reshapes the model before it looks: both nano graphs take 1.0 s from it, from here 0.5 s.
        """
        file = self._bundle.manifest.graphs[graph].file
        source = self._bundle.manifest.files[file].sha256
        device = [
            f"{key}={self._core.get_property(self._device, key)}"
            for key in sorted(self._core.get_property(self._device, "CACHING_PROPERTIES"))
        ]
        parts = (source, self._ov.__version__, self._device, device, instruction_sets(), self._properties, shapes)
        return cache_name("openvino", parts)


def _properties(device: str, precision: str, threads: int) -> dict[str, Any]:
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if device == "CPU":
        # A pinned thread waits for its core while another is free. On two cores shared with other work the fusion graph
        # took 160 to 246 ms pinned and 116 to 185 free, in three runs each in turns (2026.4).
        properties["ENABLE_CPU_PINNING"] = False
        if threads or quota_cores() is not None:  # OpenVINO counts the cores, not a container's share of them
            properties["INFERENCE_NUM_THREADS"] = threads or usable_cores()
    return properties


@cache
def _shared_core(openvino: Any) -> Any:
    """Return the process's one Core, which is never destroyed.

    Each CPU plugin sets an alternative signal stack and, when destroyed, puts back the one that it found. Of two that
    end in the order they began, the second puts back what the first has freed, and the next Ctrl-C crashes (2026.4).
    """
    return openvino.Core()


def _import_sdk(name: str) -> Any:
    try:
        import openvino  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(name, error) from error
    return openvino
