"""Engines on disk: found by all that they depend on, and verified before anybody deserialises them.

`open_engine` finds the one that was built with given options, `pick_engine` the one to run at a size. A folder holds
`<graph>-<key>.engine`, the plan as TensorRT wrote it, and `<graph>-<key>.build.json` beside it. A plan is a program:
the hash in the sidecar finds damage, not malice, so a folder that any user may write is refused.
"""

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from cled_edge.backend.graph_cache import ENGINES_VARIABLE, cache_folder
from cled_edge.backend.tensorrt.build_options import RECIPE, USUAL_LEVEL, BuildOptions
from cled_edge.backend.tensorrt.build_record import RECORD_VERSION, BuildRecord, engine_key
from cled_edge.backend.tensorrt.device import DeviceFacts
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import EngineError, OutputError, wanted_text
from cled_edge.files import Reader, make_folder, write_whole
from cled_edge.json_text import MAX_JSON_BYTES, first_problem, json_from_bytes, shown
from cled_edge.ownership import why_not_ours
from cled_edge.size import Size, size_text

ENGINE_SUFFIX = ".engine"
RECORD_SUFFIX = ".build.json"
OTHER_FOLDER = "choose another folder for engines"
MAX_PLAN_BYTES = 4 * 2**30
_KEY_DIGITS = 16
_MOST_RECORDS = 256  # that are read of a graph
_FACTS = {  # of an engine's key, in words
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "sm": "SM",
    "multiprocessors": "number of SMs",
    "memory_gib": "memory in GiB",
    "power_mode": "power mode",
    "driver_major": "CUDA driver",
    "cuda": "CUDA",
    "os": "OS",
    "arch": "CPU",
}
_LOG = logging.getLogger(__name__)

Differing = Callable[[BuildOptions], list[str]]  # what an engine's options say that does not fit


def default_folder() -> Path:
    """Return the folder that CLED_EDGE_ENGINES names, or else `engines` in the user's cache folder."""
    chosen = os.environ.get(ENGINES_VARIABLE)
    return Path(chosen) if chosen else cache_folder() / "engines"


def engine_paths(folder: Path, graph: str, key: str) -> tuple[Path, Path]:
    """Return where the plan and its sidecar of a key are."""
    stem = f"{graph}-{key[:_KEY_DIGITS]}"
    return folder / f"{stem}{ENGINE_SUFFIX}", folder / f"{stem}{RECORD_SUFFIX}"


def open_engine(
    bundle: Bundle, graph_name: str, options: BuildOptions, facts: DeviceFacts, folder: Path | None = None
) -> tuple[bytes, BuildRecord]:
    """Return the plan of a graph that was built with `options` for this device, and its sidecar.

    folder: None is `default_folder`. EngineError says what differs (graph, options, TensorRT, GPU, driver, system),
    or that it is absent, truncated or altered, and what to build.
    """
    folder = default_folder() if folder is None else folder
    wanted = wanted_options(bundle, graph_name, options, folder)
    sha256 = graph_sha256(bundle, graph_name)
    key = engine_key(sha256, options, facts)
    record_path = engine_paths(folder, graph_name, key)[1]
    if not os.path.lexists(record_path):
        differing = partial(_options_differ, needed=options)
        raise EngineError(_why_none(bundle, graph_name, facts, folder, sha256, differing), wanted)
    return _verified(record_path, read_record(record_path, wanted), graph_name, wanted)


def pick_engine(
    bundle: Bundle,
    graph_name: str,
    size: Size,
    facts: DeviceFacts,
    folder: Path | None = None,
    binding: str = "cuda",
) -> tuple[bytes, BuildRecord]:
    """Return the plan to run a graph with at `size` (height, width) on this device, and its sidecar.

    With whatever options it was built: one of just this size before one of a range, and of these the one that
    `cled-edge build` made or was asked for last. A sidecar that cannot be read is left out, with a warning; if none
    fits, EngineError says why, and what to build with the usual options.
    """
    folder = default_folder() if folder is None else folder
    usual = BuildOptions(precision=bundle.manifest.graphs[graph_name].precision, size=size)
    wanted = wanted_options(bundle, graph_name, usual, folder)
    if binding != "cuda":  # whose CUDA, which is a fact, may be another
        wanted["cuda_binding"] = binding
    sha256 = graph_sha256(bundle, graph_name)
    differing = partial(_sizes_differ, size=size)
    fitting, unread = [], []
    for path in _record_paths(folder, graph_name):
        try:
            record = read_record(path, wanted)
        except EngineError as error:
            unread.append(error)
            continue
        if not _differences(record, bundle, facts, sha256, differing):
            fitting.append((record.options.size is not None, path.stat().st_mtime_ns, path, record))
    if not fitting:
        if unread:
            raise unread[0]
        raise EngineError(_why_none(bundle, graph_name, facts, folder, sha256, differing), wanted)
    for problem in unread:
        _LOG.warning("left out: %s", problem)
    _, _, path, record = max(fitting)  # no two have the same path
    return _verified(path, record, graph_name, wanted)


def current_record(
    bundle: Bundle, graph_name: str, options: BuildOptions, facts: DeviceFacts, folder: Path
) -> BuildRecord | None:
    """Return the sidecar of an engine that fits and is whole; None if there is none.

    It then counts as the last one asked for, see `pick_engine`.
    """
    try:
        record = open_engine(bundle, graph_name, options, facts, folder)[1]
    except EngineError:
        return None
    engine_paths(folder, graph_name, record.key)[1].touch()
    return record


def read_record(path: Path, wanted: Mapping[str, str]) -> BuildRecord:
    """Return a sidecar; EngineError, ending in what to build, if it is none of this release."""
    with _wanting(wanted) as todo:
        content = Reader(EngineError, EngineError, todo).read(path, MAX_JSON_BYTES)
    try:
        values = json_from_bytes(content)
    except ValueError as error:
        raise EngineError(f"{path} is not JSON ({shown(error, 120)})", wanted) from error
    version = values.get("record_version") if isinstance(values, dict) else None
    if version != RECORD_VERSION:
        raise EngineError(f"{path} has record version {shown(repr(version))}, needed {RECORD_VERSION}", wanted)
    try:
        return BuildRecord.model_validate(values)
    except ValidationError as error:
        raise EngineError(f"{path}: {first_problem(error)}", wanted) from error


def write_engine(folder: Path, plan: bytes, record: BuildRecord) -> Path:
    """Write a plan, then its sidecar, each whole or not at all; return the plan's path.

    An old sidecar goes first: a plan never lies beside one that describes another. OutputError if it cannot be written.
    """
    plan_path, record_path = engine_paths(folder, record.graph.name, record.key)
    make_folder(folder, todo=OTHER_FOLDER, private=True)
    try:
        record_path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{record_path} cannot be replaced: {error.strerror}; {OTHER_FOLDER}") from error
    write_whole(plan_path, plan, todo=OTHER_FOLDER, private=True)
    write_whole(record_path, record.model_dump_json(indent=2) + "\n", todo=OTHER_FOLDER, private=True)
    return plan_path


def graph_sha256(bundle: Bundle, graph_name: str) -> str:
    """Return the hash of a graph's bytes, which the bundle has verified; EngineError if there is no such graph."""
    graph = bundle.manifest.graphs.get(graph_name)
    if graph is None:
        known = ", ".join(bundle.manifest.graphs)
        raise EngineError(f"{bundle.path} has no graph {shown(repr(graph_name))}, only {known}; name one of these")
    return bundle.manifest.files[graph.file].sha256


def wanted_options(bundle: Bundle, graph_name: str, options: BuildOptions, folder: Path) -> dict[str, str]:
    """Return how this engine is built: the names and values of options that are not the usual ones."""
    found = {"bundle": str(bundle.path), "graphs": graph_name, "precision": options.precision}
    if options.size is not None:
        found["size"] = size_text(options.size)
    else:
        found["profile"] = str(options.profile)
    if options.opset is not None:
        found["opset"] = str(options.opset)
    if options.max_aux_streams != BuildOptions(size=(1, 1)).max_aux_streams:
        found["max_aux_streams"] = str(options.max_aux_streams)
    if options.tf32:
        found["tf32"] = "yes"
    if options.workspace_mib is not None:
        found["workspace_mib"] = str(options.workspace_mib)
    if options.level != USUAL_LEVEL:
        found["optimization_level"] = str(options.level)
    if folder != default_folder():
        found["engines"] = str(folder)
    return found


def check_private(*paths: Path) -> None:
    """Raise EngineError for what another user could write: a plan is a program that runs as whoever loads it."""
    for path in paths:
        others = why_not_ours(path)
        if others:
            raise EngineError(
                f"{path} is not yours alone: {others}, and an engine is a program; make sure that it is what you "
                f"built, then own it and: chmod go-w {shlex.quote(str(path))}"
            )


@contextmanager
def _wanting(wanted: Mapping[str, str]) -> Iterator[str]:
    """Give an EngineError of a reader the engine that it is to be replaced by; yield the end of its message."""
    try:
        yield f"build it: {wanted_text(wanted)}"
    except EngineError as error:
        error.wanted = dict(wanted)
        raise


def _verified(path: Path, record: BuildRecord, graph_name: str, wanted: Mapping[str, str]) -> tuple[bytes, BuildRecord]:
    """Return the plan of a sidecar, and the sidecar; EngineError if either was altered, or may be written by others."""
    plan_path, record_path = engine_paths(path.parent, graph_name, record.key)
    check_private(path.parent, plan_path, record_path)
    if (
        path != record_path
        or engine_key(record.graph.sha256, record.options, record.facts, record.recipe) != record.key
    ):
        raise EngineError(f"{path} does not describe the engine that its name says: it was altered", wanted)
    plan = record.plan
    if plan.bytes > MAX_PLAN_BYTES:
        raise EngineError(f"{plan_path} has {plan.bytes} bytes, needed {MAX_PLAN_BYTES} at most", wanted)
    with _wanting(wanted) as todo:
        reader = Reader(EngineError, EngineError, todo)
        return reader.verified(plan_path, plan.bytes, plan.sha256, "its build.json says", todo), record


def _why_none(
    bundle: Bundle, graph_name: str, facts: DeviceFacts, folder: Path, sha256: str, differing: Differing
) -> str:
    """Say in what the most similar engine of this graph differs from what is needed."""
    differences = []
    for path in _record_paths(folder, graph_name):
        with suppress(EngineError):  # it is no candidate then, and only the message would gain
            found = _differences(read_record(path, {}), bundle, facts, sha256, differing)
            differences += [(found, path)] if found else []
    if not differences:
        return f"{folder} has no engine of {graph_name} for {facts.gpu}, TensorRT {facts.tensorrt}"
    found, path = min(differences, key=lambda entry: len(entry[0]))
    return f"{path.name.removesuffix(RECORD_SUFFIX)}{ENGINE_SUFFIX} in {folder} is for {'; '.join(found)}"


def _record_paths(folder: Path, graph_name: str) -> list[Path]:
    """Return the newest sidecars of a graph."""
    paths = folder.glob(f"{graph_name}-{'[0-9a-f]' * _KEY_DIGITS}{RECORD_SUFFIX}") if folder.is_dir() else ()
    return sorted(paths, key=lambda path: path.lstat().st_mtime_ns, reverse=True)[:_MOST_RECORDS]


def _differences(
    record: BuildRecord, bundle: Bundle, facts: DeviceFacts, sha256: str, differing: Differing
) -> list[str]:
    """Return "TensorRT 10.3.0, here it is 10.16.1.11" and the like."""
    found = []
    if record.graph.sha256 != sha256:
        other = f" (bundle {shown(record.graph.bundle, 40)})" if record.graph.bundle != bundle.manifest.name else ""
        found.append(f"graph {record.graph.sha256[:12]}...{other}, the bundle has {sha256[:12]}...")
    seen, here = record.facts.key_values(), facts.key_values()
    unlike = (name for name in seen if seen[name] != here[name])
    found += [f"{_FACTS[name]} {shown(_told(seen[name]), 60)}, here it is {_told(here[name])}" for name in unlike]
    if record.recipe != RECIPE:
        found.append(f"recipe {record.recipe} of the builder, here it is {RECIPE}")
    return found + differing(record.options)


def _told(fact: object) -> object:
    return "not told" if fact is None else fact


def _options_differ(built: BuildOptions, needed: BuildOptions) -> list[str]:
    seen = built.key_values()
    return [
        f"{name} {shown(seen[name], 90)}, needed {value}"
        for name, value in needed.key_values().items()
        if seen[name] != value
    ]


def _sizes_differ(built: BuildOptions, size: Size) -> list[str]:
    if built.takes(size):
        return []
    return [f"size {size_text(built.size) if built.size else built.profile}, needed {size_text(size)}"]
