"""A result: the rows of one measurement, and what computed them. Every file under benchmarks/results is one."""

import datetime
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cled_edge.bench.machine import describe_machine, library_versions, machine_line
from cled_edge.bench.project import UNKNOWN, project_commit
from cled_edge.bundle.checkpoint_header import inspect_safetensors
from cled_edge.bundle.manifest import Manifest
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import REFERENCE_GRAPHS
from cled_edge.errors import ResultError
from cled_edge.files import check_writable, read_json, write_whole
from cled_edge.json_text import first_problem

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
BUNDLES = ROOT / "cled_edge" / "bundles"
WEIGHTS = ROOT / "training" / "weights"

Cell = str | int | float | bool | None
Row = dict[str, Any]  # of cells; units are in the names
Update = Annotated[bool, typer.Option("--update", help="write the result into benchmarks/results")]
Out = Annotated[Path | None, typer.Option(metavar="FILE.json", help="write the result there")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Model):
    """What computed a result.

    bundles: SHA-256 by bundle, see `bundle_hash`; where no network computed it, that of the package of cled_edge that
    did, see `package_hash`. checkpoints: SHA-256 by name of those under training/weights that
    the bundles were exported from. device: the CPU, or the GPU where one computed. date: UTC.

    commit: the project's when it was measured. Older results do not know it: `recorded_in` is the commit that brought
    them, `date` is that commit's, and they have no command.
    """

    bundles: dict[str, str]
    checkpoints: dict[str, str]
    device: str
    date: str
    commit: str | None = None
    recorded_in: str | None = None
    command: str | None = None
    versions: dict[str, str]

    @model_validator(mode="after")
    def _has_one_commit(self) -> "Provenance":
        if (self.commit is None) == (self.recorded_in is None):
            raise ValueError("needs one of commit and recorded_in")
        return self


class Result(_Model):
    """measurement: such as `quality`; of: what was measured, often a bundle, "" for the device itself.

    settings: what was asked for. rows: of one kind, or of several that `part` tells apart. samples_ms: raw times.
    """

    schema_version: Literal[1] = 1
    measurement: str
    of: str
    provenance: Provenance
    settings: dict[str, Cell | list[Cell]]
    rows: list[dict[str, Cell]]
    samples_ms: dict[str, list[float]] = {}

    @property
    def file_name(self) -> str:
        """Name of the file under benchmarks/results: measurement, what was measured, and the device that computed."""
        return "-".join(filter(None, (self.measurement, self.of, slug(self.provenance.device)))) + ".json"

    def to_json(self) -> str:
        """Return JSON with a line for each row."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        return (
            re.sub(r"(\n  +)([\[{])\n[^\[\]{}]*[\]}]", lambda found: found[1] + " ".join(found[0].split()), text) + "\n"
        )

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read a result; ResultError if the file is none."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise ResultError(f"{path}: {first_problem(error)}; needed a result of schema 1; measure again") from error


def results_of(measurement: str, folder: Path = RESULTS) -> list[tuple[Path, Result]]:
    """Return the results of a measurement by file, sorted by name."""
    found = [(path, Result.read(path)) for path in sorted(folder.glob(f"{measurement}-*.json"))]
    return [(path, result) for path, result in found if result.measurement == measurement]


def new_result(
    measurement: str,
    of: str,
    rows: Sequence[Row],
    bundles: Sequence[Bundle] = (),
    settings: Mapping[str, Any] | None = None,
    samples_ms: Mapping[str, list[float]] | None = None,
    device: str | None = None,
    packages: Sequence[str] = (),
) -> Result:
    """Return a result of now, of this command and commit.

    packages: of cled_edge, by name, that computed it without a bundle. device: the GPU's name; None is this machine's
    CPU.
    """
    manifests = {bundle.manifest.name: bundle.manifest for bundle in bundles}
    now = datetime.datetime.now(datetime.timezone.utc)
    provenance = Provenance(
        bundles={
            **{name: bundle_hash(manifest) for name, manifest in manifests.items()},
            **{name: package_hash(name) for name in packages},
        },
        checkpoints={name: found for name, m in manifests.items() if (found := checkpoint_hash(m)) is not None},
        device=device or machine_line(describe_machine()),
        date=now.date().isoformat(),
        commit=commit_at_start(),
        command=_command(),
        versions=library_versions(),
    )
    return Result(
        measurement=measurement,
        of=of,
        provenance=provenance,
        settings=dict(settings or {}),
        rows=list(rows),
        samples_ms=dict(samples_ms or {}),
    )


def check_target(out: Path | None, update: bool) -> None:
    """Refuse, before a measurement, what could not be written after it, and note the commit that is measured."""
    if out:
        check_writable(out)
    if commit_at_start() == UNKNOWN and update:
        raise ResultError("the project's commit is unknown, needed for benchmarks/results; run in a clone with git")


@cache
def commit_at_start() -> str:
    """Return the commit when this was first asked: files may change while a program measures."""
    return project_commit()


def save(result: Result, out: Path | None, update: bool, folder: Path = RESULTS) -> None:
    """Write a result to `out`, and with `update` into the repository."""
    check_target(out, update)
    for path in filter(None, (out, folder / result.file_name if update else None)):
        write_whole(path, result.to_json())
        print(f"wrote {path}")


def bundle_hash(manifest: Manifest) -> str:
    """Return one SHA-256 for a bundle: of the hashes of its FP32 graphs, which every export of a checkpoint has."""
    names = [manifest.find(role) for role in REFERENCE_GRAPHS]
    hashes = [manifest.hashes[manifest.graphs[name].file] for name in names if name]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def package_hash(name: str) -> str:
    """Return one SHA-256 for a package of cled_edge: of the names and bytes of its sources and tables."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "cled_edge" / name).iterdir()):
        if path.suffix in (".py", ".json"):
            found.update(f"{path.name}\n".encode() + path.read_bytes())
    return found.hexdigest()


def checkpoint_hash(manifest: Manifest) -> str | None:
    """Return the SHA-256 of the checkpoint under training/weights that a bundle was exported from, None if of none.

    The same name and the same record of the training tell that it is the one.
    """
    path = WEIGHTS / f"{manifest.name}.safetensors"
    if not path.is_file() or inspect_safetensors(path)["training"] != manifest.training:
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def slug(device: str) -> str:
    """Return a device as a part of a file's name, such as `nvidia-h200` or `amd-epyc-26-2-2-cores`."""
    return re.sub(r"\W+", "-", re.sub("family |model | of a virtual machine", "", device).lower()).strip("-")


def _command() -> str:
    """Return how this program was run."""
    program = Path(sys.argv[0])
    if program.is_relative_to(ROOT / "benchmarks"):
        return shlex.join(["python", "-m", f"benchmarks.{program.stem}", *sys.argv[1:]])
    return shlex.join([program.name, *sys.argv[1:]])
