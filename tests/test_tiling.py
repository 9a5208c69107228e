"""Tiles: where they lie, what they weigh, that they show no seam, and what they hold in memory."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cled_edge import Fuser
from cled_edge.areas import Areas
from cled_edge.contract import Controls
from cled_edge.errors import OptionError, SizeMismatchError
from cled_edge.frame import MONOTONIC, Frame, FusedFrame
from cled_edge.image import grey_from_any, read_image, rgb_from_any, write_png
from cled_edge.thermal import WHITE_HOT, Thermal
from cled_edge.tiling import Axis, Tiling, fuse_tiled, shrunk, toned

MULTIPLE = 8
TILING = Tiling((32, 48), 16)
Change = Callable[[np.ndarray], np.ndarray]


class FakeFuser(Fuser):
    """Returns both inputs as `change` makes them, and remembers their sizes as a network would see them."""

    def __init__(self, change: Change = lambda x: x) -> None:
        self.change = change
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(size_multiple=MULTIPLE, tints_grey=False))
        self.color_order = "RGB"
        self.thermal = WHITE_HOT
        self.areas = Areas(())
        self.sizes: list[tuple[int, ...]] = []
        self.asked: list[Controls | None] = []
        self.maps: list[np.ndarray | None] = []
        self.noises: list[np.ndarray | None] = []

    def fuse(
        self,
        infrared: np.ndarray,
        visible: np.ndarray,
        controls: Controls,
        strength_map: np.ndarray | None = None,
        noise: np.ndarray | None = None,
    ) -> FusedFrame:
        self.sizes.append(tuple(side + -side % MULTIPLE for side in infrared.shape))
        self.asked.append(controls)
        self.maps.append(strength_map)
        self.noises.append(noise)
        grey, rgb = self.change(grey_from_any(infrared)), self.change(rgb_from_any(visible))
        return FusedFrame(
            np.ascontiguousarray(rgb[:, :, ::-1]), grey, rgb, latency_ns={"prepare": 1, "network": 10, "output": 100}
        )

    def with_thermal(self, thermal: Thermal) -> "FakeFuser":
        return self


def pair_of(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)


def smooth_pair(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bright at the left and dark at the right, so that means of tiles differ; no two neighbours by more than 1."""
    ramp = np.broadcast_to(np.linspace(200, 40, size[1]), size)
    return np.rint(ramp).astype(np.uint8), np.rint(np.stack([ramp, ramp / 2, ramp / 4], axis=2)).astype(np.uint8)


def outputs(fused: FusedFrame) -> tuple[np.ndarray, ...]:
    return fused.picture, fused.infrared, fused.visible


@pytest.mark.parametrize("tile_px", [32, 48, 64])
def test_weights_sum_to_one_and_tiles_cover_and_overlap_at_every_size(tile_px: int) -> None:
    for side_px in range(1, 5 * tile_px):
        axis = Axis.cut(side_px, tile_px, 16, MULTIPLE)
        assert np.abs(axis.weights.sum(axis=0) - 1).max() < 1e-6
        assert axis.weights.min() >= 0
        assert axis.weights.max() <= 1
        assert axis.starts[0] == 0
        assert all(start % MULTIPLE == 0 for start in axis.starts)
        assert 0 <= axis.starts[-1] + axis.tile_px - side_px < MULTIPLE
        assert all(0 < b - a <= tile_px - 16 for a, b in zip(axis.starts, axis.starts[1:], strict=False))
        for index, weights in enumerate(axis.weights):
            outside = np.ones(side_px, bool)
            outside[axis.slice(index)] = False
            assert not weights[outside].any()
        if side_px <= tile_px:
            assert len(axis.starts) == 1


def test_weights_rise_by_small_steps() -> None:
    axis = Axis.cut(1000, 256, 128, 32)
    assert np.abs(np.diff(axis.weights, axis=1)).max() < np.pi / 2 / 128 * 1.01


@pytest.mark.parametrize(
    "size", [(33, 48), (32, 49), (33, 49), (40, 200), (97, 131), (64, 48), (7, 300), (250, 370), (255, 383)]
)
def test_what_no_tile_changes_comes_back_bit_for_bit_from_one_shape(size: tuple[int, int], rng) -> None:
    pair, fuser = pair_of(size, rng), FakeFuser()
    tiled = fuse_tiled(fuser, *pair, None, TILING)
    for got, wanted in zip(outputs(tiled), outputs(FakeFuser()(*pair)), strict=True):
        assert got.dtype == np.uint8
        assert np.array_equal(got, wanted)
    wanted_tile = tuple(min(tile, side + -side % MULTIPLE) for tile, side in zip(TILING.tile, size, strict=True))
    assert set(fuser.sizes[1:]) == {wanted_tile}
    assert all(side <= tile for side, tile in zip(fuser.sizes[0], TILING.tile, strict=True)), "the reduced picture"


def test_what_fits_one_tile_is_fused_whole(rng) -> None:
    for size in ((32, 48), (31, 17)):
        pair, fuser, controls = pair_of(size, rng), FakeFuser(), Controls(balance=0.25)
        tiled = fuse_tiled(fuser, *pair, controls, TILING)
        assert len(fuser.sizes) == 1
        assert fuser.asked == [controls]
        for got, wanted in zip(outputs(tiled), outputs(FakeFuser()(*pair)), strict=True):
            assert np.array_equal(got, wanted)


def test_every_tile_gets_the_controls_and_stages_are_summed(rng) -> None:
    fuser, controls = FakeFuser(), Controls(steps=2, strength_visible=0.5)
    latency_ns = fuse_tiled(fuser, *pair_of((70, 100), rng), controls, TILING).latency_ns
    tiles = 4 * 3  # as 32 go into 70 and 48 into 100 with 16 shared
    assert fuser.asked == [controls] * (1 + tiles)
    assert list(latency_ns) == ["prepare", "network", "output"]
    assert latency_ns["network"] == 10 * (1 + tiles)
    assert latency_ns["output"] > 100 * (1 + tiles)


def test_tiles_of_different_tone_show_no_step() -> None:
    """Each call adds half its own mean, as statistics of the whole picture do: up to 40 levels from tile to tile."""

    def brightened(x: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(x * 0.5 + x.mean(axis=(0, 1)) / 2), 0, 255).astype(np.uint8)

    pair = smooth_pair((96, 240))
    whole = FakeFuser(brightened)(*pair)
    fused = fuse_tiled(FakeFuser(brightened), *pair, None, TILING)
    tiles = [FakeFuser(brightened)(*(x[:, left : left + 48] for x in pair)).infrared.mean() for left in (0, 192)]
    alone = [whole.infrared[:, left : left + 48].mean() for left in (0, 192)]
    assert max(abs(a - b) for a, b in zip(tiles, alone, strict=True)) > 25, "the fake is no test"
    for got, wanted in zip(outputs(fused), outputs(whole), strict=True):
        assert np.abs(got.astype(int) - wanted).max() <= 3
        for axis in (0, 1):
            assert np.abs(np.diff(got.astype(int), axis=axis)).max() <= 2


def test_contrast_comes_from_the_whole_picture_too(rng) -> None:
    """A tile with three times the contrast of the whole is brought back: a gain, not an offset alone."""
    coarse = np.kron(rng.integers(100, 156, (12, 16)), np.ones((8, 8), int)).astype(np.uint8)
    harder = np.clip((coarse.astype(int) - 128) * 3 + 128, 0, 255).astype(np.uint8)
    got = toned(harder, shrunk(coarse, 4), 4)
    assert got.dtype == np.float32
    assert np.abs(got - coarse).mean() < 3
    assert np.abs(harder.astype(int) - coarse).mean() > 20


@pytest.mark.parametrize("size", [(64, 96), (67, 101), (3, 101), (700, 8)])
def test_reduced_pictures_are_means_of_squares(size: tuple[int, int], rng) -> None:
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    height, width = (max(side // 4, 1) for side in size)
    used = picture[: size[0] // 4 * 4 or None, : size[1] // 4 * 4 or None].astype(float)
    wanted = used.reshape(height, -1, width, used.shape[1] // width, 3).mean(axis=(1, 3))
    assert np.abs(shrunk(picture, 4) - wanted).max() <= 0.5 + 1e-6
    reversed_in_memory = np.ascontiguousarray(picture[:, :, ::-1])[:, :, ::-1]
    assert np.array_equal(shrunk(reversed_in_memory, 4), shrunk(picture, 4))


def test_sixteen_bit_is_stretched_once_for_all_tiles(rng) -> None:
    grey, visible = pair_of((70, 100), rng)
    deep = grey.astype(np.uint16) * np.linspace(20, 200, 100).astype(np.uint16)
    assert np.array_equal(fuse_tiled(FakeFuser(), deep, visible, None, TILING).infrared, grey_from_any(deep))


def test_memory_is_a_band_of_tiles_beside_inputs_and_outputs(rng) -> None:
    def grown_bytes(height_px: int) -> int:
        pair = pair_of((height_px, 384), rng)
        tracemalloc.start()
        result = fuse_tiled(FakeFuser(), *pair, None, Tiling((128, 128), 16))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - sum(x.nbytes for x in outputs(result))

    band = 128 * 384 * 7 * 4
    low, high = grown_bytes(384), grown_bytes(960)
    assert high < low + 64 * 1024, "576 rows more are 1.5 MB more in and 1.5 out"
    assert high < 3 * band


@pytest.mark.parametrize("text", ["", "768", "768x", "x1024", "768x1024x3", "-768x1024", "768.5x1024", "768 x 1024"])
def test_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="it must be HEIGHTxWIDTH in pixels, such as 480x640"):
        Tiling.parse(text)


def test_tiles_that_do_not_fit_are_refused(rng) -> None:
    assert Tiling.parse("768x1024") == Tiling((768, 1024))
    with pytest.raises(OptionError, match="tile 128x512 has a side below twice the overlap of 128 pixels"):
        Tiling.parse("128x512")
    with pytest.raises(OptionError, match="tile is 33x48; this bundle needs multiples of 8; take 40x48"):
        fuse_tiled(FakeFuser(), *pair_of((9, 9), rng), None, Tiling((33, 48), 16))
    with pytest.raises(OptionError, match="overlap_px is 12; this bundle needs a multiple of 8"):
        fuse_tiled(FakeFuser(), *pair_of((9, 9), rng), None, Tiling((32, 48), 12))
    with pytest.raises(OptionError, match="overlap_px is 0"):
        Tiling((32, 48), 0)
    with pytest.raises(OptionError, match="tile 32x48 is too small for an image of 32x400; take 32x56 or larger"):
        fuse_tiled(FakeFuser(), *pair_of((32, 400), rng), None, TILING)
    with pytest.raises(SizeMismatchError, match="infrared is 70x100, visible 70x99"):
        fuse_tiled(FakeFuser(), np.zeros((70, 100), np.uint8), np.zeros((70, 99, 3), np.uint8), None, TILING)


def test_the_shipped_bundle_shows_no_more_step_at_a_border_than_elsewhere(rng) -> None:
    """A street with a lamp in one corner: tiles alone would differ by its glow."""
    from benchmarks.seams import axes, seams
    from cled_edge.scene.night_street import night_street

    frame = next(iter(night_street(1, (480, 640))))
    tiling = Tiling((256, 384), 64)
    with Fuser.load() as fuser:
        whole = fuser(frame.infrared, frame.visible)
        tiled = fuse_tiled(fuser, frame.infrared, frame.visible, None, tiling)
        rows, columns = axes(fuser, frame.infrared.shape, tiling)
    for got, wanted in zip(outputs(tiled), outputs(whole), strict=True):
        found = seams(got, wanted, rows, columns, 32)
        assert found["border_levels"] < max(1.5 * found["away_levels"], 0.5), found


def test_the_measure_of_seams_sees_a_step_and_no_more(rng) -> None:
    from benchmarks.seams import seams

    rows, columns = Axis.cut(512, 128, 32, 32), Axis.cut(768, 256, 32, 32)
    untiled = rng.integers(100, 150, (512, 768, 3), np.uint8)
    noisy = (untiled + rng.integers(0, 5, untiled.shape)).astype(np.uint8)
    assert 0.8 < seams(noisy, untiled, rows, columns, 32)["seam_ratio"] < 1.2
    noisy[rows.starts[1] :] += 3
    stepped = seams(noisy, untiled, rows, columns, 32)
    assert stepped["seam_ratio"] > 2
    assert stepped["worst_border_levels"] == pytest.approx(3, abs=0.3)
    same = seams(untiled, untiled, rows, columns, 32)
    assert (same["seam_ratio"], same["tone_levels"]) == (1.0, 0.0)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cled_edge.cli", "fuse", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_line_fuses_in_tiles(tmp_path: Path, rng) -> None:
    size = (300, 400)
    for name, picture in zip(("infrared", "visible"), pair_of(size, rng), strict=True):
        write_png(tmp_path / f"{name}.png", picture)
    sides = ("--infrared", tmp_path / "infrared.png", "--visible", tmp_path / "visible.png", "--out", tmp_path / "out")
    kept = ("--strength-visible", 0, "--restored", tmp_path / "restored")
    done = run(*sides, *kept, "--tile", "256x256", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["written"], report["size"]) == (1, [300, 400])
    assert read_image(tmp_path / "out" / "visible.png", color=True).shape == (*size, 3)
    restored = read_image(tmp_path / "restored" / "visible" / "visible.png", color=True)
    assert np.array_equal(restored, read_image(tmp_path / "visible.png", color=True)), "a strength of 0 changes nothing"


@pytest.mark.parametrize(
    ("tile", "words"),
    [("256", "it must be HEIGHTxWIDTH"), ("64x256", "twice the overlap"), ("260x256", "take 288x256")],
)
def test_the_command_line_refuses_tiles_in_one_line(write_pairs, tmp_path: Path, tile: str, words: str) -> None:
    infrared, visible = write_pairs()
    done = run("--infrared", infrared, "--visible", visible, "--out", tmp_path / "out", "--tile", tile)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_each_tile_gets_its_part_of_the_strength_map() -> None:
    size = (96, 128)
    fuser, rng = FakeFuser(), np.random.default_rng(4)
    strength_map = rng.integers(0, 256, (*size, 2), np.uint8)
    fuse_tiled(fuser, *pair_of(size, rng), None, TILING, strength_map=strength_map)
    rows, columns = (
        Axis.cut(side, tile, TILING.overlap_px, MULTIPLE) for side, tile in zip(size, TILING.tile, strict=True)
    )
    whole, *parts = fuser.maps
    assert whole is not None
    assert whole.mean() == pytest.approx(strength_map.mean(), abs=1)
    places = [(rows.slice(i), columns.slice(j)) for i in range(len(rows.starts)) for j in range(len(columns.starts))]
    for part, place in zip(parts, places, strict=True):
        np.testing.assert_array_equal(part, strength_map[place])


def test_a_strength_map_of_another_size_is_refused() -> None:
    pair, wrong = pair_of((96, 128), np.random.default_rng(4)), np.zeros((10, 10, 2), np.uint8)
    with pytest.raises(OptionError, match=r"strength_map is uint8 \(10, 10, 2\), needed uint8 \(96, 128, 2\)"):
        fuse_tiled(FakeFuser(), *pair, None, TILING, strength_map=wrong)


def test_tiles_take_frames_leave_flat_images_as_they_are_and_refuse_steadiness(rng) -> None:
    infrared, visible = pair_of((70, 100), rng)
    frames = [Frame(image, 5, MONOTONIC, 0, "a camera") for image in (infrared, visible)]
    tiled = fuse_tiled(FakeFuser(), *frames, None, TILING)
    assert tiled.skew_ns == 0
    flat = fuse_tiled(FakeFuser(lambda x: x // 2), infrared // 255, visible // 255, None, TILING)
    assert np.array_equal(flat.picture, np.maximum(flat.infrared[:, :, None], flat.visible)), "the maximum of both"
    with pytest.raises(OptionError, match=r"steadiness is 0\.5, but each tile is fused for itself"):
        fuse_tiled(FakeFuser(), infrared, visible, Controls(steadiness=0.5), TILING)
