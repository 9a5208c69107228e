"""Samples and uncertainty: the frame takes the doubt graph where either is asked for, and no graph else changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cled_edge import Bundle, Fuser
from cled_edge.contract import Controls
from cled_edge.errors import OptionError
from cled_edge.memory import Memory
from cled_edge.tensors import noise_batch, start_noise
from cled_edge.tiling import Tiling, fuse_tiled
from tests.fakes.engines import NumpyBackend, small_bundle

SIZE = (44, 60)  # no multiple of the bundle's


class Counting(NumpyBackend):
    """Remembers which graphs ran, and all noise."""

    in_use = None

    def __init__(self, bundle: Bundle, choice: str = "onnxruntime:fp32") -> None:
        super().__init__(bundle, choice)
        self.ran: list[str] = []
        self.noises: list[np.ndarray] = []

    def run(self, graph, inputs):
        self.ran.append(graph)
        if graph == "doubt":
            self.noises.append(inputs["noise"].copy())
        return super().run(graph, inputs)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("doubts"), doubts=True)


@pytest.fixture
def pair(rng) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(60, 190, SIZE, np.uint8), rng.integers(60, 190, (*SIZE, 3), np.uint8)


def fuser_of(bundle: Bundle, **options) -> tuple[Fuser, Counting]:
    backend = Counting(bundle)
    return Fuser(bundle, backend, **options), backend


def images(fused) -> tuple[np.ndarray, ...]:
    return fused.picture, fused.infrared, fused.visible


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(images(one), images(other), strict=True))


def test_a_frame_without_either_takes_the_loop_in_one_graph(bundle, pair) -> None:
    fuser, backend = fuser_of(bundle)
    fused = fuser(*pair, Controls(seed=7))
    assert backend.ran == ["fused_loop"]
    assert fused.uncertainty is None


def test_uncertainty_is_told_of_both_images_and_changes_neither(bundle, pair) -> None:
    fuser, backend = fuser_of(bundle, uncertainty=True)
    fused = fuser(*pair)
    assert backend.ran == ["unet_step", "unet_step", "doubt", "fusion"]
    assert list(fused.latency_ns) == ["prepare", "steps", "doubt", "fusion", "output"]
    assert fused.uncertainty is not None
    assert (fused.uncertainty.shape, fused.uncertainty.dtype) == ((2, *SIZE), np.float32)
    wanted = 20 + 10 * np.stack([pair[0] / 127.5 - 1, (pair[1] / 127.5 - 1).mean(axis=2)])
    assert np.abs(fused.uncertainty - wanted).max() < 1e-3
    fuser.uncertainty = False
    assert same(fuser.step_by_step(*pair, Controls()), fused)


def test_a_seed_is_a_sample_and_its_noise_counts_in_proportion(bundle, pair) -> None:
    fuser, _ = fuser_of(bundle)
    plain = fuser.step_by_step(*pair, Controls())
    one, again, other = (fuser(*pair, Controls(start_noise=1.0, seed=seed)) for seed in (3, 3, 4))
    assert same(one, again)
    assert not same(one, other)
    half = fuser(*pair, Controls(start_noise=0.5, seed=3))
    moved, by_half = (x.visible.astype(int) - plain.visible for x in (one, half))
    assert np.abs(moved - 2 * by_half).max() <= 2, "of rounding to bytes"
    assert np.abs(moved).max() > 10
    assert one.uncertainty is not None
    assert np.array_equal(one.uncertainty, other.uncertainty)


def test_noise_has_one_channel_for_infrared_and_the_same_bytes_everywhere() -> None:
    noise = start_noise(Controls(start_noise=0.5, seed=2**31 - 1), (3, 5))
    assert noise is not None
    batch = noise_batch(noise, (2, 3, 8, 8), 8)
    assert batch.dtype == np.float32
    assert np.array_equal(batch[0, 0], batch[0, 1])
    assert not np.array_equal(batch[1, 0], batch[1, 1])
    assert start_noise(Controls(seed=5), (3, 5)) is None
    first = start_noise(Controls(start_noise=1.0), (1, 2))
    assert first is not None
    assert first.ravel().tobytes().hex() == FIRST_BYTES


FIRST_BYTES = "3d0e8f3f4f8db1bf9867dabee5b74dbf2bf7193f0f9699bdda80743dd11803bd"


def test_the_colour_order_of_the_caller_does_not_change_the_sample(bundle, pair) -> None:
    rgb = fuser_of(bundle)[0](*pair, Controls(start_noise=1.0))
    bgr = fuser_of(bundle, color_order="BGR")[0](pair[0], pair[1][:, :, ::-1].copy(), Controls(start_noise=1.0))
    assert np.array_equal(bgr.visible[:, :, ::-1], rgb.visible)


def test_a_map_of_strengths_holds_for_samples_too(bundle, pair) -> None:
    fuser, _ = fuser_of(bundle)
    nothing = np.zeros((*SIZE, 2), np.uint8)
    fused = fuser(*pair, Controls(start_noise=1.0), strength_map=nothing)
    assert np.array_equal(fused.infrared, pair[0])


def test_a_bundle_without_the_graph_refuses_both_in_one_line(tmp_path: Path, pair) -> None:
    without = small_bundle(tmp_path)
    fuser, backend = fuser_of(without)
    words = r"start_noise is 0.5, but .* has no doubt graph in fp32; leave it out, or take a bundle that was exported"
    with pytest.raises(OptionError, match=words):
        fuser(*pair, Controls(start_noise=0.5))
    with pytest.raises(OptionError, match=words):
        fuser.refuse_unfit(Controls(start_noise=0.5))
    fuser.uncertainty = True
    with pytest.raises(OptionError, match=r"uncertainty is asked for, but .* has no doubt graph in fp32"):
        fuser(*pair)
    assert not backend.ran


def test_graphs_of_another_precision_are_no_doubt(bundle, pair) -> None:
    fuser = Fuser(bundle, Counting(bundle, "onnxruntime:fp16"), uncertainty=True)
    with pytest.raises(OptionError, match=r"no doubt graph in fp16; .* on a backend that runs FP32 graphs"):
        fuser(*pair)


def test_steadiness_beside_a_start_noise_is_refused_in_one_line(bundle, pair) -> None:
    fuser, _ = fuser_of(bundle)
    both = Controls(start_noise=0.5, steadiness=0.5)
    with pytest.raises(OptionError, match=r"start_noise is 0.5, and steadiness is 0.5; the warm loop takes no noise"):
        fuser(*pair, both)
    with pytest.raises(OptionError, match=r"start_noise is 0.5, and steadiness is 0.5; .* leave steadiness at 0, or"):
        fuser(*pair, both, memory=Memory())


def test_a_deadline_holds_for_samples_too(bundle, pair) -> None:
    fuser, backend = fuser_of(bundle)
    fused = fuser(*pair, Controls(start_noise=1.0, deadline_ms=60_000))
    assert fused.controls.steps in (1, 2)
    assert backend.ran[-2:] == ["doubt", "fusion"]


def test_tiles_get_their_part_of_one_noise_and_blend_the_uncertainty(bundle, rng) -> None:
    size, tiling = (64, 96), Tiling((32, 48), 16)
    infrared, visible = rng.integers(60, 190, size, np.uint8), rng.integers(60, 190, (*size, 3), np.uint8)
    fuser, backend = fuser_of(bundle)
    controls = Controls(start_noise=1.0, seed=9)
    tiled = fuse_tiled(fuser, infrared, visible, controls, tiling)
    whole = start_noise(controls, size)
    assert whole is not None
    coarse, first, *_, last = backend.noises
    assert last.shape == (2, 3, 32, 48)
    np.testing.assert_allclose(first[0, 0], whole[:32, :48, 0] / 3**0.5, rtol=1e-6)
    wanted = whole[-32:, -48:, 1:].transpose(2, 0, 1).copy()
    wanted[:, 0, 0] = whole[0, 0, 1:]  # the whole image's number stands in the first pixel of every tile
    assert np.array_equal(last[1], wanted)
    assert 0.8 < coarse.std() < 1.2, "a reduced pixel has as much noise"
    plain = replace(controls, start_noise=0.0)
    fuser.uncertainty = True
    untiled = fuser(infrared, visible, plain)
    assert tiled.uncertainty is not None
    assert untiled.uncertainty is not None
    assert tiled.uncertainty.dtype == np.float32
    assert np.abs(tiled.uncertainty - untiled.uncertainty).max() < 1e-3
