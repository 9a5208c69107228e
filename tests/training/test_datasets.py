"""Batches of the images on disk: what is skipped and refused, and what is decoded how often."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test installs it")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from cled_edge.data.datasets import DataSet, find_pairs  # noqa: E402
from cled_edge.data.split import is_held_out  # noqa: E402
from cled_edge.errors import DataError, OutputError  # noqa: E402
from cled_edge.image import write_png  # noqa: E402
from training import contact_sheet, throughput  # noqa: E402
from training.batches import FusionBatch  # noqa: E402
from training.crops import random_crop  # noqa: E402
from training.degradations import DEGRADATIONS  # noqa: E402
from training.image_cache import GIB, ImageCache, read_with_channels  # noqa: E402
from training.loader import prepared  # noqa: E402
from training.pairs import FusionBatches, RestorationBatches  # noqa: E402
from training.recipe import DataRecipe, read_recipe  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small pictures do not pay for torch's threads, and on a busy machine these wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path, rng) -> Path:
    """Twenty pairs of random pictures, none of them held out."""
    stems = [str(k) for k in range(40) if not is_held_out(str(k))][:20]
    for half, channels in (("infrared", ()), ("visible", (3,))):
        (tmp_path / "set" / half).mkdir(parents=True)
        for stem in stems:
            write_png(tmp_path / "set" / half / f"{stem}.png", rng.integers(90, 256, (48, 56, *channels), np.uint8))
    return tmp_path


def recipe(**more) -> DataRecipe:
    return DataRecipe.model_validate({"pairs": ["set"], **more})


def test_plain_pairs_and_sets_are_the_same(data: Path) -> None:
    listed = find_pairs(data, recipe(pairs=[], sets=[{"root": "set"}]).all_sets, held_out=False)
    assert listed == find_pairs(data, recipe().all_sets, held_out=False)
    assert len(listed) == 20


def test_corrupt_pictures_are_named_skipped_and_counted_or_refused(data: Path, caplog) -> None:
    broken, deep = sorted((data / "set" / "visible").iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:60])
    deep.write_bytes(cv2.imencode(".png", np.zeros((48, 56), np.uint16))[1].tobytes())
    with caplog.at_level(logging.INFO, "training"):
        batches = RestorationBatches(data, recipe(), 4, 32, 0)
    assert len(batches.pairs) == 18
    assert not {broken.stem, deep.stem} & {pair.infrared.stem for pair in batches.pairs}
    assert [f"skipped: {broken} is not a whole picture" in r.message for r in caplog.records].count(True) == 1
    assert [f"skipped: {deep}: visible pictures must be 8 bit" in r.message for r in caplog.records].count(True) == 1
    assert caplog.records[-1].message == "pairs: 18 read, 2 skipped"
    with pytest.raises(DataError, match=rf"{broken} is not a whole picture.* train without strict reading"):
        FusionBatches(data, recipe(), 4, 32, 0, strict=True)
    for path in (data / "set" / "infrared").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 20 pairs can be read"):
        FusionBatches(data, recipe(), 4, 32, 0)


def test_unequal_sizes_are_refused(data: Path) -> None:
    write_png(data / "set" / "visible" / "5.png", np.full((48, 40, 3), 200, np.uint8))
    with pytest.raises(DataError, match=r"visible/5\.png is 48x40, .*infrared/5\.png is 48x56; .*one size"):
        RestorationBatches(data, recipe(), 4, 32, 0)


def test_a_picture_is_decoded_once_within_the_limit_and_again_beyond_it(data: Path, caplog) -> None:
    both = ImageCache(4)
    restoration = RestorationBatches(data, recipe(), 4, 32, 0, images=both)
    FusionBatches(data, recipe(), 4, 32, 0, images=both)(0)
    wanted = restoration(0)
    assert both.decoded == 40
    few = ImageCache(6 * 48 * 56 * 3 / GIB)
    with caplog.at_level(logging.INFO, "training"):
        small = RestorationBatches(data, recipe(), 4, 32, 0, images=few)
        assert few.decoded == 40
        got = [small(k) for k in range(6)]
    assert few.decoded > 40
    assert few.kept_bytes <= few.limit_bytes
    assert sum("of keep_gib; the others are decoded at each use" in r.message for r in caplog.records) == 1
    assert all(torch.equal(a, b) for a, b in zip(got[0], wanted, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        both(restoration.clean["visible"][0], "visible")[0, 0] = 0


@pytest.mark.parametrize("kind", [RestorationBatches, FusionBatches])
def test_batches_do_not_depend_on_threads_or_processes(data: Path, kind) -> None:
    make = kind(data, recipe(), 4, 32, 0, images=ImageCache(20 * 48 * 56 / GIB))
    alone = [make(k) for k in range(4)]
    for workers in (0, 3):
        for a, b in zip(alone, prepared(make, range(4), workers), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    parts = [kind(data, recipe(), 2, 32, 0, rank=rank)(3) for rank in (0, 1)]
    for whole, *halves in zip(alone[3], *parts, strict=True):
        assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(alone[3][0][:2], alone[3][0][2:])
    assert alone[3]._fields == parts[0]._fields


def test_ems_references_take_the_place_of_simulated_degradations(tmp_path: Path) -> None:
    for half, value in (("Infrared", 120), ("Infrared_gt", 120), ("Visible", 30), ("Visible_gt", 180)):
        folder = tmp_path / "set" / "Low_light" / "train" / half
        folder.mkdir(parents=True)
        for k in range(12):
            shape = (40, 40) if "Infrared" in half else (40, 40, 3)
            write_png(folder / f"{k}.png", np.full(shape, value, np.uint8))
    ems = recipe(pairs=[], sets=[{"layout": "ems", "root": "set"}], clean_share=0, mixed_share=0, reference_share=1)
    batch = FusionBatches(tmp_path, ems, 6, 32, 0)(0)
    assert batch.visible.unique().tolist() == [30]
    assert batch.visible_clean.unique().tolist() == [180]
    assert batch.infrared_clean.unique().tolist() == [120]
    assert batch.infrared.float().std() > 0.1275  # the reference repeats the image, so it is degraded as others are
    restoration = RestorationBatches(tmp_path, ems, 4, 32, 0)
    assert restoration.references["infrared"] == []
    made = restoration(0)
    assert made.degraded[1::2].unique().tolist() == [30]
    assert made.clean[1::2].unique().tolist() == [180]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_while_a_batch_is_made_stays_one_line(workers: int) -> None:
    def make(iteration: int) -> tuple[torch.Tensor, ...]:
        if iteration == 1:
            raise DataError("gone.png: it was there before; put it back")
        return (torch.full((1,), float(iteration)),)

    batches = prepared(make, range(4), workers)
    assert next(batches)[0].item() == 0
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == "gone.png: it was there before; put it back"


def test_crops_are_scaled_as_averages_of_their_pixels(rng) -> None:
    smooth = np.linspace(0, 250, 100).astype(np.uint8)
    picture = np.repeat(np.repeat(smooth[None, :, None], 100, 0), 3, 2)
    for seed in range(12):
        (crop,) = random_crop([picture], 40, np.random.default_rng(seed))
        assert crop.shape == (40, 40, 3)
        steps = np.abs(np.diff(crop[0, :, 0].astype(int)))
        assert 2 <= np.median(steps) <= 7
    checks = (np.indices((100, 100)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    (flat,) = random_crop([checks], 40, _always_widest())
    assert abs(flat.astype(int) - 127).max() <= 1


class _always_widest:  # noqa: N801
    def random(self) -> float:
        return 0.4

    def integers(self, low: int, high: int | None = None) -> int:
        return 0 if high is None else high - 1


def test_recipes_name_sets(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    stages = "\n".join(
        f"[{name}]\niterations = 1\nbatch = 2\ncrop = 32\nlearning_rate = 1e-3" for name in ("restore", "fuse")
    )
    sets = '[[data.sets]]\nlayout = "harvard"\nroot = "medical"\npart = "ct"\n'
    path.write_text(f'preset = "nano"\n[data]\nkeep_gib = 0.5\n{sets}{stages}\n')
    assert read_recipe(path).data.sets == (DataSet(layout="harvard", root="medical", part="ct"),)
    path.write_text(f'preset = "nano"\n[data]\n{stages}\n')
    with pytest.raises(DataError, match=r"data: .*name images in pairs or \[\[data\.sets\]\]"):
        read_recipe(path)


def test_a_contact_sheet_shows_every_degradation(data: Path, tmp_path: Path) -> None:
    held = [stem for stem in map(str, range(400)) if is_held_out(stem)]
    for half in ("infrared", "visible"):
        for path, stem in zip(sorted((data / "set" / half).iterdir()), held, strict=False):
            path.rename(path.with_stem(stem))
    out = tmp_path / "new" / "sheet.png"
    contact_sheet.main(data, out, ["set"], count=2, seed=1, side=64)
    sheet = read_with_channels(out, "visible")
    rows = max(len(contact_sheet.rows_of(m)) for m in DEGRADATIONS)
    assert sheet.shape == (rows * (64 + contact_sheet.LABEL_PX), 2 * (2 * 64 + contact_sheet.GAP_PX), 3)
    for modality, kinds in DEGRADATIONS.items():
        assert {(), *((kind,) for kind in kinds)} < set(contact_sheet.rows_of(modality))
        assert all(set(mixture) <= set(kinds) for mixture in contact_sheet.MIXTURES[modality])


def test_throughput_tells_data_from_network_and_sees_batches_that_differ(data: Path, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def passing(seconds: float) -> list:
        clock[0] += seconds
        return []

    times = throughput.measure(lambda k: passing(0.003), lambda batch: passing(0.006), 10, (0,))
    assert {len(of_turns) for of_turns in times.values()} == {throughput.ROUNDS}
    assert throughput.summary(times, (0,)) == pytest.approx(
        {"data_ms": 3, "network_ms": 6, "together_0_workers_ms": 9, "network_share_0_workers": 0.667}
    )
    make = FusionBatches(data, recipe(), 2, 32, 0)
    throughput.refuse_other_batches(make, 3, 2)
    with pytest.raises(DataError, match="batch 0 of 2 workers differs"):
        throughput.refuse_other_batches(lambda k: FusionBatch(*[torch.full((1,), float(os.getpid()))] * 4), 3, 2)


def test_throughput_is_kept(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    stages = "\n".join(
        f"[{name}]\niterations = 1\nbatch = 2\ncrop = 32\nlearning_rate = 1e-3" for name in ("restore", "fuse")
    )
    path, out = tmp_path / "mine.toml", tmp_path / "throughput-fuse-m.json"
    path.write_text(f'preset = "nano"\n[data]\npairs = ["set"]\n{stages}\n')
    throughput.main(path, data, "fuse", iterations=1, workers=1, out=out)
    assert len(json.loads(out.read_text())["rounds_ms"]["network_ms"]) == 1
    with pytest.raises(OutputError, match="cannot be written"):
        throughput.main(path, data, "fuse", iterations=1, workers=1, out=tmp_path / "absent" / "x.json")
