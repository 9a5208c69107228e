"""The names of TensorRT that the engine package uses, looked up in the genuine bindings of three releases.

The bindings are wheels on the package index; only the libraries behind them are not. They are loaded over stand-ins for
these, so they show every class, enum and signature, and run nothing. Skipped without the index, gcc or nm.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from cled_edge.backend.tensorrt.capabilities import RELEASES, USED, capabilities
from tests.fakes import tensorrt as fake_tensorrt

GENUINE = {"10.3": ("10.3.0", "cu12"), "10.16": ("10.16.1.11", "cu13"), "11.4": ("11.4.0.106", "cu13")}
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FACTORIES = ("createInfer", "createNv", "getNv", "getBuilderPlugin", "getPlugin", "initLib")
_PROGRAM = """
import ctypes, importlib.util, inspect, json, sys
folder, major = sys.argv[1:]
for stem in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
    ctypes.CDLL(f"{folder}/lib{stem}.so.{major}", mode=ctypes.RTLD_GLOBAL)
spec = importlib.util.spec_from_file_location("tensorrt", f"{folder}/tensorrt_bindings/tensorrt.so")
tensorrt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tensorrt)

def text(owner, name):
    try:
        value = getattr(owner, name)
    except AttributeError:
        return None
    members = getattr(owner, "__members__", {})
    return int(members[name]) if name in members else inspect.getdoc(value) or ""

found = {}
for name, owner in vars(tensorrt).items():
    if inspect.isclass(owner):
        found[name] = inspect.getdoc(owner.__init__) or ""
        found |= {f"{name}.{m}": text(owner, m) for m in dir(owner) if not m.startswith("_")}
print(json.dumps(found))
"""


def _folder() -> Path:
    return platformdirs.user_cache_path("cled-edge-tests", appauthor=False) / "tensorrt-api"


@cache
def genuine(release: str) -> dict[str, Any]:
    """Return the docstring or enum value of every name of a release, or skip, saying what is missing."""
    if sys.platform != "linux" or not shutil.which("gcc") or not shutil.which("nm"):
        pytest.skip("needs Linux, gcc and nm to load TensorRT's bindings without its libraries")
    version, _ = GENUINE[release]
    folder = _folder() / f"{version}-{platform.machine()}-{sys.version_info.major}.{sys.version_info.minor}"
    if not (folder / "ready").exists():
        _prepare(folder, release)
    major = release.split(".", maxsplit=1)[0]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, folder, major], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def _prepare(folder: Path, release: str) -> None:
    version, cuda = GENUINE[release]
    folder.mkdir(parents=True, exist_ok=True)
    wheel = [f"tensorrt-{cuda}-bindings=={version}", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--retries", "0", "--timeout", "15", *wheel]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the bindings of TensorRT {version} cannot be downloaded: {error}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extract("tensorrt_bindings/tensorrt.so", folder)
    extension = folder / "tensorrt_bindings/tensorrt.so"
    names = subprocess.run(["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True)
    wanted = [word for word in re.findall(r"U (\w+)", names.stdout) if word.startswith(_FACTORIES)]
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted)
    for stem in _LIBRARIES:
        soname = f"lib{stem}.so.{release.split('.', maxsplit=1)[0]}"
        gcc = ["gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-x", "c", "-", "-o", str(folder / soname)]
        subprocess.run(gcc, input=source.encode(), check=True)
    (folder / "ready").touch()


def calls(doc: str) -> list[list[tuple[str, bool]]]:
    """Return the parameters, without self, of each overload that a pybind docstring tells, and which have a default."""
    found = []
    for line in doc.splitlines():
        match = re.match(r"(?:\d+\. )?\w+\((self: [\w.:]+(?:, )?)?(.*)\) -> ", line)
        if match:
            words = re.split(r", (?=\w+: )", match[2]) if match[2] else []
            found.append([(word.split(":")[0], " = " in word) for word in words])
    return found


def accepts(doc: str, parameters: tuple[str, ...]) -> bool:
    """Say whether some overload may be called with just these, in this order."""
    return any(
        tuple(name for name, _ in call[: len(parameters)]) == parameters
        and all(default for _, default in call[len(parameters) :])
        for call in calls(doc)
    )


@pytest.mark.parametrize("release", GENUINE)
def test_every_used_name_is_there_just_where_the_table_says(release: str) -> None:
    names = genuine(release)
    wrong = {name: use.releases for name, use in USED.items() if (name in names) != (release in use.releases)}
    assert not wrong


@pytest.mark.parametrize("release", GENUINE)
def test_every_used_call_has_its_parameters(release: str) -> None:
    names = genuine(release)
    called = {n: use.parameters for n, use in USED.items() if use.parameters is not None and release in use.releases}
    assert len(called) > 30
    wrong = {
        name: (names[name], parameters) for name, parameters in called.items() if not accepts(names[name], parameters)
    }
    assert not wrong


def test_other_parameters_are_not_accepted() -> None:
    doc = "set_shape(self: tensorrt.IOptimizationProfile, input: str, min: tensorrt.Dims, opt: int = 0) -> None"
    assert accepts(doc, ("input", "min"))
    assert not accepts(doc, ("input",))
    assert not accepts(doc, ("input", "opt"))
    assert not accepts("", ())


@pytest.mark.parametrize("release", GENUINE)
def test_the_fakes_have_no_name_that_the_genuine_release_lacks(release: str) -> None:
    names = genuine(release)
    fake = fake_tensorrt.make(release)
    shown = set()
    for owner, kind in vars(fake).items():
        if isinstance(kind, fake_tensorrt.Enum):
            shown |= {f"{owner}.{member.name}" for member in kind.__dict__["_members"].values()}
            assert {f"{owner}.{m.name}": int(m) for m in kind.__dict__["_members"].values()}.items() <= names.items()
        elif isinstance(kind, type):
            shown |= {f"{owner}.{name}" for name in dir(kind) if not name.startswith("_")}
    assert not shown - names.keys()


@pytest.mark.parametrize("release", RELEASES)
def test_the_fakes_have_every_name_of_the_table(release: str) -> None:
    fake = fake_tensorrt.make(release)
    for name, use in USED.items():
        owner, _, member = name.partition(".")
        there = hasattr(getattr(fake, owner, None), member) if member else hasattr(fake, owner)
        assert there == (release in use.releases), name


@pytest.mark.parametrize("release", GENUINE)
def test_capabilities_are_the_same_on_the_genuine_module(release: str) -> None:
    names = genuine(release)

    class Genuine:
        """Shows what the genuine module has, out of its names."""

        __version__ = fake_tensorrt.VERSIONS[release]

        def __getattr__(self, owner: str) -> Any:
            if owner not in names:
                raise AttributeError(owner)
            members = {n.partition(".")[2]: value for n, value in names.items() if n.startswith(f"{owner}.")}
            return type(owner, (), members)

    assert capabilities(Genuine()) == capabilities(fake_tensorrt.make(release))


def test_the_bindings_are_kept_outside_the_repository() -> None:
    assert Path(__file__).parents[3] not in _folder().parents
    assert os.path.isabs(_folder())
