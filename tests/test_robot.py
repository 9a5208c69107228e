"""What a robot gets: an import that costs little and never reaches torch, and a wheel of one package."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cled_edge
from cled_edge import errors

ROOT = Path(cled_edge.__file__).parent.parent
TORCH_SIDE = "cled_edge.network"


def robot_modules() -> list[str]:
    names = []
    for path in sorted((ROOT / "cled_edge").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith(TORCH_SIDE):
            names.append(name)
    return names


def python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_every_robot_module_imports_with_torch_blocked() -> None:
    modules = robot_modules()
    assert "cled_edge.fuser" in modules
    imports = "\n".join(
        f"import {name}" for name in [*modules, "runtime.demo", "runtime.fuse_folder", "runtime.fuse_live"]
    )
    done = python(f"import sys\nfor name in ('torch', 'onnx'): sys.modules[name] = None\n{imports}")
    assert done.returncode == 0, done.stderr


def test_import_contracts_name_every_robot_module() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    tops = {name.split(".")[1] for name in robot_modules() if "." in name}
    for top in tops:
        assert f'"cled_edge.{top}"' in text, (
            f"pyproject.toml: contract 'Nothing on the robot reaches torch' lacks {top}"
        )


def test_import_is_light() -> None:
    done = python(
        "import cled_edge, sys; print('numpy' in sys.modules, 'cv2' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False", "False"]


def test_public_names_are_the_stated_ones_and_every_error() -> None:
    stated = {"Bundle", "Controls", "Frame", "FramePair", "FusedFrame", "Fuser", "open_camera"}
    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert set(cled_edge.__all__) == stated | raised
    assert cled_edge.__all__ == sorted(cled_edge.__all__)
    assert dir(cled_edge) == sorted([*cled_edge.__all__, "__version__"])
    for name in cled_edge.__all__:
        assert getattr(cled_edge, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cled_edge.nonsense  # noqa: B018


def test_the_wheel_holds_one_package_and_the_shipped_bundle(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling: make test installs it")
    code = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 36e6
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"cled_edge", "cled_edge-0.1.0.dist-info"}
    for name in ("manifest.json", "unet_step.onnx", "fusion.onnx"):
        assert f"cled_edge/bundles/nano/{name}" in names
    assert "cled_edge/py.typed" in names


def test_what_ci_runs_on_an_older_python_exists() -> None:
    named = re.findall(r"tests/[\w/.]+", (ROOT / ".ci" / "run").read_text())
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
