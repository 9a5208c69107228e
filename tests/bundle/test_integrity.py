"""Signatures, inspect and the schema: what is refused, in which words, with which exit code, and before what."""

import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cled_edge.bundle.inspection import inspect_path
from cled_edge.bundle.reader import Bundle, shipped_bundle
from cled_edge.bundle.signature import check_signature, read_public_key, write_key_pair, write_signature
from cled_edge.errors import (
    BundleCorruptError,
    BundleMissingError,
    BundleVersionError,
    CheckpointError,
    OptionError,
    OutputError,
    SignatureError,
    SourceMissingError,
)
from cled_edge.files import is_plain_name
from cled_edge.json_text import json_from_bytes, shown
from export.schema import SCHEMA_FILE, schema_text

posix = pytest.mark.skipif(os.name == "nt", reason="needs links and pipes of POSIX")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cled_edge.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'cled-edge[sign]'")
    write_key_pair(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def signed(copy: Path, keys: Path) -> Path:
    write_signature(copy, Bundle.open(copy).manifest_bytes, keys / "private.pem")
    return copy


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


# Signatures


def test_a_signed_bundle_opens_with_its_key(signed: Path, keys: Path) -> None:
    opened = Bundle.open(signed, public_key=keys / "public.pem")
    assert opened.manifest_bytes == (signed / "manifest.json").read_bytes()
    assert Bundle.open(signed).manifest == opened.manifest


def test_the_signature_is_that_of_openssl_too(signed: Path, keys: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    *_, key, value = (signed / "manifest.sig").read_text().split()
    raw = signed / "raw.sig"
    raw.write_bytes(bytes.fromhex(value))
    files = "-rawin", "-in", str(signed / "manifest.json"), "-sigfile", str(raw)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys / "public.pem"), *files]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    der = ["openssl", "pkey", "-pubin", "-in", str(keys / "public.pem"), "-outform", "DER"]
    whole = subprocess.run(der, check=True, capture_output=True).stdout
    values = inspect_path(signed).values["signature"]
    assert values["fingerprint"] == hashlib.sha256(whole).hexdigest()
    assert whole.endswith(bytes.fromhex(key))


def test_an_altered_manifest_is_refused_before_it_is_parsed(signed: Path, keys: Path) -> None:
    (signed / "manifest.json").write_text("{ this is not JSON")
    with pytest.raises(SignatureError, match="does not sign this manifest"):
        Bundle.open(signed, public_key=keys / "public.pem")
    with pytest.raises(BundleCorruptError, match="is not JSON"):
        Bundle.open(signed)


def test_an_altered_file_of_a_signed_bundle_is_refused_by_its_hash(signed: Path, keys: Path) -> None:
    graph = signed / "fusion.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleCorruptError, match="has SHA-256"):
        Bundle.open(signed, public_key=keys / "public.pem")


def test_a_missing_signature_and_another_key_are_refused(copy: Path, keys: Path, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"is not signed, manifest\.sig does not exist; sign the bundle with"):
        Bundle.open(copy, public_key=keys / "public.pem")
    write_key_pair(tmp_path / "others")
    write_signature(copy, Bundle.open(copy).manifest_bytes, tmp_path / "others" / "private.pem")
    with pytest.raises(SignatureError, match=r"is of key \w{16}\.\.\., needed \w{16}\.\.\. of .*public\.pem"):
        Bundle.open(copy, public_key=keys / "public.pem")
    with pytest.raises(SignatureError, match="is not signed"):
        Bundle.open(public_key=keys / "public.pem")


def test_a_claim_of_the_right_key_is_not_enough(copy: Path, keys: Path, tmp_path: Path) -> None:
    write_key_pair(tmp_path / "others")
    write_signature(copy, Bundle.open(copy).manifest_bytes, tmp_path / "others" / "private.pem")
    head, name, _, value = (copy / "manifest.sig").read_text().split()
    (copy / "manifest.sig").write_text(f"{head} {name} {read_public_key(keys / 'public.pem').hex()} {value}\n")
    with pytest.raises(SignatureError, match="does not sign this manifest"):
        Bundle.open(copy, public_key=keys / "public.pem")


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda line: b"",
    "truncated": lambda line: line[:-20],
    "twice": lambda line: line * 2,
    "other version": lambda line: line.replace(b"-1 ", b"-2 "),
    "no hexadecimal": lambda line: line[:-10] + b"g" * 9 + b"\n",
    "binary": lambda line: bytes(range(256)),
    "large": lambda line: b"0" * 10**6,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_signature_is_refused(case: str, signed: Path, keys: Path) -> None:
    path = signed / "manifest.sig"
    path.write_bytes(MALFORMED[case](path.read_bytes()))
    with pytest.raises(SignatureError, match=r"needed the line|needed 65536 at most"):
        Bundle.open(signed, public_key=keys / "public.pem")


@posix
def test_a_signature_that_is_a_link_or_a_pipe_is_refused(signed: Path, keys: Path) -> None:
    path = signed / "manifest.sig"
    path.rename(signed / "real.sig")
    path.symlink_to("real.sig")
    with pytest.raises(SignatureError, match="is a symbolic link, needed a regular file"):
        Bundle.open(signed, public_key=keys / "public.pem")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SignatureError, match="is a pipe"):
        Bundle.open(signed, public_key=keys / "public.pem")


def other_key(folder: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    key, pem = generate_private_key(SECP256R1()), s.Encoding.PEM
    private, public = folder / "ec-private.pem", folder / "ec-public.pem"
    private.write_bytes(key.private_bytes(pem, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_keys_that_are_none_are_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    content = Bundle.open(signed).manifest_bytes
    private, public = other_key(tmp_path)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN PUBLIC KEY-----\n!!!\n")
    for key, words in (
        (keys / "private.pem", "is a private key, needed the public one"),
        (keys / "none.pem", "does not exist; make a pair with: cled-edge keygen DIR"),
        (keys, "is a folder, needed a regular file"),
        (garbage, "is not a public key in PEM"),
        (public, "needed one of Ed25519"),
    ):
        with pytest.raises(SignatureError, match=words):
            check_signature(signed, content, key)
    for key, words in (
        (keys / "public.pem", "is not a private key in PEM"),
        (keys / "none.pem", "does not exist"),
        (garbage, "is not a private key in PEM"),
        (private, "needed one of Ed25519"),
    ):
        with pytest.raises(SignatureError, match=words):
            write_signature(signed, content, key)


def test_an_encrypted_private_key_says_how_to_decrypt_it(signed: Path, keys: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key((keys / "private.pem").read_bytes(), None)
    locked = keys / "locked.pem"
    locked.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x")))
    with pytest.raises(SignatureError, match=r"is encrypted, needed a plain key; decrypt it with: openssl pkey -in"):
        write_signature(signed, b"", locked)


def test_without_the_package_a_required_signature_is_refused(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(SignatureError, match=r"pip install 'cled-edge\[sign\]'"):
        Bundle.open(signed, public_key=keys / "public.pem")
    finding = inspect_path(signed)
    assert finding.values["signature"]["state"] == "unchecked"
    assert Bundle.open(signed).manifest


def test_key_pairs_are_private_and_never_overwritten(keys: Path) -> None:
    if os.name != "nt":
        assert stat.S_IMODE((keys / "private.pem").stat().st_mode) == 0o600
    before = (keys / "private.pem").read_bytes()
    with pytest.raises(OutputError, match="exists; choose another folder, keys are never overwritten"):
        write_key_pair(keys)
    assert (keys / "private.pem").read_bytes() == before


# What a bundle may not hold


@posix
@pytest.mark.parametrize("name", ["manifest.json", "fusion.onnx"])
def test_links_pipes_and_folders_are_refused_at_once(name: str, copy: Path) -> None:
    path = copy / name
    path.rename(copy / "elsewhere")
    path.symlink_to("elsewhere")
    with pytest.raises(BundleCorruptError, match=rf"{name} is a symbolic link, needed a regular file"):
        Bundle.open(copy)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleCorruptError, match=rf"{name} is a pipe"):
        Bundle.open(copy)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleCorruptError, match=rf"{name} is a folder"):
        Bundle.open(copy)


def test_a_huge_file_is_never_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fusion.onnx", "manifest.json"):
        with (copy / name).open("ab") as file:
            file.truncate(2**33)  # a hole: it takes no room on the disk
        with pytest.raises(BundleCorruptError, match=rf"{name} has {2**33} bytes"):
            Bundle.open(copy)


def test_a_bundle_that_states_too_much_is_refused(copy: Path) -> None:
    edit(copy, lambda m: m["files"]["fusion.onnx"].update(bytes=2**31))
    with pytest.raises(BundleCorruptError, match=r"states \d+ bytes in all, needed 900000000 at most"):
        Bundle.open(copy)


BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "x ",
    "x.",
    ".x",
    "NUL",
    "com1.onnx",
    "é",
    "x" * 129,
]


@pytest.mark.parametrize("name", [*BAD_NAMES, "manifest.json", "MANIFEST.SIG"])
def test_names_that_are_not_plain_are_refused(name: str, copy: Path) -> None:
    assert not is_plain_name(name) or name.lower().startswith("manifest")
    edit(copy, lambda m: m["files"].update({name: m["files"]["fusion.onnx"]}))
    with pytest.raises(BundleCorruptError, match="own folder, with plain names"):
        Bundle.open(copy)


def test_plain_names_are_plain() -> None:
    for name in ("a", "unet_step.onnx", "unet-step.fp16.onnx", "x" * 128, "null", "company.onnx"):
        assert is_plain_name(name)


BAD_JSON = {
    '{"a": 1, "a": 2}': "key 'a' is given twice",
    '{"a": NaN}': "NaN is not a finite number",
    '{"a": -Infinity}': "-Infinity is not a finite number",
    '{"a": 1e999}': "1e999 is not a finite number",
    '{"a": ' + "9" * 5000 + "}": "a number has 5000 digits, over 18",
    "[" * 65 + "]" * 65: "nested over 64 levels",
    "[" * 10**5 + "]" * 10**5: "nested over 64 levels",
    '{"a": ' * 10**5: "nested over 64 levels",
    '{"a": "\\u001b[2J"}': r"text with control characters: '\x1b[2J'",
    '{"\\ud800": 1}': r"text with control characters: '\ud800'",
    '["\\u202e"]': "text with control characters",
    "": "Expecting value",
    "{": "Expecting property name",
    "\ufeff{}": "BOM",
}


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: text[:20] or "empty")
def test_json_beyond_the_limits_is_refused(text: str, copy: Path) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are compared below)
        json_from_bytes(text.encode())
    assert BAD_JSON[text] in str(caught.value)
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleCorruptError, match="is not JSON"):
        Bundle.open(copy)


def test_json_within_the_limits_is_what_json_says() -> None:
    text = json.dumps({"a": [1, -2.5, "é\n\t", None, True, 10**17], "b": {"c": {}}})
    assert json_from_bytes(text.encode()) == json.loads(text)
    with pytest.raises(ValueError, match="codec can't decode"):
        json_from_bytes(json.dumps("é", ensure_ascii=False).encode("latin-1"))
    assert json_from_bytes(b"[" * 63 + b"]" * 63)


def test_what_strangers_wrote_is_shown_on_one_line() -> None:
    assert shown("a\x1b[2J\nb") == r"a\x1b[2J\nb"
    assert shown("x" * 100, 10) == "xxxxxxx..."
    assert shown("\x1b" * 10, 10) == r"\x1b\x1..."


# inspect


def test_inspect_says_what_a_bundle_is(signed: Path, keys: Path) -> None:
    (signed / "notes.txt").write_text("mine")
    values = inspect_path(signed).values
    assert inspect_path(signed).failure is None
    assert (values["kind"], values["name"], values["unnamed"]) == ("bundle", "nano", ["notes.txt"])
    assert {row["verdict"] for row in values["files"].values()} == {"ok"}
    tensors = {t["name"] for graph in values["graphs"] for t in (*graph["inputs"], *graph["outputs"])}
    assert {"x_t", "residual", "fused"} <= tensors
    assert {check["verdict"] for check in values["verification"]["checks"]} == {"OK"}
    assert values["training"]["commit"]
    assert (values["signature"]["state"], values["signature"]["trusted"]) == ("valid", False)
    trusted = inspect_path(signed, keys / "public.pem").values["signature"]
    assert (trusted["state"], trusted["trusted"]) == ("valid", True)
    json.dumps(values, allow_nan=False)


def test_inspect_gives_a_verdict_on_every_file_and_the_first_error(copy: Path) -> None:
    (copy / "fusion.onnx").write_bytes(b"short")
    (copy / "unet_step.onnx").unlink()
    finding = inspect_path(copy)
    verdicts = {name: row["verdict"] for name, row in finding.values["files"].items()}
    assert "has 5 bytes, its manifest says" in verdicts["fusion.onnx"]
    assert "does not exist" in verdicts["unet_step.onnx"]
    assert isinstance(finding.failure, BundleMissingError)
    assert finding.values["signature"]["state"] == "unsigned"


def test_inspect_tells_an_invalid_signature(signed: Path) -> None:
    edit(signed, lambda m: m.update(name="other"))
    finding = inspect_path(signed)
    assert finding.values["signature"]["state"] == "invalid"
    assert isinstance(finding.failure, SignatureError)


def test_inspect_reads_an_onnx_graph() -> None:
    pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    values = inspect_path(shipped_bundle() / "fusion.onnx").values
    assert values["opset"]["ai.onnx"] == 17
    assert values["inputs"][0] == {"name": "infrared", "dtype": "float", "shape": ["batch", 3, "height", "width"]}
    assert [t["name"] for t in values["outputs"]] == ["fused"]
    assert values["nodes"]["Conv"] > 10
    row = values["initialisers"]["float"]
    assert row["bytes"] == 4 * row["elements"]
    assert values["external_initialisers"] == 0


def test_inspect_counts_external_data_and_opens_none(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[10**6], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    path = tmp_path / "external.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    values = inspect_path(path).values
    assert values["external_initialisers"] == 1
    assert values["initialisers"]["float"] == {"tensors": 1, "elements": 10**6, "bytes": 0}


def test_inspect_needs_onnx_for_a_graph_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OptionError, match=r"a package that is missing .*; pip install onnx"):
        inspect_path(shipped_bundle() / "fusion.onnx")


def test_inspect_refuses_what_is_no_onnx_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
    for content in (b"", b"\xff" * 100, b"not a protobuf"):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(BundleCorruptError, match="is not an ONNX graph"):
            inspect_path(tmp_path / "x.onnx")


def test_inspect_takes_a_plan_by_its_first_bytes(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan"
    content = b"ftrt" + bytes(20) + bytes([10, 3, 0, 30]) + b"\x80" * 1000
    plan.write_bytes(content)
    values = inspect_path(plan).values
    assert (values["bytes"], values["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (values["magic"], values["magic_is_tensorrt"], values["version_hint"]) == ("66747274", True, "10.3.0.30")
    for other in (b"", b"ftrt", b"{json" + content, b"ftrt\1" + content[5:]):
        plan.with_suffix(".engine").write_bytes(other)
        assert inspect_path(plan.with_suffix(".engine")).values["version_hint"] is None


def checkpoint(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_inspect_reads_a_checkpoint_by_its_header(tmp_path: Path) -> None:
    record = {"format": "cled-edge-checkpoint-1", "config": '{"name": "tiny"}', "training": '{"commit": "abc"}'}
    tensors = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    path = checkpoint(tmp_path / "m.safetensors", {"__metadata__": record, **tensors}, bytes(24))
    values = inspect_path(path).values
    assert (values["config"], values["training"]) == ({"name": "tiny"}, {"commit": "abc"})
    assert values["tensors"] == {"F32": {"tensors": 1, "parameters": 6}}
    assert inspect_path(checkpoint(path, tensors, bytes(24))).values["config"] is None


def test_inspect_reads_what_training_wrote() -> None:
    path = Path(__file__).parents[2] / "training" / "weights" / "nano.safetensors"
    values = inspect_path(path).values
    assert (values["config"]["name"], values["format"]) == ("nano", "cled-edge-checkpoint-1")
    assert values["tensors"]["F32"]["parameters"] > 1e5


def test_inspect_refuses_checkpoints_that_are_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensor = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    for header, length, words in (
        (b"{}", 2**63, "its header states 9223372036854775808 bytes, needed 1 to 2"),
        (b"{}", 3, "needed 1 to 2"),
        (b"{}", 0, "its header states 0 bytes"),
        (b"{]", None, "is not a safetensors file"),
        ([], None, "its header is no JSON object"),
        ({"w": 1}, None, "has not dtype, shape and data_offsets"),
        ({"w": tensor}, None, "ends at byte 24 of 0: the file is truncated"),
        ({"w": tensor | {"shape": [-1]}}, None, "is malformed"),
        ({"w": tensor | {"shape": [True]}}, None, "is malformed"),
        ({"__metadata__": {"config": 1}}, None, "its metadata is not text by name"),
        ({"__metadata__": {"config": "{"}}, None, "is not a safetensors file"),
    ):
        with pytest.raises(CheckpointError, match=words):
            inspect_path(checkpoint(path, header, length=length))
    path.write_bytes(b"123")
    with pytest.raises(CheckpointError, match="needed 1 to 0"):
        inspect_path(path)


def test_inspect_says_what_else_it_saw(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\3\4pickle")
    with pytest.raises(OptionError, match=r"is a file of 10 bytes that begins with 50 4b 03 04 .*, needed a bundle's"):
        inspect_path(path)
    path.write_bytes(b"")
    with pytest.raises(OptionError, match="is an empty file"):
        inspect_path(path)
    with pytest.raises(SourceMissingError, match="does not exist; give a bundle's folder"):
        inspect_path(tmp_path / "none")
    with pytest.raises(BundleMissingError, match=r"manifest\.json does not exist"):
        inspect_path(tmp_path)


@posix
@pytest.mark.parametrize("name", ["x", "x.onnx", "x.plan", "x.safetensors"])
def test_inspect_does_not_wait_for_a_pipe(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((OptionError, BundleCorruptError, CheckpointError), match="is a pipe"):
        inspect_path(tmp_path / name)


# The command line


def test_keygen_sign_inspect_and_fuse_as_a_user_runs_them(copy: Path, write_pairs, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'cled-edge[sign]'")
    keys = tmp_path / "keys"
    public, private = keys / "public.pem", keys / "private.pem"
    made = run("keygen", keys)
    assert made.returncode == 0, made.stderr
    fingerprint = made.stdout.split()[-1]
    refused(run("keygen", keys), 11, "keys are never overwritten")
    refused(run("inspect", copy, "--require-signature", public), 19, "is not signed")
    done = run("sign", copy, "--key", private)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == fingerprint
    shown_now = run("inspect", copy, "--require-signature", public)
    assert shown_now.returncode == 0, shown_now.stderr
    assert f"signature: valid, by the required key {fingerprint}" in shown_now.stdout

    infrared, visible = write_pairs(("a",))
    fuse = "fuse", "--infrared", infrared, "--visible", visible, "--out", tmp_path / "out", "--bundle", copy
    done = run(*fuse, "--require-signature", public)
    assert done.returncode == 0, done.stderr
    (copy / "manifest.json").write_bytes((copy / "manifest.json").read_bytes() + b" ")
    refused(run(*fuse, "--require-signature", public), 19, "does not sign this manifest")
    refused(run("bench", "--bundle", copy, "--require-signature", public), 19, "does not sign this manifest")
    refused(run("bench", "compare", copy, copy, "--require-signature", public), 19, "does not sign this manifest")


def test_sign_refuses_a_damaged_bundle(copy: Path, keys: Path) -> None:
    (copy / "fusion.onnx").write_bytes(b"short")
    refused(run("sign", copy, "--key", keys / "private.pem"), 9, "has 5 bytes")
    assert not (copy / "manifest.sig").exists()


def test_inspect_prints_what_it_found_and_ends_with_the_error(copy: Path) -> None:
    edit(copy, lambda m: m["training"].update(note="[bold]not markup[/bold]"))
    done = run("inspect", copy)
    assert done.returncode == 0, done.stderr
    for words in ("name: nano", "signature: unsigned", "fusion.onnx", "residual", "[bold]not markup[/bold]"):
        assert words in done.stdout
    assert json.loads(run("inspect", copy, "--json").stdout)["kind"] == "bundle"
    (copy / "fusion.onnx").write_bytes(b"short")
    done = run("inspect", copy)
    assert "fusion.onnx" in done.stdout
    refused(done, 9, "has 5 bytes, its manifest says")
    refused(run("inspect", copy / "manifest.json"), 2, "needed a bundle's folder")


# The schema


def test_the_schema_is_that_of_the_models() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run python -m export.schema"


def test_versions_that_are_no_number_are_shown_in_few_words(copy: Path) -> None:
    edit(copy, lambda m: m.update(schema_version=["x" * 1000]))
    with pytest.raises(BundleVersionError) as caught:
        Bundle.open(copy)
    assert len(str(caught.value)) < 300 + len(str(copy))
