"""Bytes to network and back, and every kind of infrared picture that cameras give."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cled_edge.errors import OptionError, OutputError, SourceMissingError, SourceUnreadableError
from cled_edge.image import (
    bytes_from_network,
    grey_from_any,
    network_from_bytes,
    read_any_depth,
    read_image,
    rgb_from_any,
    swapped,
    write_png,
)
from cled_edge.tensors import pad, pad_swapped


def test_every_byte_survives_the_network_range() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x = network_from_bytes(every)
    assert x.dtype == np.float32
    assert x.min() == -1
    assert x.max() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(bytes_from_network(x), every.transpose(1, 2, 0))


@pytest.mark.parametrize("size", [(1, 3), (30, 64), (48, 33), (64, 64), (33, 90)])
def test_swapped_and_padded_at_once_is_the_same(size: tuple[int, int], rng) -> None:
    color = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    assert np.array_equal(pad_swapped(color, 32), pad(swapped(color), 32))


def test_values_outside_the_range_are_clamped() -> None:
    assert bytes_from_network(np.array([[[-5.0, 5.0]]], np.float32)).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_infrared_of_one_and_three_channels_is_the_same(dtype, rng) -> None:
    grey = rng.integers(0, np.iinfo(dtype).max, (12, 20), dtype)
    one = grey_from_any(grey)
    assert one.shape == (12, 20)
    assert one.dtype == np.uint8
    assert np.array_equal(one, grey_from_any(grey[:, :, None]))
    assert np.array_equal(one, grey_from_any(np.repeat(grey[:, :, None], 3, axis=2)))


def test_eight_bit_infrared_is_untouched(rng) -> None:
    grey = rng.integers(0, 256, (12, 20), np.uint8)
    assert np.array_equal(grey_from_any(grey), grey)


def test_sixteen_bit_infrared_uses_the_band_that_it_fills() -> None:
    counts = np.linspace(21000, 23000, 4000).reshape(40, 100).astype(np.uint16)
    grey = grey_from_any(counts)
    assert grey.min() == 0
    assert grey.max() == 255
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()
    assert not grey_from_any(np.full((4, 4), 21000, np.uint16)).any()


def test_sixteen_bit_infrared_is_stretched_as_a_whole_however_high(rng) -> None:
    counts = (rng.normal(20000, 300, (700, 9)) + np.arange(700)[:, None]).astype(np.uint16)
    low, high = (np.float32(np.percentile(counts, share, method="lower")) for share in (0.1, 99.9))
    wanted = np.rint(np.clip((counts - low) * np.float32(255 / (high - low)), 0, 255))
    assert np.abs(grey_from_any(counts) - wanted).max() <= 1, "percentiles may fall between two counts"


@pytest.mark.parametrize(
    ("convert", "picture", "words"),
    [
        (grey_from_any, np.zeros((4, 4), np.float32), "8 or 16 bit unsigned, this one is float32"),
        (grey_from_any, np.zeros((4, 4, 2), np.uint8), r"infrared has shape \(4, 4, 2\)"),
        (grey_from_any, np.zeros((0, 4), np.uint8), r"infrared has shape \(0, 4\)"),
        (rgb_from_any, np.zeros((4, 4, 3), np.uint16), "must be 8 bit, this one is uint16"),
        (rgb_from_any, np.zeros(4, np.uint8), r"visible has shape \(4,\)"),
    ],
)
def test_other_arrays_are_refused(convert, picture, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        convert(picture)


def test_png_round_trip_keeps_colour_order_and_depth(tmp_path: Path, rng) -> None:
    rgb = rng.integers(0, 256, (9, 7, 3), np.uint8)
    write_png(tmp_path / "a.png", rgb)
    assert np.array_equal(read_image(tmp_path / "a.png", color=True), rgb)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[:, :, ::-1], rgb)
    deep = rng.integers(0, 65536, (9, 7), np.uint16)
    cv2.imwrite(str(tmp_path / "b.png"), deep)
    assert np.array_equal(read_any_depth(tmp_path / "b.png"), deep)
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png"}


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match=r"none\.png does not exist"):
        read_any_depth(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(SourceUnreadableError, match=r"text\.png is not a whole picture"):
        read_any_depth(tmp_path / "text.png")
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    for name, content in (("half.jpg", whole[: len(whole) // 2]), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceUnreadableError, match="not a whole picture"):
            read_any_depth(tmp_path / name)
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert read_any_depth(tmp_path / "whole.jpg").shape == (64, 64, 3)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_png(tmp_path / "file" / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(OutputError, match="cannot be written"):
        write_png(tmp_path / "no" / "folder.png", np.zeros((2, 2), np.uint8))
