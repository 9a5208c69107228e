"""The library knows no option of the command line: its messages name parameters, and the command line adds commands."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent / "cled_edge"
OPTION = re.compile(r"--[a-z][a-z-]+")
OF_OTHERS = {"--system-site-packages", "--list-formats"}  # of Python's venv, for TensorRT on a Jetson; of v4l2-ctl


def messages(path: Path) -> list[str]:
    """Return every text in a module but docstrings, and but the arguments of other programs, which begin with --."""
    tree = ast.parse(path.read_text())
    documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in documented if node.body and isinstance(node.body[0], ast.Expr)}
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [node.value for node in texts if id(node) not in docstrings and not node.value.startswith("--")]


def test_messages_name_nothing_that_only_the_repository_has() -> None:
    """Who installed the wheel has no programs of the stages, no Makefile and no README."""
    of_the_repository = re.compile(
        r"python -m (export|training|runtime|benchmarks)|\bREADME|\bmake (demo|test|check|wheel|dev)\b|\.venv|clone"
    )
    named = {
        f"{path.relative_to(ROOT)}: {text}"
        for path in ROOT.rglob("*.py")
        for text in messages(path)
        if of_the_repository.search(text)
    }
    assert named == set()


def test_messages_below_the_command_line_name_no_option() -> None:
    paths = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "cli"]
    named = {
        f"{path.relative_to(ROOT)}: {option}"
        for path in paths
        for text in messages(path)
        for option in OPTION.findall(text)
        if option not in OF_OTHERS
    }
    assert named == set()
    assert any(OPTION.search(text) for path in (ROOT / "cli").rglob("*.py") for text in messages(path))
