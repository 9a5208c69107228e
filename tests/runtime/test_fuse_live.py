"""The programs that spell the API out: they run, and the loop stays short."""

from pathlib import Path

import pytest

from runtime import fuse_folder, fuse_live


def test_the_loop_is_short_and_writes_to_every_output(
    write_pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(Path(fuse_live.__file__).read_text().splitlines()) < 80
    monkeypatch.setattr(fuse_live, "STATUS_PERIOD_S", 0.0)
    infrared, visible = write_pairs(("a", "b", "c"))
    fuse_live.main(str(infrared), str(visible), [str(tmp_path / "fused"), f"visible={tmp_path / 'restored'}"])
    for folder in ("fused", "restored"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["a.png", "b.png", "c.png"]
    assert "pair c: infrared age unknown, visible age unknown, skew unknown\n" in capsys.readouterr().out


def test_live_cameras_are_paired_in_time_and_every_frame_is_counted(
    write_pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infrared, visible = write_pairs(("a", "b", "c"))
    fuse_live.main(f"paced:{infrared}?rate_hz=4", f"paced:{visible}?rate_hz=4", [str(tmp_path / "fused")])
    said = capsys.readouterr().out
    assert "pair 000000: infrared age " in said
    assert "infrared: {'received': 3, 'fused': " in said
    assert "'holds': True" in said
    assert (tmp_path / "fused" / "000000.png").exists()


def test_a_folder_is_fused(write_pairs, tmp_path: Path) -> None:
    infrared, visible = write_pairs(("a",))
    fuse_folder.main(str(infrared), str(visible), str(tmp_path / "fused"))
    assert [path.name for path in (tmp_path / "fused").iterdir()] == ["a.png"]
