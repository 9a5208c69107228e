"""Damaged and hostile bundles: whatever is in the folder, opening ends in an error of ours or with the right bytes.

FUZZ_CASES=20000 FUZZ_FIRST=100000 python -m pytest tests/bundle/test_fuzz.py

Cases are numbered, and a number gives the same case on every machine. A failure names it. What a runtime makes of
spoiled graphs is in test_fuzz_runs.py.
"""

import hashlib
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cled_edge.bundle.inspection import inspect_path
from cled_edge.bundle.manifest import GOLDEN_NAME
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.bundle.signature import write_key_pair, write_signature
from cled_edge.cli.signing import print_finding
from cled_edge.contract import Controls
from cled_edge.errors import CledEdgeError
from cled_edge.verify import Case, read_golden, write_golden

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes of POSIX")
pytest.importorskip("cryptography", reason="needs cryptography: pip install 'cled-edge[sign]'")
onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")

FUZZ_CASES, FUZZ_FIRST = int(os.environ.get("FUZZ_CASES", "2000")), int(os.environ.get("FUZZ_FIRST", "0"))
CASES_A_TEST = 100
PRINTED_EVERY = 13  # as printing tables takes half of the time; KINDS are so many that each has its turn
LIMIT_S = 5  # of processor time: other programs may be at work
LIMIT_BYTES = 2**30
NAMES = [
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "..\\secret",
    "a\0b",
    "",
    ".",
    "..",
    "CON",
    "manifest.json",
    "\ud800",
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 10**17, 10**30, 0.5, 1e308, "", "x", "\x1b[2J", "\ud800", "x" * 5000, [], {},
    [[]], {"a": 1}, [None] * 100, {"": ""}, NAMES[0],
]  # fmt: skip
TOKENS = [
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "[" * 10**5,
    "[" * 300 + "]" * 300,
    '{"a":' * 5000,
    '"\\u0000"',
    "1" * 19,
]

# Flips, cuts and repetitions of bytes ---------------------------------------------------------------------------------


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 8, 100))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def spliced(content: bytes, rng: random.Random) -> bytes:
    """Put one piece in the place of another, of any lengths."""
    a, b, c, d = sorted(rng.randrange(len(content)) for _ in range(4))
    return rng.choice((content[:a] + content[c:d] + content[b:], content[:b] + content[a:], content[:a] + content[d:]))


def stuffed(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.choice((1, 4, 64))) + content[at:]


BYTES: list[Callable[[bytes, random.Random], bytes]] = [flipped, cut, spliced, stuffed]

# Cases: each spoils a folder and says whether opening it must fail ----------------------------------------------------


@dataclass
class Spoiled:
    folder: Path
    rng: random.Random
    must_fail: bool = False
    refused: bool = False  # a graph, once it is to be run
    paths: list[Path] = field(default_factory=list)  # to inspect besides the folder

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    def graphs(self) -> list[Path]:
        return sorted(self.folder.glob("*.onnx"))

    def values(self) -> dict[str, Any]:
        return json.loads(self.manifest.read_text())

    def write(self, values: object) -> None:
        self.manifest.write_text(json.dumps(values))


def manifest_bytes(case: Spoiled) -> None:
    case.manifest.write_bytes(case.rng.choice(BYTES)(case.manifest.read_bytes(), case.rng))


def manifest_tree(case: Spoiled) -> None:
    values = case.values()
    for _ in range(case.rng.choice((1, 1, 3))):
        change_tree(values, case.rng)
    case.write(values)


def change_tree(values: dict[str, Any], rng: random.Random) -> None:
    """Give a node another type or name, take it away, or add one."""
    node: Any = values
    while node:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.2:
            break
        node = node[key]
    change = rng.randrange(4)
    if not node or change == 0:
        values["x"] = rng.choice(VALUES)
    elif change == 1:
        node[key] = rng.choice(VALUES)
    elif change == 2:
        del node[key]
    elif isinstance(node, list):
        node.insert(key, rng.choice(VALUES))
    else:
        node[rng.choice([*NAMES, "x"])] = node.pop(key)


def manifest_tokens(case: Spoiled) -> None:
    """Write what no JSON writer would in the place of a value."""
    text = case.manifest.read_text()
    at = case.rng.choice([k for k, c in enumerate(text) if c == ":"]) + 1
    end = min(k for k in (text.find(c, at) for c in ",}\n") if k > 0)
    case.manifest.write_text(text[:at] + case.rng.choice(TOKENS) + text[end:])


def manifest_twice(case: Spoiled) -> None:
    text = case.manifest.read_text()
    key, value = case.rng.choice(list(case.values().items()))
    case.manifest.write_text(f"{{{json.dumps(key)}: {json.dumps(value)}, {text.lstrip()[1:]}")
    case.must_fail = True


def many_keys(case: Spoiled) -> None:
    case.write(case.values() | {f"k{k}": 0 for k in range(case.rng.choice((*[10**3] * 9, 10**5)))})
    case.must_fail = True


def traversal(case: Spoiled) -> None:
    """Name the secret outside, with its true size and hash."""
    secret = (case.folder.parent / "secret").read_bytes()
    values = case.values()
    spec = {"bytes": len(secret), "sha256": hashlib.sha256(secret).hexdigest()}
    values["files"][case.rng.choice([*NAMES, str(case.folder.parent / "secret")])] = spec
    case.write(values)
    case.must_fail = True


def graph_bytes(case: Spoiled) -> None:
    graph = case.rng.choice(case.graphs())
    before = graph.read_bytes()
    graph.write_bytes(case.rng.choice(BYTES)(before, case.rng))
    case.must_fail = graph.read_bytes() != before
    case.paths.append(graph)


def graph_of_right_hash(case: Spoiled) -> None:
    """Spoil a graph and let the manifest agree: what the hash cannot find reaches the parser."""
    graph = case.rng.choice(case.graphs())
    content = case.rng.choice(BYTES)(graph.read_bytes(), case.rng)
    graph.write_bytes(content)
    values = case.values()
    values["files"][graph.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    case.write(values)
    case.paths.append(graph)


def swapped(case: Spoiled) -> None:
    one, other = case.rng.sample(case.graphs(), 2)
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)
    case.must_fail = True


def other_size(case: Spoiled) -> None:
    values = case.values()
    name = case.rng.choice(list(values["files"]))
    values["files"][name]["bytes"] = case.rng.choice((0, -1, 2**31, 10**17, 1))
    case.write(values)
    case.must_fail = True


def special(case: Spoiled) -> None:
    """Put something else in a file's place: a link to the same bytes, a pipe, a folder, a socket, a hole of 8 GiB."""
    path = case.rng.choice([case.manifest, *case.graphs()])
    kind = case.rng.randrange(7)
    twin = case.folder.parent / "twin"
    if kind <= 1:
        path.rename(twin)
        path.symlink_to(twin if kind else Path("..") / "twin")
    else:
        path.unlink()
    if kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        with path.open("wb") as file:
            file.truncate(2**33)
    elif kind == 5:
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(case.folder)  # an address may be no longer than 107 bytes
            server.bind(path.name)
            os.chdir(here)
    case.must_fail = True
    case.paths.append(path)


def signature(case: Spoiled) -> None:
    path = case.folder / "manifest.sig"
    kind = case.rng.randrange(8)
    if kind < 4:
        path.write_bytes(BYTES[kind](path.read_bytes(), case.rng))
    elif kind == 4:
        path.rename(case.folder.parent / "twin")
        path.symlink_to("../twin")
    else:
        path.unlink()
    if kind == 5:
        os.mkfifo(path)
    elif kind == 6:
        path.mkdir()


def plan(case: Spoiled) -> None:
    path = case.folder / case.rng.choice(("x.plan", "x.engine"))
    path.write_bytes(case.rng.choice((b"ftrt", b"")) + case.rng.randbytes(case.rng.randrange(100)))
    case.paths.append(path)


def checkpoint(case: Spoiled) -> None:
    record = {"format": "cled-edge-checkpoint-1", "config": '{"a": [1, 2]}', "training": "{}"}
    tensors = {f"w{k}": {"dtype": "F32", "shape": [2, 3], "data_offsets": [24 * k, 24 * k + 24]} for k in range(3)}
    values = {"__metadata__": record, **tensors}
    change = case.rng.choice([*BYTES, None])
    if change is None:
        change_tree(values, case.rng)
    header = json.dumps(values).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(72)
    path = case.folder / "x.safetensors"
    path.write_bytes(change(content, case.rng) if change else content)
    case.paths.append(path)


def golden(case: Spoiled) -> None:
    """Spoil golden data, its bytes or its header, and let the manifest agree."""
    path = case.folder / GOLDEN_NAME
    content = path.read_bytes()
    if case.rng.random() < 0.5:
        content = case.rng.choice(BYTES)(content, case.rng)
    else:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        cases = json.loads(header["__metadata__"]["cases"])
        change_tree(case.rng.choice((header, {"cases": cases})), case.rng)
        if isinstance(header.get("__metadata__"), dict):
            header["__metadata__"]["cases"] = json.dumps(cases)
        said = json.dumps(header).encode()
        content = struct.pack("<Q", len(said)) + said + content[8 + length :]
    rehashed(case, path, content)


def graph_tree(case: Spoiled) -> None:
    """Change the fields of a graph: external data, nodes of control, functions, shapes, names."""
    path = case.rng.choice(case.graphs())
    model = onnx.load_model_from_string(path.read_bytes())
    node, weight = model.graph.node[0], model.graph.initializer[0]
    kind = case.rng.randrange(8)
    if kind == 0:
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=case.rng.choice(NAMES[:5]).replace("\0", ""))
    elif kind == 1:
        node.op_type, node.domain = case.rng.choice((("Loop", ""), ("If", ""), ("Mul", "com.stranger")))
    elif kind == 2:
        node.attribute.append(onnx.helper.make_attribute("body", onnx.helper.make_graph([], "g", [], [])))
    elif kind == 3:
        model.functions.append(onnx.helper.make_function("d", "F", ["x"], ["y"], [node], []))
    elif kind == 4:
        del weight.dims[:]
        weight.dims.extend([case.rng.choice((2**31, 2**62, -1))] * 3)
    elif kind == 5:
        huge = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[2**40])
        node.attribute.append(onnx.helper.make_attribute("value", huge))
    elif kind == 6:
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[2**40]))
    else:
        weight.raw_data = struct.pack("<3f", 1, case.rng.choice((float("nan"), float("inf"))), 3)
    rehashed(case, path, model.SerializeToString())
    case.paths.append(path)
    case.refused = True


def rehashed(case: Spoiled, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    values = case.values()
    values["files"][path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    case.write(values)


KINDS = [
    *[manifest_bytes, manifest_tree] * 4,
    *[golden, graph_tree] * 3,
    *[graph_bytes, graph_of_right_hash, manifest_tokens, special, traversal, signature, checkpoint] * 2,
    *[manifest_twice, swapped, other_size, plan, many_keys],
]

# The guard: what is opened, as the interpreter itself reports it ------------------------------------------------------

_watched: list[tuple[str, int]] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in (
        "open",
        "os.listdir",
        "os.scandir",
        "os.remove",
        "os.rename",
        "socket.connect",
    ):
        path, flags = arguments[0], arguments[2] if event == "open" else 0
        if not isinstance(path, int):
            _watched.append((os.path.abspath(os.fsdecode(path)), flags))


sys.addaudithook(_audit)


@contextmanager
def guarded(folder: Path, *allowed: Path) -> Iterator[None]:
    """Fail if anything outside `folder` is opened, if a link would be followed, or after 5 s."""
    global _watched  # noqa: PLW0603 (a hook cannot be taken away, only told to look away)

    def too_long(number: int, frame: object) -> None:
        raise AssertionError(f"took over {LIMIT_S} s")

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    _watched = []
    try:
        yield
    finally:
        watched, _watched = _watched, None
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    for path, flags in watched:
        if Path(path) not in allowed:
            assert path == str(folder) or path.startswith(f"{folder}{os.sep}"), f"{path} was opened"
            assert path == str(folder) or flags & os.O_NOFOLLOW, f"{path}: a link would be followed"
            assert not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT), f"{path} was opened to be written"


# The bundle and the cases ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_key_pair(folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    """A signed bundle with the shipped one's manifest and small graphs."""
    folder = tmp_path_factory.mktemp("original") / "bundle"
    folder.mkdir()
    values = json.loads((shipped_bundle() / "manifest.json").read_text())
    values["training"] = {"commit": "abc"}  # most of its length is no structure
    values["verification"]["checks"] = values["verification"]["checks"][:1]
    for name in values["files"]:
        content = golden_bytes() if name == GOLDEN_NAME else small_graph(name)
        (folder / name).write_bytes(content)
        values["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(values))
    write_signature(folder, Bundle.open(folder).manifest_bytes, keys / "private.pem")
    for path in (folder, *folder.glob("*.onnx")):  # what is imported on first use is imported now
        inspect_path(path)
    return folder


def golden_bytes() -> bytes:
    """Return a golden case as export writes it, of a pair of 16x16 pixels."""
    infrared, visible = np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8)
    expected: dict[str, Any] = {"picture": visible, "infrared": infrared, "visible": visible}
    return write_golden([Case(infrared, visible, Controls(1), expected).sampled(0)])


def small_graph(name: str) -> bytes:
    helper, flat = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(n, flat, ["batch", 3]) for n in "xy")
    weight = helper.make_tensor("w", flat, [3], struct.pack("<3f", 1, 2, 3), raw=True)
    node = helper.make_node("Mul", ["x", "w"], ["y"], name=name)
    return helper.make_model(helper.make_graph([node], name, [x], [y], [weight])).SerializeToString()


@pytest.mark.parametrize("first", range(FUZZ_FIRST, FUZZ_FIRST + FUZZ_CASES, CASES_A_TEST))
def test_a_spoiled_bundle_is_refused_or_is_what_its_manifest_says(first: int, original: Path, keys: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT_BYTES, before[1]))
    try:
        for seed in range(first, min(first + CASES_A_TEST, FUZZ_FIRST + FUZZ_CASES)):
            try:
                check_case(seed, original, keys)
            except BaseException as error:
                error.add_note(f"case {seed}") if hasattr(error, "add_note") else None
                raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def check_case(seed: int, original: Path, keys: Path) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "bundle"
        folder.mkdir()
        for path in original.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder.parent / "secret").write_bytes(b"canary")
        case = Spoiled(folder, rng)
        KINDS[seed % len(KINDS)](case)

        opened = guarded_open(case, None)
        assert not (case.must_fail and opened), "opened, though it must not"
        trusted = guarded_open(case, keys / "public.pem")
        if trusted:
            assert trusted.manifest_bytes == (original / "manifest.json").read_bytes()
            assert (folder / "manifest.sig").read_bytes().strip() == (original / "manifest.sig").read_bytes().strip()
        if opened is not None:
            use(opened, case)
        finding = None
        with guarded(folder), ours():
            finding = inspect_path(folder)
        if finding:
            check_printable(finding.values, seed)
        if finding and not finding.failure:
            assert opened
        elif finding and finding.values["signature"]["state"] != "invalid":
            assert opened is None
        for path in case.paths:
            with ours():  # a path that the user types may be a link
                check_printable(inspect_path(path).values, seed)


def use(opened: Bundle, case: Spoiled) -> None:
    """Take what a runtime would take of a bundle: its graphs and golden pairs."""
    taken = []
    for name in opened.manifest.graphs:
        with guarded(case.folder), ours():
            taken.append(opened.graph(name))
    assert not (case.refused and len(taken) == len(opened.manifest.graphs)), "a graph was taken, though it must not"
    with guarded(case.folder), ours():
        read_golden(opened)


def check_printable(values: dict[str, Any], seed: int) -> None:
    """What was found is JSON, and printing it cannot rewrite a terminal."""
    json.dumps(values, allow_nan=False)
    if seed % PRINTED_EVERY:
        return
    printed = StringIO()
    print_finding(values, Console(file=printed, width=100))
    assert all(c.isprintable() or c == "\n" for c in printed.getvalue())


def guarded_open(case: Spoiled, key: Path | None) -> Bundle | None:
    """Open the case's folder; None if it was refused. What has opened has the bytes that the manifest promises."""
    opened = None
    with guarded(case.folder, *([key] if key else [])), ours():
        opened = Bundle.open(case.folder, public_key=key)
    if opened is None:
        return None
    assert opened.manifest_bytes == case.manifest.read_bytes()
    for name, spec in json.loads(opened.manifest_bytes)["files"].items():
        path = case.folder / name
        assert not path.is_symlink()
        assert path.resolve().parent == case.folder
        assert hashlib.sha256(path.read_bytes()).hexdigest() == spec["sha256"]
        assert opened._contents[name] == path.read_bytes()
    return opened


@contextmanager
def ours() -> Iterator[None]:
    """Let an error of ours pass, if it is one short line that cannot rewrite a terminal."""
    message = ""
    try:
        yield
    except CledEdgeError as error:
        message = str(error) or "\n"
    assert not message or message.isprintable()
    assert len(message) < 1000


def test_the_unspoiled_bundle_opens(original: Path, keys: Path) -> None:
    assert Bundle.open(original, public_key=keys / "public.pem")
    assert inspect_path(original).failure is None


def test_the_guard_sees_what_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "bundle").mkdir()
    with pytest.raises(AssertionError, match="secret was opened"), guarded(tmp_path / "bundle"):
        (tmp_path / "secret").read_bytes()
