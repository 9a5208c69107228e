"""Damaged and hostile bundles: whatever is in the folder, opening ends in an error of ours or with the right bytes.

FUZZ_CASES=2000 python -m pytest tests/bundle/test_fuzz.py
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

import pytest
from rich.console import Console

from cled_edge.bundle.inspection import inspect_path
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.bundle.signature import write_key_pair, write_signature
from cled_edge.cli.signing import print_finding
from cled_edge.errors import CledEdgeError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes of POSIX")
pytest.importorskip("cryptography", reason="needs cryptography: pip install 'cled-edge[sign]'")
onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")

FUZZ_CASES = int(os.environ.get("FUZZ_CASES", "300"))
LIMIT_S = 5
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
class Case:
    folder: Path
    rng: random.Random
    must_fail: bool = False
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


def manifest_bytes(case: Case) -> None:
    case.manifest.write_bytes(case.rng.choice(BYTES)(case.manifest.read_bytes(), case.rng))


def manifest_tree(case: Case) -> None:
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


def manifest_tokens(case: Case) -> None:
    """Write what no JSON writer would in the place of a value."""
    text = case.manifest.read_text()
    at = case.rng.choice([k for k, c in enumerate(text) if c == ":"]) + 1
    end = min(k for k in (text.find(c, at) for c in ",}\n") if k > 0)
    case.manifest.write_text(text[:at] + case.rng.choice(TOKENS) + text[end:])


def manifest_twice(case: Case) -> None:
    text = case.manifest.read_text()
    key, value = case.rng.choice(list(case.values().items()))
    case.manifest.write_text(f"{{{json.dumps(key)}: {json.dumps(value)}, {text.lstrip()[1:]}")
    case.must_fail = True


def many_keys(case: Case) -> None:
    case.write(case.values() | {f"k{k}": 0 for k in range(case.rng.choice((10**3, 10**5)))})
    case.must_fail = True


def traversal(case: Case) -> None:
    """Name the secret outside, with its true size and hash."""
    secret = (case.folder.parent / "secret").read_bytes()
    values = case.values()
    spec = {"bytes": len(secret), "sha256": hashlib.sha256(secret).hexdigest()}
    values["files"][case.rng.choice([*NAMES, str(case.folder.parent / "secret")])] = spec
    case.write(values)
    case.must_fail = True


def graph_bytes(case: Case) -> None:
    graph = case.rng.choice(case.graphs())
    before = graph.read_bytes()
    graph.write_bytes(case.rng.choice(BYTES)(before, case.rng))
    case.must_fail = graph.read_bytes() != before
    case.paths.append(graph)


def graph_of_right_hash(case: Case) -> None:
    """Spoil a graph and let the manifest agree: what the hash cannot find reaches the parser."""
    graph = case.rng.choice(case.graphs())
    content = case.rng.choice(BYTES)(graph.read_bytes(), case.rng)
    graph.write_bytes(content)
    values = case.values()
    values["files"][graph.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    case.write(values)
    case.paths.append(graph)


def swapped(case: Case) -> None:
    one, other = case.rng.sample(case.graphs(), 2)
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)
    case.must_fail = True


def other_size(case: Case) -> None:
    values = case.values()
    name = case.rng.choice(list(values["files"]))
    values["files"][name]["bytes"] = case.rng.choice((0, -1, 2**31, 10**17, 1))
    case.write(values)
    case.must_fail = True


def special(case: Case) -> None:
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


def signature(case: Case) -> None:
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


def plan(case: Case) -> None:
    path = case.folder / case.rng.choice(("x.plan", "x.engine"))
    path.write_bytes(case.rng.choice((b"ftrt", b"")) + case.rng.randbytes(case.rng.randrange(100)))
    case.paths.append(path)


def checkpoint(case: Case) -> None:
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


KINDS = [
    *[manifest_bytes, manifest_tree] * 4,
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

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    _watched = []
    try:
        yield
    finally:
        watched, _watched = _watched, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
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
    for name in values["files"]:
        content = small_graph(name)
        (folder / name).write_bytes(content)
        values["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(values))
    write_signature(folder, Bundle.open(folder).manifest_bytes, keys / "private.pem")
    for path in (folder, *folder.glob("*.onnx")):  # what is imported on first use is imported now
        inspect_path(path)
    return folder


def small_graph(name: str) -> bytes:
    helper, flat = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(n, flat, ["batch", 3]) for n in "xy")
    weight = helper.make_tensor("w", flat, [3], struct.pack("<3f", 1, 2, 3), raw=True)
    node = helper.make_node("Mul", ["x", "w"], ["y"], name=name)
    return helper.make_model(helper.make_graph([node], name, [x], [y], [weight])).SerializeToString()


@pytest.mark.parametrize("seed", range(FUZZ_CASES))
def test_a_spoiled_bundle_is_refused_or_is_what_its_manifest_says(seed: int, original: Path, keys: Path) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "bundle"
        folder.mkdir()
        for path in original.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder.parent / "secret").write_bytes(b"canary")
        case = Case(folder, rng)
        KINDS[seed % len(KINDS)](case)

        opened = guarded_open(case, None)
        assert not (case.must_fail and opened), "opened, though it must not"
        trusted = guarded_open(case, keys / "public.pem")
        if trusted:
            assert trusted.manifest_bytes == (original / "manifest.json").read_bytes()
            assert (folder / "manifest.sig").read_bytes().strip() == (original / "manifest.sig").read_bytes().strip()
        finding = None
        with guarded(folder), ours():
            finding = inspect_path(folder)
        if finding:
            check_printable(finding.values)
        if finding and not finding.failure:
            assert opened
        elif finding and finding.values["signature"]["state"] != "invalid":
            assert opened is None
        for path in case.paths:
            with ours():  # a path that the user types may be a link
                check_printable(inspect_path(path).values)


def check_printable(values: dict[str, Any]) -> None:
    """What was found is JSON, and printing it cannot rewrite a terminal."""
    json.dumps(values, allow_nan=False)
    printed = StringIO()
    print_finding(values, Console(file=printed, width=100))
    assert all(c.isprintable() or c == "\n" for c in printed.getvalue())


def guarded_open(case: Case, key: Path | None) -> Bundle | None:
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
