"""ONNX Runtime on a GPU: it runs there or not at all."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cled_edge.backend.facts import details, notes
from cled_edge.backend.opener import available_backends, open_backend
from cled_edge.errors import BackendError, OptionError
from tests.backend.tensorrt.test_runner import loop_inputs
from tests.fakes.engines import NumpyBackend, small_bundle

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
NAMES = {"onnxruntime-cuda": [CUDA], "onnxruntime-tensorrt": [TENSORRT, CUDA]}
BOTH = pytest.mark.parametrize("name", NAMES)


class FakeOrt(ModuleType):
    """onnxruntime-gpu 1.31. loading: the providers whose libraries load."""

    __version__ = "1.31.1"

    def __init__(self, bundle, built=(TENSORRT, CUDA, CPU), loading=(TENSORRT, CUDA)) -> None:
        super().__init__("onnxruntime")
        self.bundle, self.built, self.loading = bundle, built, loading
        self.seen: dict[str, object] = {}

    def get_available_providers(self):
        return list(self.built)

    def SessionOptions(self):  # noqa: N802
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)

    def InferenceSession(self, content, options, providers, enable_fallback=1):  # noqa: N802
        self.seen = {"entries": options.entries, "providers": providers, "enable_fallback": enable_fallback}
        graph = content[4 : 4 + content[3]].decode()  # the producer's name, see `empty_graph`
        used = [name for name, _ in providers if name in self.loading] + [CPU]
        run = NumpyBackend(self.bundle).run
        return SimpleNamespace(get_providers=lambda: used, run=lambda names, inputs: run(graph, inputs))


@pytest.fixture
def bundle(tmp_path):
    return small_bundle(tmp_path)


@BOTH
def test_it_runs_on_the_gpu_alone_and_says_so(bundle, monkeypatch, name) -> None:
    ort = FakeOrt(bundle)
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    backend = open_backend(f"{name}:fp16", bundle)
    outputs = backend.run("fused_loop-fp16", loop_inputs(1))
    assert np.array_equal(outputs[0], NumpyBackend(bundle).run("fused_loop-fp16", loop_inputs(1))[0])
    assert ort.seen["enable_fallback"] == 0
    assert ort.seen["entries"]["session.disable_cpu_ep_fallback"] == "1"
    assert [provider for provider, _ in ort.seen["providers"]] == NAMES[name]
    options = dict(ort.seen["providers"])
    assert options.get(TENSORRT, {"trt_fp16_enable": "1"}) == {"trt_fp16_enable": "1"}
    assert options[CUDA] == {}
    assert notes(details(backend.facts, backend.runs)) == [f"providers: fused_loop-fp16: {', '.join(NAMES[name])}"]
    assert backend.description == f"{name} 1.31.1 gpu fp16"
    assert (backend.facts.device, backend.facts.threads) == ("GPU", None)
    assert f"{name}:fp32" in {str(choice) for choice in available_backends()}


@BOTH
@pytest.mark.parametrize("loading", [(), (TENSORRT,)])
def test_a_provider_that_does_not_load_is_an_error(bundle, monkeypatch, name, loading) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOrt(bundle, loading=loading))
    with pytest.raises(BackendError, match=f"runs fused_loop on .*{CPU}, needed {', '.join(NAMES[name])}; install"):
        open_backend(name, bundle).run("fused_loop", loop_inputs(1))


@BOTH
def test_a_build_without_the_provider_is_refused(bundle, monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOrt(bundle, built=(CPU,)))
    words = f"backend {name}: the installed ONNX Runtime has no {NAMES[name][0]}, only {CPU}; pip uninstall onnxruntime"
    with pytest.raises(BackendError, match=words):
        open_backend(name, bundle)
    assert name not in {choice.name for choice in available_backends()}


@BOTH
def test_what_only_the_cpu_can_run_is_an_error(bundle, monkeypatch, name) -> None:
    ort = FakeOrt(bundle)

    def refuse(*arguments, **options):
        raise RuntimeError("This session contains graph nodes\nthat are assigned to the default CPU EP")

    ort.InferenceSession = refuse
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    with pytest.raises(
        BackendError, match=r"cannot run fused_loop on the GPU alone: This session .* default CPU EP; "
    ) as caught:
        open_backend(name, bundle).run("fused_loop", loop_inputs(1))
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match=f"threads is 1, but backend {name} has none; give 0"):
        open_backend(name, bundle, threads=1)


def test_the_onnxruntime_installed_here_refuses_a_gpu_that_it_was_not_built_for(bundle) -> None:
    ort = pytest.importorskip("onnxruntime")
    if CUDA in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BackendError, match=f"has no {CUDA}, only .*{CPU}"):
        open_backend("onnxruntime-cuda", bundle)
