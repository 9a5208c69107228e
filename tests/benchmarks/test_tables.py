"""Tables from results: right cells in the right places, present bundles only, and pages that are current."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import tables
from benchmarks.result import RESULTS, Provenance, Result, bundle_hash, package_hash
from benchmarks.table import Column, Table, caption, cell_text, columns
from benchmarks.tables_paper import SLICES_RESTORED, TABLE_1, TABLE_4
from benchmarks.tables_quality import DEGRADED, FUSED, NINE_DEGRADED, RESTORED, RESTORED_SETS
from benchmarks.tables_speed import GPU, LATENCY
from cled_edge.bundle.reader import Bundle
from cled_edge.errors import ResultError

SCORES = {"mi": 3.0, "vif": 0.75, "qabf": 0.5, "nabf": 0.01, "ssim": 1.2}
CLEAN = {**SCORES, "scd": 1.5, "paper_ssim": 0.9, "paper_nabf": 0.02}
PAPER_SCORES = "3.000 / 0.750 / 0.500 / 0.020 / 0.900"
IMAGE = {
    "images": 3,
    "psnr_before_db": 10.0,
    "psnr_after_db": 12.5,
    "gain_db": 2.5,
    "lowest_gain_db": -0.5,
    "ssim_before": 0.4,
    "ssim_after": 0.6,
}


def a_result(*rows: dict[str, Any], measurement: str = "quality", **made: Any) -> Result:
    present = bundle_hash(Bundle.open().manifest)
    provenance = {"bundles": {"nano": present}, "checkpoints": {}, "device": "A CPU", "date": "2026-11-28"}
    provenance |= {"versions": {}, "commit": "abc1234", **made}
    return Result(
        measurement=measurement,
        of="nano",
        provenance=Provenance.model_validate(provenance),
        settings={"backend": "onnxruntime", "size": [480, 640], "seconds": 3.0},
        rows=list(rows),
    )


def written(folder: Path, *results: Result) -> Path:
    for found in results:
        (folder / found.file_name).write_text(found.to_json())
    return folder


def test_cells_have_their_digits() -> None:
    seen = [
        cell_text(None),
        cell_text(True),
        cell_text(2),
        cell_text(1.26, 1),
        cell_text(0.256, 1, True),
        cell_text("a"),
    ]
    assert seen == ["-", "yes", "2", "1.3", "25.6%", "a"]
    assert columns("a, b c=d:2, e:0%, f@[0:1]=g") == (
        Column("a", "a"),
        Column("b c", "d", 2),
        Column("e", "e", 0, True),
        Column("f@[0:1]", "g"),
    )


def test_a_table_stands_under_its_title_and_says_what_computed_it(tmp_path: Path) -> None:
    row = {"backend": "a", "description": "a | b", "threads": 2, "steps": 1, "network_p50_ms": 9.04, "rate_hz": None}
    found = a_result({**row, "p50_ms": 10.0, "p90_ms": 11.0, "p99_ms": 12.25}, measurement="latency")
    text = LATENCY.text(written(tmp_path, found))
    assert text.startswith("## Latency\n\nWhole call")
    hashed = found.provenance.bundles["nano"][:12]
    assert f"nano ({hashed}); onnxruntime; 480x640; A CPU; measured 2026-11-28 at commit abc1234:" in text
    assert "| a / b | 2 | 1 | 9.0 | 10.0 | 11.0 | 12.2 | - |" in text
    assert LATENCY.text(tmp_path / "none") == ""


def test_an_older_result_says_which_commit_brought_it() -> None:
    found = a_result(commit=None, recorded_in="def5678")
    assert "recorded 2026-11-28 in commit def5678:" in caption(found)


def test_a_table_refuses_another_bundle_and_names_both_and_the_command(tmp_path: Path) -> None:
    stale = a_result({"p50_ms": 1.0}, measurement="latency", bundles={"nano": "ab" * 32})
    present = bundle_hash(Bundle.open().manifest)[:12]
    words = rf"latency-nano-a-cpu.json is of bundle nano abababababab, needed {present}, the present one; "
    with pytest.raises(ResultError, match=rf"{words}measure again: python -m benchmarks.latency"):
        LATENCY.text(written(tmp_path, stale))
    with pytest.raises(ResultError, match=words):
        tables.page(tmp_path)


def test_many_bundles_are_counted_and_not_listed() -> None:
    said = caption(a_result(bundles={f"variant-{k}": "ab" * 32 for k in range(15)}))
    assert said.startswith("15 bundles, whose hashes are in results/quality-nano-a-cpu.json; ")
    assert "abab" not in said


def test_a_table_of_what_no_network_computes_refuses_other_sources(tmp_path: Path) -> None:
    present = package_hash("evidence")
    table = Table("Evidence", "evidence", columns("kind"), "measure")
    row = {"kind": "rain"}
    written(tmp_path, a_result(row, measurement="evidence", bundles={"evidence": present}))
    assert "| rain |" in table.text(tmp_path)
    written(tmp_path, a_result(row, measurement="evidence", bundles={"evidence": "ab" * 32}))
    with pytest.raises(ResultError, match=rf"evidence abababababab, needed {present[:12]}, the present one"):
        table.text(tmp_path)


def test_a_table_refuses_another_checkpoint_where_no_bundle_is_shipped(tmp_path: Path) -> None:
    row = {"part": "clean", "folder": "a", "light": "all", **CLEAN, "method": "ours", "images": 1}
    written(tmp_path, a_result(row, bundles={"edge": "ab" * 32}, checkpoints={"edge": "cd" * 32}))
    with pytest.raises(ResultError, match=r"is of checkpoint edge cdcdcdcdcdcd, needed [0-9a-f]{12}, the present one"):
        FUSED.text(tmp_path)
    written(tmp_path, a_result(row, bundles={"edge": "ab" * 32}))
    with pytest.raises(ResultError, match="is of checkpoint edge none, needed"):
        FUSED.text(tmp_path)
    written(tmp_path, a_result(row, bundles={"of an ablation": "ab" * 32}))
    assert "of an ablation (abababababab)" in FUSED.text(tmp_path)


def test_a_table_of_gpus_shows_an_older_bundle_and_says_so(tmp_path: Path) -> None:
    frame = {"preset": "nano", "size": "480x640", "steps": 1, "runtime": "r"}
    rows = [{**frame, "form": form, "p50_ms": ms} for form, ms in (("tensorrt-graph", 2.0), ("torch-eager", 19.0))]
    text = GPU.text(written(tmp_path, a_result(*rows, measurement="gpu", bundles={"nano": "ab" * 32})))
    assert "nano (abababababab, an older bundle);" in text
    assert "| nano | 480x640 | 1 | torch-eager | r | 19.00 | - | - | - | 9.5 |" in text


def test_restoration_is_judged_by_day_and_a_clean_image_gains_nothing() -> None:
    lights = [
        {"part": "restored", "modality": "visible", "case": "visible rain", "light": x, **IMAGE} for x in ("day", "all")
    ]
    clean = {"part": "restored", "modality": "infrared", "case": "clean", "light": "all", **IMAGE}
    lines = RESTORED.lines(a_result(*lights, clean))[2:]
    assert lines == [
        "| visible | visible rain | day | 3 | 10.00 | 12.50 | 2.50 | -0.50 | 0.400 | 0.600 |",
        "| infrared | clean | all | 3 | - | 12.50 | - | - | 0.400 | 0.600 |",
    ]
    (line,) = SLICES_RESTORED.lines(a_result({**clean, "method": "nano-medical"}))[2:]
    assert line == "| nano-medical | MRI clean | 3 | - | 12.50 | - | - | 0.400 | 0.600 |"


def test_gains_stand_side_by_side_by_set() -> None:
    row = {"part": "restored_set", "modality": "visible", "case": "visible rain"}
    found = a_result(
        *({**row, "folder": f"pairs/{name}", "gain_db": gain} for name, gain in (("msrs", 2.5), ("tno", 9.0)))
    )
    assert RESTORED_SETS.lines(found)[2:] == ["| visible | visible rain | 2.50 | - |"]


def test_degraded_pairs_have_their_baselines_and_the_share_of_the_way() -> None:
    nine, ceiling = "nine single degradations", "max of the clean pair"
    methods = [(nine, "ours"), (nine, "max"), (nine, "average"), ("clean", ceiling)]
    rows = [{"part": "degraded", "case": c, "light": "day", "method": m, "images": 5, **SCORES} for c, m in methods]
    share = {"part": "share", "case": nine, "images": 5, "vif": 0.512, "qabf": None, "ssim": -0.2}
    found = a_result(*rows, {**share, "light": "day"}, {**share, "light": "all"})
    score = "0.750 / 0.500 / 1.200"
    assert DEGRADED.lines(found)[2:] == [f"| {nine} | day | 5 | {' | '.join([score] * 4)} | 51% / - / -20% |"]
    lines = NINE_DEGRADED.lines(found)
    assert "| day | 5 | ours | 3.000 | 0.750 | 0.500 | 0.010 | 1.200 |" in lines
    assert "| both | 45 other pairs | SeAFusion, the best peer | - | 0.605 | 0.439 | - | 1.058 |" in lines


def test_peers_do_not_stand_alone() -> None:
    assert NINE_DEGRADED.lines(a_result({"part": "balance", "ssim": 1.0})) == []


def test_a_folder_of_one_light_comes_once() -> None:
    row = {"part": "clean", "method": "ours", "images": 2, **CLEAN}
    lights = [("pairs/m3fd", "all"), ("pairs/m3fd", "day"), *(("pairs/msrs", x) for x in ("all", "day", "night"))]
    found = a_result(*({**row, "folder": folder, "light": light} for folder, light in lights))
    assert len(FUSED.lines(found)) == 2 + 4
    assert f"| ours | 2 | {PAPER_SCORES} | - |" in TABLE_1.lines(found)
    variants = a_result(
        *({**row, "folder": f"pairs/{s}", "method": "mine", "iterations": 800} for s in ("m3fd", "llvip"))
    )
    assert f"| mine | 800 | 2 and 2 | {PAPER_SCORES} | {PAPER_SCORES} |" in TABLE_4.lines(variants)


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.title)
def test_every_table_has_results_and_rows_as_wide_as_its_header(table: Table) -> None:
    text = table.text()
    rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    assert rows
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_pages_are_those_of_the_results() -> None:
    app = typer.Typer()
    app.command()(tables.main)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0, done.output


def test_without_update_it_tells_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, readme = tmp_path / "RESULTS.md", tmp_path / "README.md"
    page.write_text("old")
    readme.write_text("before\n<!-- table: readme -->\nold\n<!-- end -->\nafter\n")
    for name, value in {"PAGE": page, "README": readme, "ROOT": tmp_path}.items():
        monkeypatch.setattr(tables, name, value)
    app = typer.Typer()
    app.command()(tables.main)
    done = CliRunner().invoke(app, [])
    assert (done.exit_code, page.read_text()) == (1, "old")
    assert "RESULTS.md is stale; run python -m benchmarks.tables --update" in done.output
    assert CliRunner().invoke(app, ["--update"]).exit_code == 0
    assert readme.read_text().startswith("before\n<!-- table: readme -->\n\n`nano` on 480x640 images in 2 steps, on ")
    assert readme.read_text().endswith(" |\n<!-- end -->\nafter\n")
    assert CliRunner().invoke(app, []).exit_code == 0


def test_the_readme_has_four_rows_of_the_shipped_bundle(tmp_path: Path) -> None:
    assert len(tables.readme_table()) == 2 + 2 + 4
    with pytest.raises(ResultError, match=r"has no latency of nano; measure it: python -m benchmarks.latency"):
        tables.readme_table(tmp_path)


def test_every_result_of_the_repository_is_named_by_what_it_is_of() -> None:
    for path in RESULTS.iterdir():
        assert path.name == Result.read(path).file_name
        assert json.loads(path.read_text())["provenance"]["device"]
