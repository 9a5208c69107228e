"""`auto`: measures what agrees, takes the fastest, keeps the finding, says so."""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cled_edge.backend.choice import REFERENCE, BackendChoice
from cled_edge.backend.graph_cache import FOLDER_VARIABLE
from cled_edge.backend.opener import open_backend
from cled_edge.backend.protocol import Array, Backend
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.bundle.reader import Bundle
from cled_edge.cli.app import main
from cled_edge.errors import BackendError, OptionError
from cled_edge.fuser import Fuser
from cled_edge.select import choose, open_chosen

SIZE = (64, 96)
BF16, FP32 = BackendChoice.parse("openvino:bf16"), BackendChoice.parse("openvino:fp32")


class Replay:
    """A backend that computes with ONNX Runtime once, then answers at once; `error` is added, `delay_s` waited."""

    description = "replay"
    opsets = (17,)

    def __init__(self, inner: Backend, choice: BackendChoice, error: float = 0.0, delay_s: float = 0.0) -> None:
        self.inner, self.choice, self.error, self.delay_s = inner, choice, error, delay_s
        self.facts, self.runs = inner.facts, inner.runs
        self.closed = False
        self.in_use = inner.in_use
        self._kept: dict[str, list[list[Array]]] = {}

    def run(self, graph, inputs: Mapping[str, Array]) -> list[Array]:
        key = f"{graph} {inputs.get('t', '')}"
        if key not in self._kept:
            self._kept[key] = [self._spoiled(x) for x in self.inner.run(graph, inputs)]
        time.sleep(self.delay_s)
        return self._kept[key]

    def _spoiled(self, x: Array) -> Array:
        if x.dtype == np.uint8:
            return np.clip(x + 127.5 * self.error, 0, 255).astype(np.uint8)
        return x + np.float32(self.error)

    def close(self) -> None:
        self.closed = True


class Shop:
    """Opens the backends of a test and remembers them; an error in place of a backend is raised."""

    def __init__(self, offers: dict[BackendChoice, dict[str, float] | BackendError]) -> None:
        self.offers, self.opened = offers, []

    def __call__(self, choice: BackendChoice, bundle: Bundle, threads: int) -> Backend:
        offer = self.offers[choice]
        if isinstance(offer, BackendError):
            raise offer
        self.opened.append(Replay(open_backend(REFERENCE, bundle), choice, **offer))
        return self.opened[-1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open()


def test_the_fastest_wins_and_the_finding_is_kept(bundle: Bundle) -> None:
    shop = Shop({REFERENCE: {"delay_s": 0.03}, FP32: {"delay_s": 0.02}, BF16: {}})
    measured = choose(bundle, 0, SIZE, list(shop.offers), shop)
    assert measured.choice == BF16
    assert measured.line.startswith("auto: openvino:bf16, as medians at 64x96 are openvino:bf16 ")
    assert measured.line.index("openvino:fp32 ") < measured.line.index("onnxruntime:fp32 ")
    assert measured.line.endswith("; measured now")
    assert all(backend.closed for backend in shop.opened)
    kept = choose(bundle, 0, SIZE, list(shop.offers), Shop({}))
    assert kept.choice == BF16
    assert kept.line == measured.line.replace("measured now", "measured earlier")


@pytest.mark.parametrize("other", ["size", "threads", "candidates"])
def test_a_finding_is_not_taken_for_another_question(bundle: Bundle, other: str) -> None:
    shop = Shop({REFERENCE: {}, FP32: {"delay_s": 0.02}})
    choose(bundle, 0, SIZE, list(shop.offers), shop)
    again = Shop({**shop.offers, BF16: {"delay_s": 0.01}})
    threads, size = (1 if other == "threads" else 0), ((80, 96) if other == "size" else SIZE)
    candidates = list(again.offers if other == "candidates" else shop.offers)
    assert choose(bundle, threads, size, candidates, again).line.endswith("measured now")


def test_fast_but_wrong_is_refused(bundle: Bundle) -> None:
    shop = Shop({REFERENCE: {"delay_s": 0.02}, BF16: {"error": 0.5}})
    verdict = choose(bundle, 0, SIZE, list(shop.offers), shop)
    assert verdict.choice == REFERENCE
    assert "; refused openvino:bf16: it agrees with onnxruntime:fp32 to " in verdict.line
    assert "dB, needed 40;" in verdict.line


def test_not_a_number_is_refused(bundle: Bundle) -> None:
    shop = Shop({REFERENCE: {"delay_s": 0.02}, BF16: {"error": float("nan")}})
    with np.errstate(invalid="ignore"):
        assert choose(bundle, 0, SIZE, list(shop.offers), shop).choice == REFERENCE


def test_what_cannot_run_is_named(bundle: Bundle) -> None:
    shop = Shop({REFERENCE: {}, BF16: BackendError("the device went away")})
    verdict = choose(bundle, 0, SIZE, list(shop.offers), shop)
    assert verdict.choice == REFERENCE
    assert "; refused openvino:bf16: the device went away; measured now" in verdict.line


def test_none_that_agrees_is_an_error(bundle: Bundle) -> None:
    shop = Shop({REFERENCE: {}, BF16: {"error": 0.5}})
    with pytest.raises(BackendError, match="auto found no backend that agrees with onnxruntime:fp32; refused openvino"):
        choose(bundle, 0, SIZE, [BF16], shop)


def test_one_backend_needs_no_measurement(bundle: Bundle, cache: Path) -> None:
    verdict = choose(bundle, 0, SIZE, [REFERENCE], Shop({}))
    assert verdict.line == "auto: onnxruntime:fp32, the only backend here"
    assert not cache.exists()


def test_auto_is_opened_above_the_fuser(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setattr("cled_edge.backend.opener.available_backends", lambda: [REFERENCE, FP32])
    with closing(open_chosen("auto", bundle, size=SIZE)) as backend:
        assert (backend.facts.chosen or "").endswith("measured now")
        assert backend.choice in (REFERENCE, FP32)
    with closing(open_chosen("onnxruntime", bundle)) as backend:
        assert backend.facts.chosen is None
    with pytest.raises(OptionError, match=r"backend is auto, needed one by name; .* cled_edge\.select\.choose"):
        Fuser.load(backend="auto")
    with pytest.raises(OptionError, match="options of CUDA are given for backend auto; they are of backend tensorrt"):
        open_chosen("auto", bundle, cuda=CudaOptions("pycuda"))


@pytest.mark.parametrize(
    ("backend", "code", "words"),
    [
        ("auto", 0, "auto: onnxruntime:fp32, the only backend here"),
        ("openvino", 0, " cpu fp32, bundle nano"),
        ("abacus", 2, "error: backend 'abacus' is unknown; known: onnxruntime, "),
        ("onnxruntime:bf16", 2, "error: precision 'bf16' is not one of backend onnxruntime; it has fp32"),
    ],
)
def test_the_command_line_takes_a_backend(write_pairs, tmp_path, monkeypatch, capsys, backend, code, words) -> None:
    monkeypatch.setattr("cled_edge.backend.opener.available_backends", lambda: [REFERENCE])
    infrared, visible = write_pairs(("a",))
    fuse = ["cled-edge", "fuse", "--infrared", infrared, "--visible", visible, "--out", tmp_path / "out", "--steps", 1]
    monkeypatch.setattr("sys.argv", [*map(str, fuse), "--backend", backend])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    captured = capsys.readouterr()
    assert words in captured.out + captured.err
    assert "Traceback" not in captured.err
