"""Views: what each name shows, in the colour order of its frame, and that settings know the same names."""

from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest

from cled_edge.errors import OutputError
from cled_edge.frame import ORDER, Frame, FramePair, FusedFrame
from cled_edge.image import ColorOrder
from cled_edge.output.sink import Shown, open_output
from cled_edge.output.view import VIEWS, shown_image

SIZE = 32, 48


def scene(color_order: ColorOrder = "RGB", infrared_type: type = np.uint8) -> FusedFrame:
    """A hot square in the middle of a cold infrared; a visible that is orange on the left and dark on the right."""
    heat = np.full(SIZE, 10, infrared_type)
    heat[8:24, 16:32] = 250
    color = np.zeros((*SIZE, 3), np.uint8)
    color[:, :24] = 200, 120, 40
    stored = color if color_order == "RGB" else color[:, :, ::-1]
    pair = FramePair(Frame(heat, 0, ORDER, 0, "ir"), Frame(color, 0, ORDER, 0, "vis", "RGB"))
    grey = heat.astype(np.uint8)
    doubt = np.stack(
        [np.full(SIZE, 16, np.float32), np.linspace(0, 64, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)]
    )
    fused = FusedFrame(np.full((*SIZE, 3), 90, np.uint8), grey, stored.copy(), color_order=color_order, pair=pair)
    return replace(fused, uncertainty=doubt)


def rgb(frame: FusedFrame, name: str) -> np.ndarray:
    image = shown_image(frame, name)
    return image[:, :, ::-1] if image.ndim == 3 and frame.color_order == "BGR" else image


def test_the_views_are_those_that_settings_know() -> None:
    assert get_args(Shown) == tuple(VIEWS)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_every_view_is_of_the_frames_size_and_its_colour_order(order: ColorOrder) -> None:
    for name in VIEWS:
        image = rgb(scene(order), name)
        assert image.dtype == np.uint8
        assert image.shape[:2] == (SIZE[0], SIZE[1] * (3 if name == "side-by-side" else 1)), name
        np.testing.assert_array_equal(image, rgb(scene("RGB"), name), name)


def test_both_inputs_and_the_fused_image_stand_side_by_side() -> None:
    image = shown_image(scene(), "side-by-side")
    assert image[16, 24].tolist() == [250] * 3
    assert image[16, 48 + 4].tolist() == [200, 120, 40]
    assert image[16, 96 + 4].tolist() == [90] * 3


def test_an_overlay_shows_heat_where_it_is_hot_and_the_visible_where_it_is_cold() -> None:
    image = shown_image(scene(), "overlay").astype(int)
    hot = cv2.applyColorMap(np.full((1, 1), 250, np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    assert abs(image[16, 28] - hot * 0.85).max() < 6
    assert abs(image[2, 4] - [200, 120, 40]).max() < 12


def test_the_registration_view_draws_the_visibles_edge_over_the_heat() -> None:
    image = shown_image(scene(), "registration")
    white = (image == 255).all(axis=2)
    assert np.flatnonzero(white.any(axis=0)).tolist() != []
    assert set(np.flatnonzero(white.any(axis=0))) <= set(range(21, 27))


def test_counts_of_16_bit_are_shown_as_grey() -> None:
    image = shown_image(scene(infrared_type=np.uint16), "infrared-input")
    assert (image[2, 2], image[16, 24]) == (0, 255)


def test_a_frame_without_inputs_says_so() -> None:
    images = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8), np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(OutputError, match="has no inputs to show"):
        shown_image(FusedFrame(*images), "side-by-side")


def test_an_output_takes_a_view_by_its_name(tmp_path) -> None:
    with open_output(f"side-by-side=folder:{tmp_path}") as output:
        output.write(scene())
    assert cv2.imread(str(tmp_path / "000000.png")).shape == (32, 144, 3)


def test_uncertainty_is_shown_on_one_scale_that_a_large_picture_states() -> None:
    frame = scene()
    infrared, visible = (rgb(frame, f"{name}-uncertainty").astype(int).sum(axis=2) for name in ("infrared", "visible"))
    assert infrared.min() == infrared.max()
    assert visible[0, 0] == 0 or visible[0, 0] < 20, "sure is black"
    assert visible[-1, -1] == visible[SIZE[0] // 2 + 1, 0] == visible.max(), "32 levels and more look alike"
    large = replace(frame, uncertainty=np.zeros((2, 120, 320), np.float32))
    image = shown_image(large, "visible-uncertainty")
    assert image[:90].max() < 20
    assert image[-16:-6, 18:114].max() > 200, "the palette stands in the corner"


def test_a_frame_whose_uncertainty_was_not_asked_for_cannot_show_it() -> None:
    with pytest.raises(OutputError, match="has no uncertainty to show, as it was not asked for"):
        shown_image(replace(scene(), uncertainty=None), "infrared-uncertainty")
