"""What the documents say holds: Python runs, links and paths exist, tables are those of results, words are plain."""

import re
from pathlib import Path

import cv2
import pytest

from cled_edge.scene.night_street import night_street
from tests.fakes.house import PAGES, ROOT

LONGEST_SENTENCE = 30
LINES = {"README.md": 69, "CONTRIBUTING.md": 171}
LINES_OF_OTHERS = 110
# Words of our own, with the field's word; or a word that readers of this project took for something else.
BANNED = {
    r"\bbars?\b": "target",
    r"\btrivial\b": "baseline",
    r"\b(infrared|visible|other|both) (half|halves)\b": "modality",
    r"\bboth sides\b": "both modalities",
    r"\bgauges?\b": "monitor",
    r"\brelays?\b": "queue",
    r"\bteller\b": "progress",
    r"\bpictures?\b": "image",
    r"\bnever run\b": "say what ran, and on what",
}
# What a page may name that is not in the repository: what its commands and its users make.
MADE = re.compile(
    r"^(runs|bundles|infrared|visible|curves|samples|night|demo|fused|restored|keys)\b"
    r"|^(OUT|DIR|DATA|BUNDLE|pairs|restoration|medical|video|visible\.mp4|~|\.\./shared|\.venv|dev|robot\.toml)\b|[*<>{}]|^/|(ramp|npy_folder)\.py$"
)
UNIT = r"(ms|s|dB|%|Hz|fps|MB|GB|GiB|GFLOP|pairs/s|times|percent|minutes|hours)"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def prose_of(text: str) -> list[str]:
    """Return the paragraphs of a page that are read as sentences: no code, no table, no heading, nothing generated."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- tables?: .*?<!-- end -->", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|!\[)", line)]
    text = re.sub(r"^\s*([*-]|\d+\.) ", "\n\n", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "Code", text))
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a page."""
    return [sentence for part in prose_of(text) for sentence in re.split(r"(?<=[.!?])[)*\"]*\s+(?=[A-Z*(\"])", part)]


def test_contributing_names_every_room_and_module_of_the_library() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = [
        path for path in (ROOT / "cled_edge").iterdir() if not path.name.startswith("__") and path.name != "bundles"
    ]
    names = [f"`cled_edge/{p.name}{'/' if p.is_dir() else ''}`" for p in rooms if p.is_dir() or p.suffix == ".py"]
    assert len(names) > 20
    assert not [name for name in names if name not in text]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    monkeypatch.chdir(tmp_path)
    pair = next(iter(night_street(1, (96, 128))))
    for name, image in (("infrared", pair.infrared), ("visible", pair.visible[:, :, ::-1])):
        Path("demo", "night", name).mkdir(parents=True)
        cv2.imwrite(f"demo/night/{name}/000000.png", image)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own README)
    assert cv2.imread("demo/fused.png").shape == (96, 128, 3)


@pages
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for name in re.findall(r"`([\w./-]+(?:/[\w.-]*|\.py|\.toml))`", text):
        if not MADE.search(name):
            assert (page.parent / name).exists() or (ROOT / name).exists(), name


@pages
def test_anchors_are_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]*)\)", page.read_text()):
        if not target.startswith("http"):
            text = (page.parent / target if target else page).read_text()
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, anchor


@pages
def test_sentences_can_be_read_aloud(page: Path) -> None:
    long = [s for s in sentences_of(page.read_text()) if len(s.split()) > LONGEST_SENTENCE]
    assert not long, f"over {LONGEST_SENTENCE} words: {long[0]}"


@pages
def test_words_are_those_of_the_field(page: Path) -> None:
    prose = "\n".join(prose_of(page.read_text()))
    for pattern, better in BANNED.items():
        found = re.search(f".{{0,40}}{pattern}.{{0,40}}", prose, re.IGNORECASE)
        assert not found, f"{found[0] if found else ''!r}: write {better}"


@pages
def test_a_page_is_short(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    assert len(page.read_text().splitlines()) <= LINES.get(name, LINES_OF_OTHERS)


def test_figures_of_the_readme_are_in_its_table_alone() -> None:
    prose = "\n".join(prose_of((ROOT / "README.md").read_text()))
    assert not re.findall(rf"\d[\d.,]* ?{UNIT}\b", prose)


def test_exit_codes_of_the_report_page_are_those_of_the_code() -> None:
    from cled_edge import errors

    text = (ROOT / "runtime" / "REPORT.md").read_text()
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)}
    for code in codes - {1, 14, 15, 18}:
        assert re.search(rf"\| {code} \|", text), code


def test_the_bundle_format_names_the_tensors_of_the_contract() -> None:
    from cled_edge.contract import GRAPHS

    page = (ROOT / "export" / "BUNDLE.md").read_text()
    for role, spec in GRAPHS.items():
        (row,) = re.findall(rf"^\| `{role}`.*$", page, re.MULTILINE)
        for tensors in (spec.inputs, spec.outputs, *((one,) for one in (*spec.maps, *spec.told))):
            assert f"`{', '.join(tensor.name for tensor in tensors)}`" in row


def test_the_checks_of_prose_see_what_they_should() -> None:
    text = "# Head\n\nOne two. Three `a b`\nfour.\n\n| table |\n\n* item\n  goes on\n* next\n\n```sh\ncode\n```\n"
    assert sentences_of(text) == ["One two.", "Three Code four.", "item goes on", "next"]
