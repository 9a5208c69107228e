"""Points by hand: what the page shows, what it fits and saves, and that nobody else can."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from cled_edge.registration.calibration import read_calibration
from cled_edge.serve.http_thread import HttpThread
from cled_edge.serve.page_address import PageAddress
from cled_edge.serve.points_page import MOST_POINTS, PointsPage, points_application
from tests.serve.conftest import TOKEN, Client

INFRARED, VISIBLE = (60, 80), (96, 160)
# The infrared sees the visible's pixels from (40, 20) on, one by one.
POINTS = [[x, y, x + 40, y + 20] for x in (5, 70) for y in (5, 50)]


@pytest.fixture
def rig(tmp_path: Path, rng) -> PointsPage:
    counts = (27_000 + rng.integers(0, 99, INFRARED)).astype(np.uint16)
    visible = rng.integers(0, 255, VISIBLE).astype(np.uint8)
    return PointsPage([(counts, visible)] * 2, ["a", "b"], tmp_path / "rig.yaml", 3.0)


@pytest.fixture
def served(rig: PointsPage) -> Iterator[Callable[..., Client]]:
    begun: list[HttpThread] = []

    def start(token: str | None = None) -> Client:
        begun.append(HttpThread(points_application(rig), PageAddress("127.0.0.1", 0, token)).__enter__())
        return Client(begun[-1].url)

    yield start
    for each in begun:
        each.__exit__(None, None, None)


def test_points_are_fitted_shown_and_saved_where_the_command_said(rig: PointsPage, served) -> None:
    client = served()
    _, about = client.json("/rig.json")
    assert (about["infrared_size"], about["visible_size"], about["pairs"]) == ([60, 80], [96, 160], ["a", "b"])
    picture = cv2.imdecode(np.frombuffer(client.ask("/picture/infrared/1.png")[1], np.uint8), cv2.IMREAD_UNCHANGED)
    assert (picture.shape, picture.dtype) == (INFRARED, np.uint8)
    assert picture.std() > 30, "counts are stretched"
    assert client.ask("/overlay.png")[0] == 422
    status, told = client.json("/calibrate", {"points": POINTS, "pair": 1, "out": "/tmp/elsewhere.yaml"})  # noqa: S108
    assert (status, told["saved"]) == (200, str(rig.out))
    assert told["error_px"] < 1e-6
    saved = read_calibration(rig.out)
    assert (saved.mode, saved.maps[0].distance_m) == ("points", 3.0)
    assert np.allclose(saved.infrared_points(np.array([[50.0, 30.0]])), [[10, 10]])
    assert cv2.imdecode(np.frombuffer(client.ask("/overlay.png")[1], np.uint8), cv2.IMREAD_COLOR).shape == (96, 320, 3)
    assert not rig.ended.is_set()
    assert client.ask("/done", {})[0] == 200
    assert rig.ended.is_set()


def test_what_is_not_sure_leaves_the_old_calibration_and_names_the_worst_point(rig: PointsPage, served) -> None:
    client = served()
    rig.out.write_text("an old one")
    wrong = [*POINTS, [40, 30, 150, 5]]
    _, told = client.json("/calibrate", {"points": wrong})
    assert (told["saved"], told["worst_point"]) == (None, 5)
    assert told["confidence"] < 0.5
    assert rig.out.read_text() == "an old one"
    assert client.ask("/overlay.png")[0] == 200, "it is shown, to look at"
    assert rig.found is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "there are no points; needed 1 to 200"),
        ({"points": []}, "there are no points"),
        ({"points": [[1, 2, 3]]}, "of four numbers each"),
        ({"points": [[1, 2, 3, "4"]]}, "of four numbers each"),
        ({"points": [[1, 2, 3, True]]}, "of four numbers each"),
        ({"points": POINTS[:3]}, "there are 3 points, needed 4 at least"),
        ({"points": [POINTS[0]] * (MOST_POINTS + 1)}, "needed 1 to 200"),
        ({"points": [[x, x, x, x] for x in (1, 2, 3, 4)], "pair": 7}, "there is no such pair"),
        ({"points": [[500, 0, 0, 0], *POINTS]}, "outside the infrared image"),
        ({"points": [[1, 1, 1, 1]] * 4}, "in a line or on one spot"),
    ],
)
def test_senseless_points_are_refused_in_words(rig: PointsPage, served, body: dict, words: str) -> None:
    status, told = served().json("/calibrate", body)
    assert status == 422
    assert words in told["error"]
    assert not rig.out.exists()


@pytest.mark.parametrize("path", ["/picture/infrared/2.png", "/picture/depth/0.png", "/picture/visible/-1.png"])
def test_a_picture_that_is_not_there_is_refused(served, path: str) -> None:
    assert served().ask(path)[0] == 422


@pytest.mark.parametrize("path", ["/calibrate", "/done"])
def test_another_site_and_strangers_change_nothing(rig: PointsPage, served, path: str) -> None:
    client = served(TOKEN)
    assert client.ask(path, {"points": POINTS})[0] == 401
    for paths in ("/rig.json", "/picture/infrared/0.png", "/overlay.png"):
        assert client.ask(paths)[0] == 401
    owner = {"authorization": f"Bearer {TOKEN}"}
    assert client.ask(path, {"points": POINTS}, origin="http://evil.example", **owner)[0] == 403
    form = json.dumps({"points": POINTS}).encode()
    assert client.ask(path, form, content_type="text/plain", **owner)[0] == 415
    assert not rig.out.exists()
    assert not rig.ended.is_set()


def test_a_person_marks_deletes_and_calibrates_in_a_browser(rig: PointsPage, served) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        said: list[str] = []
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(served().url)
        tab.wait_for_function("() => document.querySelector('#visible canvas').width >= 160")

        def click(modality: str, x: float, y: float, size: tuple[int, int]) -> None:
            box = tab.locator(f"#{modality} canvas").bounding_box()
            at = {"x": (x + 0.5) / size[1] * box["width"], "y": (y + 0.5) / size[0] * box["height"]}
            tab.locator(f"#{modality} canvas").click(position=at)

        for x, y, other_x, other_y in [[30, 30, 10, 10], *POINTS]:
            click("infrared", x, y, INFRARED)
            assert "in the visible image" in tab.inner_text("#next")
            click("visible", other_x, other_y, VISIBLE)
        assert tab.locator("#points tbody tr").count() == 5
        tab.click("#calibrate")
        tab.wait_for_selector("text=not saved: it is not sure")
        tab.click("[aria-label='delete point 1']")
        assert tab.locator("#points tbody tr").count() == 4
        tab.click("#calibrate")
        tab.wait_for_selector(f"text=saved to {rig.out}")
        tab.wait_for_function("() => document.querySelector('#overlay img').naturalWidth === 320")
        assert np.allclose(read_calibration(rig.out).infrared_points(np.array([[50.0, 30.0]])), [[10, 10]], atol=0.5)
        tab.click("#done")
        tab.wait_for_selector("text=this page may be closed")
        browser.close()
    assert rig.ended.is_set()
    assert said == []
