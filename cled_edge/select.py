"""`auto`: a short measurement of what this machine can run, kept for the next start."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cled_edge.backend.choice import AUTO, REFERENCE, BackendChoice
from cled_edge.backend.graph_cache import cache_name, read_cached, write_cached
from cled_edge.backend.opener import backend_type, backends_of, check_cuda, open_backend
from cled_edge.backend.protocol import Backend
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.bundle.reader import Bundle
from cled_edge.cpu import check_threads, instruction_sets, usable_cores
from cled_edge.errors import BackendError, EngineError
from cled_edge.fuser import Fuser
from cled_edge.metrics.psnr import psnr_db

if TYPE_CHECKING:
    from cled_edge.frame import FusedFrame

PROBE_SIZE = (480, 640)  # height, width; what `auto` measures at unless told the size of the frames
NEEDED_PSNR_DB = 40.0
ROUNDS, LEAST_ROUNDS, BUDGET_S = 5, 2, 2.0

Opener = Callable[[BackendChoice, Bundle, int], Backend]


@dataclass(frozen=True)
class Finding:
    """What was found of one candidate: its latency and agreement with the reference, or why it was refused.

    lacks_engine: it was refused for want of an engine that can be built any time.
    """

    median_ms: float | None = None
    agreement_db: float | None = None
    refused: str | None = None
    lacks_engine: bool = False


@dataclass(frozen=True)
class Verdict:
    """The backend to use, and why, in one line; nothing where it was named."""

    choice: BackendChoice
    line: str = ""


def open_chosen(
    choice: BackendChoice | str,
    bundle: Bundle,
    threads: int = 0,
    size: tuple[int, int] = PROBE_SIZE,
    cuda: CudaOptions | None = None,
) -> Backend:
    """Open the backend that is named; for `auto`, the one that `choose` finds at `size`, height and width.

    Raises what `open_backend` and `choose` raise. Why `auto` took it stands in the facts of the backend, as `chosen`.
    """
    choice = BackendChoice.parse(choice) if isinstance(choice, str) else choice
    check_threads(threads)
    check_cuda(choice, cuda)
    verdict = resolved(choice, bundle, threads, size)
    backend = open_backend(verdict.choice, bundle, threads, cuda)
    if verdict.line:
        backend.facts = replace(backend.facts, chosen=verdict.line)
    return backend


def resolved(choice: BackendChoice, bundle: Bundle, threads: int = 0, size: tuple[int, int] = PROBE_SIZE) -> Verdict:
    """Return the backend that is named, or what `choose` finds for `auto`."""
    return choose(bundle, threads, size) if choice.name == AUTO else Verdict(choice)


def choose(
    bundle: Bundle,
    threads: int = 0,
    size: tuple[int, int] = PROBE_SIZE,
    choices: Sequence[BackendChoice] | None = None,
    opener: Opener = open_backend,
) -> Verdict:
    """Return the fastest of `choices` (None: all that this machine can run), by whole calls at `size`, height, width.

    Each must agree with ONNX Runtime in fp32 to 40 dB on a rendered pair, in all three pictures. The runs take about
    2 s, compiling comes on top. What was found is kept for this bundle, SDK versions, CPU, threads and size.
    """
    candidates = backends_of(bundle) if choices is None else list(choices)
    if candidates == [REFERENCE]:
        return Verdict(REFERENCE, f"auto: {REFERENCE}, the only backend here")
    name = _cache_name(bundle, threads, size, candidates)
    kept = read_cached(name)
    if kept is not None:
        return _verdict({key: Finding(**values) for key, values in json.loads(kept).items()}, size, "measured earlier")
    findings = _measure(bundle, threads, size, candidates, opener)
    if not any(finding.lacks_engine for finding in findings.values()):
        write_cached(name, json.dumps({key: asdict(finding) for key, finding in findings.items()}).encode())
    return _verdict(findings, size, "measured now")


def worst_psnr_db(fused: "FusedFrame", other: "FusedFrame") -> float:
    """Return the PSNR of the worst of two results' three images, in dB; infinity if all are equal."""
    pairs = (fused.picture, other.picture), (fused.infrared, other.infrared), (fused.visible, other.visible)
    return min(psnr_db(one, two) for one, two in pairs)


def _measure(
    bundle: Bundle, threads: int, size: tuple[int, int], candidates: Sequence[BackendChoice], opener: Opener
) -> dict[str, Finding]:
    """Run every candidate once to compare its pictures, then those that agree in turns to time them."""
    pair = _rendered_pair(size)
    findings, agreement_db, fusers = {}, {}, {}
    with ExitStack() as stack:
        reference = stack.enter_context(Fuser(bundle, opener(REFERENCE, bundle, threads)))
        expected = reference(*pair)
        for choice in candidates:
            try:
                backend = opener(choice, bundle, threads) if choice != REFERENCE else reference.backend
                fuser = Fuser(bundle, stack.enter_context(closing(backend)))
                agreement_db[choice] = worst_psnr_db(fuser(*pair), expected)
            except (BackendError, EngineError) as error:
                findings[str(choice)] = Finding(refused=str(error), lacks_engine=isinstance(error, EngineError))
                continue
            if agreement_db[choice] >= NEEDED_PSNR_DB:
                fusers[choice] = fuser
            else:
                words = f"it agrees with {REFERENCE} to {agreement_db[choice]:.1f} dB, needed {NEEDED_PSNR_DB:g}"
                findings[str(choice)] = Finding(refused=words)
        for choice, median_ms in _medians_ms(fusers, pair).items():
            findings[str(choice)] = Finding(median_ms, agreement_db[choice])
    return findings


def _rendered_pair(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from cled_edge.scene.night_street import MIN_SIDE_PX, night_street  # noqa: PLC0415  needed only when measuring

    height, width = size
    scene = next(iter(night_street(1, (max(height, MIN_SIDE_PX), max(width, MIN_SIDE_PX)))))
    return scene.infrared[:height, :width], scene.visible[:height, :width]


def _medians_ms(
    fusers: dict[BackendChoice, Fuser], pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> dict[BackendChoice, float]:
    """Time whole calls in turns, so that a busy moment of the machine meets all candidates alike."""
    times_ms: dict[BackendChoice, list[float]] = {choice: [] for choice in fusers}
    begin = time.perf_counter()
    for index in range(ROUNDS):
        if index >= LEAST_ROUNDS and time.perf_counter() - begin > BUDGET_S:
            break
        for choice, fuser in fusers.items():
            start = time.perf_counter()
            fuser(*pair)
            times_ms[choice].append((time.perf_counter() - start) * 1e3)
    return {choice: round(median(values), 1) for choice, values in times_ms.items()}


def _verdict(findings: dict[str, Finding], size: tuple[int, int], when: str) -> Verdict:
    """Pick the lowest median; BackendError if all were refused."""
    refused = "".join(f"; refused {name}: {finding.refused}" for name, finding in findings.items() if finding.refused)
    ranked = sorted((f.median_ms, name) for name, f in findings.items() if f.median_ms is not None)
    if not ranked:
        raise BackendError(f"auto found no backend that agrees with {REFERENCE}{refused}; choose one by name")
    medians = ", ".join(f"{name} {median_ms:.0f} ms" for median_ms, name in ranked)
    best = ranked[0][1]
    line = (
        f"auto: {best}, as medians at {size[0]}x{size[1]} are {medians}; "
        f"it agrees with {REFERENCE} to {findings[best].agreement_db:.1f} dB{refused}; {when}"
    )
    return Verdict(BackendChoice.parse(best), line)


def _cache_name(bundle: Bundle, threads: int, size: tuple[int, int], candidates: Sequence[BackendChoice]) -> str:
    """Name what was found by all that a latency depends on and that can be known."""
    sources = sorted((name, spec.sha256) for name, spec in bundle.manifest.files.items())
    versions = [(str(choice), backend_type(choice.name).sdk(choice.name)) for choice in candidates]
    return cache_name("json", (sources, versions, instruction_sets(), usable_cores(), threads, size))
