"""The sheet of degradations."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")


from cled_edge.data.split import part_of  # noqa: E402
from training import contact_sheet  # noqa: E402
from training.degradations import DEGRADATIONS  # noqa: E402
from training.image_cache import (  # noqa: E402
    read_with_channels,
)


def test_a_contact_sheet_shows_every_degradation(train_only: Path, tmp_path: Path) -> None:
    held = [stem for stem in map(str, range(400)) if part_of(stem) == "choose"]
    for half in ("infrared", "visible"):
        for path, stem in zip(sorted((train_only / "set" / half).iterdir()), held, strict=False):
            path.rename(path.with_stem(stem))
    out = tmp_path / "new" / "sheet.png"
    contact_sheet.main(train_only, out, ["set"], count=2, seed=1, side=64)
    sheet = read_with_channels(out, "visible")
    rows = max(len(contact_sheet.rows_of(m)) for m in DEGRADATIONS)
    assert sheet.shape == (rows * (64 + contact_sheet.LABEL_PX), 2 * (2 * 64 + contact_sheet.GAP_PX), 3)
    for modality, kinds in DEGRADATIONS.items():
        assert {(), *((kind,) for kind in kinds)} < set(contact_sheet.rows_of(modality))
        assert all(set(mixture) <= set(kinds) for mixture in contact_sheet.MIXTURES[modality])
