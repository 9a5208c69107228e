"""Areas: what lies inside one, how they overlap, and what they do to a fused pair."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from cled_edge import Controls, Fuser
from cled_edge.areas import Area, Areas
from cled_edge.errors import CledEdgeError, OptionError, SourceUnreadableError
from cled_edge.fuser import COLD
from cled_edge.image import write_png
from cled_edge.memory import Memory
from cled_edge.tiling import Tiling, fuse_tiled


@pytest.fixture(scope="module")
def fuser():
    with Fuser.load() as opened:
        yield opened


def shares(*areas: Area, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    found = Areas(areas).strength_map(size)
    assert found is not None
    return found


def test_no_area_makes_no_map() -> None:
    assert Areas([]).strength_map((4, 4)) is None


def test_a_box_holds_the_pixels_whose_centres_lie_in_it() -> None:
    found = shares(Area.box(0.25, 0.5, 0.75, 1.0, share=0, modality="visible"))
    wanted = np.full((40, 60), 255)
    wanted[10:30, 30:] = 0
    assert (found[:, :, 0] == 255).all()
    assert (found[:, :, 1] != wanted).mean() < 0.03  # OpenCV draws the edge as well
    assert (found[11:29, 31:, 1] == 0).all()


def test_the_later_of_two_areas_holds_where_they_overlap() -> None:
    found = shares(Area(0), Area.box(0, 0, 0.5, 1, share=1, modality="infrared"), Area.box(0, 0, 1, 0.25, share=0.2))
    assert tuple(found[30, 50]) == (0, 0)
    assert tuple(found[5, 50]) == (255, 0)
    assert tuple(found[5, 5]) == (51, 51)


def test_a_mask_is_enlarged_and_its_grey_lies_between(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 255
    write_png(tmp_path / "mask.png", mask)
    found = shares(Area(0.5, "infrared", mask=tmp_path / "mask.png"))
    assert (found[:, :20, 0] == 255).all()
    assert (found[:, 40:, 0] == 128).all()
    between = found[20, 25:35, 0].astype(int)
    assert (np.diff(between) <= 0).all()
    assert len(set(between)) > 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Area(1.5), "share of an area is 1.5; it must lie between 0 and 1"),
        (lambda: Area(float("nan")), "share of an area is nan"),
        (lambda: Area(0, "thermal"), "'thermal'; known: both, infrared, visible"),
        (lambda: Area(0, polygon=((0, 0), (1, 1))), "has 2 corners; it needs 3"),
        (lambda: Area(0, polygon=((0, 0), (0, 640), (1, 1))), r"corner of an area is \(0, 640\)"),
        (lambda: Area(0, polygon=((0, 0), (0, 1), (1, 1)), mask=Path("m.png")), "a polygon and a mask"),
        (lambda: Area(valid=False), "modality 'both' and no share; needed one camera"),
        (lambda: Area(0.5, "visible", valid=False), "'visible' and share; needed one camera, infrared or visible"),
        (lambda: Area(1, "visible", valid=False, attention=0), "and share and attention; needed one camera"),
        (Area, "an area says nothing; needed a share, an attention, or valid = false"),
        (lambda: Area(attention=1.5), r"attention of an area is 1\.5"),
        (lambda: Area.box(0.5, 0, 0.5, 1, share=0), "needed top < bottom"),
    ],
)
def test_what_is_no_area_is_refused(make, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


def test_a_mask_that_is_no_picture_is_refused_before_the_first_pair(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("no picture")
    with pytest.raises(CledEdgeError, match=r"mask\.png"):
        Areas([Area(0, mask=tmp_path / "mask.png")])
    with pytest.raises(SourceUnreadableError, match="is no file"):
        Areas([Area(0, mask=tmp_path / "other.png")])


def test_a_map_is_drawn_once_for_a_size() -> None:
    areas = Areas([Area(0.5)])
    assert areas.strength_map((8, 8)) is areas.strength_map((8, 8))


def test_an_area_of_no_strength_stays_as_it_is() -> None:
    rng = np.random.default_rng(3)
    infrared, visible = rng.integers(0, 256, (32, 48), np.uint8), rng.integers(0, 256, (32, 48, 3), np.uint8)
    areas = Areas([Area.box(0, 0, 1, 0.5, share=0, modality="infrared")])
    with Fuser.load() as fuser:
        whole = fuser(infrared, visible, Controls())
        part = fuser(infrared, visible, Controls(), strength_map=areas.strength_map((32, 48)))
    assert np.abs(whole.infrared.astype(int) - infrared).max() > 4
    assert np.abs(part.infrared[:, :20].astype(int) - infrared[:, :20]).max() <= 1
    np.testing.assert_allclose(part.infrared[:, 28:], whole.infrared[:, 28:], atol=1)
    np.testing.assert_allclose(part.visible, whole.visible, atol=1)


def test_validity_is_soft_outside_an_area_and_0_inside() -> None:
    areas = Areas([Area.box(0.25, 0.25, 0.75, 0.75, modality="infrared", valid=False)])
    assert areas.strength_map((80, 80)) is None
    found = areas.validity((80, 80))
    assert found is not None
    assert (found[20:60, 20:60, 0] == 0).all()
    assert (found[:, :, 1] == 255).all()
    assert (found[:2, :, 0] == 255).all()
    ramp = found[40, :21, 0].astype(int)
    assert (np.diff(ramp) <= 0).all()
    assert len(set(ramp)) > 8


def test_validity_of_areas_holds_beside_that_of_a_pair() -> None:
    areas = Areas([Area(modality="infrared", valid=False, polygon=((0, 0), (0, 0.5), (1, 0.5), (1, 0)))])
    pair = np.full((40, 60, 2), 255, np.uint8)
    pair[:10, :, 1] = 0
    joined = areas.validity((40, 60), pair)
    assert joined is not None
    assert areas.validity((40, 60), pair) is joined, "what is shown beside a border is found once"
    assert tuple(joined[20, 10]) == (0, 255)
    assert tuple(joined[5, 55]) == (255, 0)
    assert tuple(joined[2, 5]) == (255, 0), "one image is better than none"
    assert Areas([]).validity((40, 60), pair) is pair
    assert Areas([]).validity((40, 60)) is None


def test_where_a_camera_shows_nothing_the_other_one_is_shown_whole_and_in_tiles() -> None:
    rng = np.random.default_rng(3)
    infrared, visible = rng.integers(0, 256, (160, 192), np.uint8), rng.integers(0, 256, (160, 192, 3), np.uint8)
    left = Area(modality="infrared", valid=False, polygon=((0, 0), (0, 0.5), (1, 0.5), (1, 0)))
    with Fuser.load() as fuser:
        plain = fuser(infrared, visible)
        fuser.areas = Areas([left])
        whole, tiled = fuser(infrared, visible), fuse_tiled(fuser, infrared, visible, None, Tiling((128, 128), 32))
        validity = np.full((160, 192, 2), 255, np.uint8)
        validity[:40, :, 1] = 0
        both = fuser(infrared, visible, validity=validity)
        with pytest.raises(OptionError, match=r"validity is uint8 \(4, 4, 2\), needed uint8 \(160, 192, 2\)"):
            fuser(infrared, visible, validity=np.zeros((4, 4, 2), np.uint8))
    for fused in (whole, tiled, both):
        np.testing.assert_array_equal(fused.picture[60:, :90], fused.visible[60:, :90])
    np.testing.assert_array_equal(whole.picture[:, 120:], plain.picture[:, 120:])
    np.testing.assert_array_equal(both.picture[:40, 120:], np.stack([both.infrared[:40, 120:]] * 3, axis=2))


def test_attention_leans_on_either_restored_image_where_it_is_asked_for(fuser: Fuser) -> None:
    rng = np.random.default_rng(7)
    pair = rng.integers(30, 220, (64, 96), np.uint8), rng.integers(30, 220, (64, 96, 3), np.uint8)
    plain = fuser(*pair)
    attention = np.zeros((64, 96), np.float32)
    attention[:, 32:64], attention[:, 64:] = -1, 1
    found = fuser(*pair, attention=attention)
    assert np.array_equal(found.picture[:, :32], plain.picture[:, :32])
    assert np.array_equal(found.picture[:, 32:64], plain.visible[:, 32:64])
    luma = found.picture[:, 64:].astype(float) @ [0.299, 0.587, 0.114]
    inside = ((found.picture[:, 64:] > 0) & (found.picture[:, 64:] < 255)).all(axis=2)  # colours that were not cut
    assert np.abs(luma - plain.infrared[:, 64:])[inside].max() <= 1
    assert np.array_equal(found.infrared, plain.infrared)
    half = fuser(*pair, attention=-0.5 * np.ones((64, 96), np.float32)).picture.astype(int)
    assert np.abs(half - (plain.picture.astype(int) + plain.visible) / 2).max() <= 1


def test_at_its_ends_attention_gives_what_balance_gives(fuser: Fuser) -> None:
    rng = np.random.default_rng(8)
    pair = rng.integers(60, 190, (64, 64), np.uint8), rng.integers(90, 160, (64, 64, 3), np.uint8)
    for balance, attention in ((0.0, -1.0), (1.0, 1.0)):
        wanted = fuser(*pair, Controls(balance=balance)).picture.astype(int)
        found = fuser(*pair, attention=np.full((64, 64), attention, np.float32)).picture.astype(int)
        assert np.abs(found - wanted).max() <= 2


def test_areas_of_attention_are_soft_later_ones_hold_and_tiles_have_them(fuser: Fuser) -> None:
    areas = Areas([Area(attention=-1.0), Area.box(0, 0.5, 1, 1, attention=0.5)])
    found = areas.attention((96, 160))
    assert found is not None
    assert (found[:, :60] == -1).all()
    assert np.abs(found[:, 100:] - 0.5).max() < 1e-6
    assert len(np.unique(found[50, 70:90])) > 10
    assert areas.strength_map((96, 160)) is None
    back = Areas([*areas.areas, Area.box(0, 0.75, 1, 1, attention=0)]).attention((96, 160))
    assert back is not None
    assert (back[:, 130:] == 0).all()
    rng = np.random.default_rng(9)
    pair = rng.integers(30, 220, (96, 160), np.uint8), rng.integers(30, 220, (96, 160, 3), np.uint8)
    leaning = Fuser(fuser.bundle, fuser.backend, areas=areas)
    tiled = fuse_tiled(leaning, *pair, None, Tiling((64, 64), 32))
    assert np.array_equal(tiled.picture[:, :60], tiled.visible[:, :60])


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        (np.zeros((32, 32)), r"attention is float64 \(32, 32\), needed an array float32 \(64, 64\)"),
        (np.zeros((32, 32), np.float32), r"attention is float32 \(32, 32\), needed"),
        ([[0.0]], "attention is list, needed an array"),
        (np.full((64, 64), np.nan, np.float32), "attention goes from nan to nan; each number must lie between -1"),
        (np.full((64, 64), 1.5, np.float32), "attention goes from 1.5 to 1.5"),
    ],
)
def test_attention_that_is_none_is_refused(fuser: Fuser, attention, words: str) -> None:
    pair = np.full((64, 64), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    with pytest.raises(OptionError, match=words):
        fuser(*pair, attention=attention)


def test_areas_over_others_keep_the_masks_that_were_read(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", np.full((8, 8), 255, np.uint8))
    below = Areas([Area(0.5, mask=tmp_path / "mask.png")])
    (tmp_path / "mask.png").unlink()
    over = Areas([Area.box(0, 0, 0.5, 1, share=1)], below=below)
    found = over.strength_map((16, 16))
    assert found is not None
    assert (found[:7] == 255).all()
    assert (found[9:] == 128).all()
    assert over.areas[0] is below.areas[0]


def test_maps_of_areas_that_are_replaced_are_freed_at_once() -> None:
    gc.disable()
    try:
        areas = Areas([Area.box(0, 0, 0.5, 1, share=0, attention=1), Area(modality="visible", valid=False)])
        for size in ((8, 8), (9, 9), (10, 10), (11, 11), (12, 12)):
            assert areas.strength_map(size) is areas.strength_map(size)
            areas.attention(size), areas.validity(size)
        gone = weakref.ref(areas)
        del areas
        assert gone() is None
    finally:
        gc.enable()


def test_a_share_of_all_and_an_attention_of_nothing_make_no_map() -> None:
    areas = Areas([Area(1, "visible"), Area.box(0, 0, 0.5, 1, attention=0)])
    assert areas.strength_map((8, 8)) is None
    assert areas.attention((8, 8)) is None


def test_a_share_tells_that_it_switches_steadiness_off(fuser: Fuser) -> None:
    rng, memory = np.random.default_rng(4), Memory()
    pair = rng.integers(60, 190, (64, 64), np.uint8), rng.integers(90, 160, (64, 64, 3), np.uint8)
    steady, share = Controls(steadiness=0.5), Areas([Area.box(0, 0, 0.5, 1, share=0)])
    assert COLD not in fuser(*pair, steady, memory=memory).notes
    assert COLD in fuser(*pair, steady, memory=memory, areas=share).notes
