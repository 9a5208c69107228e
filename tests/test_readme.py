"""What the READMEs say is run: the Python, the links, the generated table."""

import re
from pathlib import Path

import cv2
import pytest

from benchmarks.tables import PAGES as PAGES_WITH_TABLES
from benchmarks.tables import with_tables
from cled_edge.scene.night_street import night_street

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("*/README.md"),
    ROOT / "training" / "weights" / "README.md",
    ROOT / "export" / "BUNDLE.md",
]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    pair = next(iter(night_street(1, (96, 128))))
    cv2.imwrite("infrared.png", pair.infrared)
    cv2.imwrite("visible.png", pair.visible[:, :, ::-1])
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own README)
    for name in ("fused.png", "restored.png"):
        assert cv2.imread(name).shape == (96, 128, 3)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_files_named_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for row in re.findall(r"^\|[^|]*\|([^|]*)\|$", text, re.MULTILINE):
        for name in re.findall(r"`([\w./]+\.py)`", row):
            assert (page.parent / name).exists(), name


@pytest.mark.parametrize("page", PAGES_WITH_TABLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert "<!-- tables: " in text
    assert text == with_tables(text), "run python -m benchmarks.tables"


def test_exit_codes_of_the_runtime_readme_are_those_of_the_code() -> None:
    from cled_edge import errors

    text = (ROOT / "runtime" / "README.md").read_text()
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)}
    for code in codes - {1, 13, 14, 15, 18}:
        assert re.search(rf"\| {code} \|", text), code
