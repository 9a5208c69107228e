"""The project's state in git: which commit a measurement is of."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
UNKNOWN = "unknown"


def project_commit(root: Path = ROOT) -> str:
    """Return the short hash of the commit that `root` stands at, with `-dirty` if a tracked file differs from it.

    `unknown` where there is no git, or `root` is no repository of its own, as an installed package is none.
    """
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "--short=7", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    if Path(top).resolve() != root.resolve():
        return UNKNOWN
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
