"""Ed25519 signatures of bundles: `manifest.sig` beside `manifest.json`, whose exact bytes it signs.

The manifest holds the SHA-256 of every other file, so one signature covers the bundle. The file is one line:
`cled-edge-signature-1 ed25519 PUBLIC_KEY SIGNATURE`, both in hexadecimal, 32 and 64 bytes. The key in it says who
claims to have signed; only a key that the user gives is trusted.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cled_edge.errors import OutputError, SignatureError
from cled_edge.files import Reader, make_folder

SIGNATURE_NAME = "manifest.sig"
INSTALL = "pip install 'cled-edge[sign]'"
_LINE = re.compile(rb"cled-edge-signature-1 ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})\r?\n?")
_SPKI_HEAD = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what precedes the 32 bytes of a key in DER
_MAX_BYTES = 64 * 2**10
_KEYGEN = "make a pair with: cled-edge keygen DIR"
_SIGN = "sign the bundle with its owner's private key: cled-edge sign"
_SIGNATURES = Reader(SignatureError, SignatureError, _SIGN)
_KEYS = Reader(SignatureError, SignatureError, _KEYGEN, follow_links=True)


@dataclass(frozen=True)
class Signature:
    """What `manifest.sig` says. key: 32 bytes, who claims to have signed. value: 64 bytes."""

    key: bytes
    value: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key that it claims."""
        return fingerprint(self.key)

    def matches(self, content: bytes, key: bytes) -> bool:
        """Say whether the holder of `key` (32 bytes) signed `content`."""
        with _needing_cryptography():
            from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(self.value, content)
        except (InvalidSignature, ValueError):  # a ValueError: bytes that are no point of the curve
            return False
        return True


def fingerprint(key: bytes) -> str:
    """Return the SHA-256 of a public key of 32 bytes in DER, in hexadecimal.

    The same as: openssl pkey -pubin -in public.pem -outform DER | sha256sum
    """
    return hashlib.sha256(_SPKI_HEAD + key).hexdigest()


def is_signed(folder: Path) -> bool:
    """Say whether anything is named as the signature of a bundle."""
    return os.path.lexists(folder / SIGNATURE_NAME)


def read_signature(folder: Path) -> Signature:
    """Return the signature of a bundle, not verified; SignatureError if it is missing or malformed."""
    path = folder / SIGNATURE_NAME
    if not is_signed(folder):
        raise SignatureError(f"{folder} is not signed, {SIGNATURE_NAME} does not exist; {_SIGN}")
    line = _LINE.fullmatch(_SIGNATURES.read(path, _MAX_BYTES))
    if line is None:
        raise SignatureError(f"{path} is not a signature, needed the line that cled-edge sign writes; {_SIGN}")
    return Signature(*(bytes.fromhex(group.decode()) for group in line.groups()))


def check_signature(folder: Path, content: bytes, public_key: Path | str) -> None:
    """Raise SignatureError unless the owner of `public_key`, a PEM file, signed `content`, the manifest's bytes."""
    key = read_public_key(Path(public_key))
    signature = read_signature(folder)
    path = folder / SIGNATURE_NAME
    if signature.key != key:
        raise SignatureError(
            f"{path} is of key {signature.fingerprint[:16]}..., needed {fingerprint(key)[:16]}... of {public_key}; "
            "give the key of who signed, or get the bundle from whom you trust"
        )
    if not signature.matches(content, key):
        raise SignatureError(
            f"{path} does not sign this manifest, which was altered after signing; get the bundle again from its source"
        )


def read_public_key(path: Path) -> bytes:
    """Return the 32 bytes of an Ed25519 public key in PEM; SignatureError if the file is none."""
    content = _KEYS.read(path, _MAX_BYTES)
    with _needing_cryptography():
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    if b"PRIVATE KEY" in content:
        raise SignatureError(f"{path} is a private key, needed the public one; it is public.pem of cled-edge keygen")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{path} is not a public key in PEM; {_KEYGEN}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path} holds an {type(key).__name__.strip('_')}, needed one of Ed25519; {_KEYGEN}")
    return key.public_bytes_raw()


def write_signature(folder: Path, content: bytes, private_key: Path) -> str:
    """Sign `content`, the bytes of the manifest in `folder`, by an Ed25519 private key in PEM; return its fingerprint.

    SignatureError if the key is none, or encrypted; OutputError if the file cannot be written.
    """
    from cled_edge.files import write_whole  # noqa: PLC0415

    pem = _KEYS.read(private_key, _MAX_BYTES)
    with _needing_cryptography():
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        plain = f"openssl pkey -in {private_key} -out plain.pem"
        raise SignatureError(
            f"{private_key} is encrypted, needed a plain key; decrypt it with: {plain}; sign, then delete plain.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{private_key} is not a private key in PEM; {_KEYGEN}") from error
    if not isinstance(key, Ed25519PrivateKey):
        kind = type(key).__name__.strip("_")
        raise SignatureError(f"{private_key} holds an {kind}, needed one of Ed25519; {_KEYGEN}")
    public = key.public_key().public_bytes_raw()
    line = f"cled-edge-signature-1 ed25519 {public.hex()} {key.sign(content).hex()}\n"
    write_whole(folder / SIGNATURE_NAME, line)
    return fingerprint(public)


def write_key_pair(folder: Path) -> str:
    """Write a new `private.pem`, for its owner's eyes only, and `public.pem`; return the fingerprint.

    OutputError if one of them is there already or cannot be written.
    """
    with _needing_cryptography():
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    paths = {folder / "private.pem": private, folder / "public.pem": public}
    for path in paths:
        if os.path.lexists(path):
            raise OutputError(f"{path} exists; choose another folder, keys are never overwritten")
    make_folder(folder)
    try:
        for path, content in paths.items():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; choose another folder") from error
    return fingerprint(key.public_key().public_bytes_raw())


@contextmanager
def _needing_cryptography() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise SignatureError(f"signatures need a package that cannot be imported ({error}); {INSTALL}") from error
