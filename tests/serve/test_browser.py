"""The page in a real browser: it draws, its controls change what is drawn, and it says when nothing comes."""

import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")

from cled_edge.areas import Area, Areas  # noqa: E402
from cled_edge.serve.server import PageServer  # noqa: E402
from tests.serve.conftest import SIZE, scene  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
LEVEL = "() => document.querySelector('#main canvas').getContext('2d').getImageData(5, 5, 1, 1).data[0]"


class Doubter:
    """What fuses, as the page knows it: it tells an uncertainty if it is asked."""

    is_looked_at, can_doubt, look_failure, areas = False, True, "", Areas(())


@pytest.fixture
def fuser() -> Doubter:
    return Doubter()


@pytest.fixture
def page(serve, fuser: Doubter) -> PageServer:
    return serve(fuser=fuser)


@pytest.fixture
def feed(page: PageServer, box, fuser: Doubter) -> Iterator[threading.Event]:
    """Show frames until the event is set; the fused image is as bright as the balance says, of a 9 Hz thermal pair."""
    ended = threading.Event()

    def run() -> None:
        index = 0
        while not ended.wait(0.03):
            level = round(200 * box.current.balance)
            levels = np.full((2, *SIZE), 32, np.float32) if fuser.is_looked_at else None
            picture = np.full((*SIZE, 3), level, np.uint8)
            page.show(scene(index, picture=picture, states=("stale", "open"), uncertainty=levels))
            index += 1

    thread = threading.Thread(target=run)
    thread.start()
    yield ended
    ended.set()
    thread.join()


@pytest.fixture
def tab(page: PageServer) -> Iterator["sync_api.Page"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.set_default_timeout(20_000)
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.url)
        tab.said = said
        yield tab
        browser.close()


def test_sliders_change_the_image_and_the_page_says_what_the_run_says(feed, page: PageServer, box, tab) -> None:
    tab.wait_for_function(f"() => Math.abs(({LEVEL})() - 100) < 5")
    tab.locator(".control:has(#control-balance) input[type=range]").fill("900")
    tab.wait_for_function(f"() => Math.abs(({LEVEL})() - 180) < 5")
    assert box.current.balance == 0.9
    tab.locator(".control:has(#control-deadline_ms) input.switch").check()
    tab.locator("#control-deadline_ms").fill("50")
    tab.locator("#control-deadline_ms").press("Enter")
    tab.wait_for_function("() => document.querySelector('#health').classList.contains('good')")
    tab.wait_for_function("async () => (await (await fetch('/status.json')).json()).controls.deadline_ms === 50")
    tab.locator("#control-balance").fill("7")
    tab.locator("#control-balance").press("Enter")
    assert "7 does not lie between 0 and 1" in tab.inner_text("#controls")
    assert box.current.balance == 0.9
    assert tab.inner_text("#infrared-state").split() == ["infrared", "stale", "40", "ms"]
    assert tab.locator(".tiles canvas").count() == 4
    assert "dropped: overtaken 3 3" in " ".join(tab.inner_text("#cameras").split())
    assert tab.inner_text("#failures") == "it is unplugged"
    tab.click("text=Side by side")
    tab.wait_for_function("() => document.querySelector('#main canvas').width === 192")
    tab.click("#defaults")
    tab.click("text=Fused")
    tab.wait_for_function(f"() => Math.abs(({LEVEL})() - 100) < 5")
    assert (box.current.balance, box.current.deadline_ms) == (0.5, None)
    assert tab.said == []


def test_a_frozen_run_is_shown_as_such(feed, tab) -> None:
    tab.wait_for_function(f"() => ({LEVEL})() > 50")
    assert not tab.locator("#banner").is_visible()
    feed.set()
    tab.wait_for_selector("text=no new frame for")
    assert tab.evaluate("() => document.body.classList.contains('stale')")


def test_record_and_snapshot_work_from_the_page(feed, page: PageServer, tab) -> None:
    tab.wait_for_function(f"() => ({LEVEL})() > 50")
    tab.click("#record")
    tab.wait_for_selector("#record.on")
    tab.wait_for_function("() => /[1-9][0-9]* frames into/.test(document.querySelector('#recording').textContent)")
    tab.click("#record")
    tab.wait_for_selector("text=-fused.mp4")
    assert [path.suffix for path in page.recorder.folder.iterdir()] == [".mp4"]
    with tab.expect_download() as download:
        tab.click("text=Snapshot")
    assert download.value.suggested_filename.endswith(".zip")


def test_the_uncertainty_is_drawn_as_soon_as_its_tab_is_chosen(feed, box, fuser: Doubter, tab) -> None:
    tab.wait_for_function(f"() => ({LEVEL})() > 50")
    assert not fuser.is_looked_at
    tab.click("text=Uncertainty, visible")
    tab.wait_for_function(f"() => ({LEVEL})() > 240")  # 32 levels are the palette's end
    assert fuser.is_looked_at
    tab.click("text=Fused")
    tab.wait_for_function(f"() => Math.abs(({LEVEL})() - 100) < 5")
    box.change(steadiness=0.5)
    tab.click("text=Uncertainty, infrared")
    tab.wait_for_selector("text=no uncertainty while steadiness is above 0")
    tab.wait_for_function(f"() => ({LEVEL})() === 13")  # no older image stands there
    assert tab.said == []


def test_a_box_that_is_dragged_over_the_image_becomes_an_area(feed, fuser: Doubter, tab) -> None:
    tab.wait_for_function(f"() => ({LEVEL})() > 50")
    canvas = tab.locator("#main canvas").bounding_box()

    def point(row: float, column: float) -> tuple[float, float]:
        """Return where it is on the screen: the image, 48x64, fills its canvas by height or by width."""
        scale = min(canvas["width"] / SIZE[1], canvas["height"] / SIZE[0])
        return (
            canvas["x"] + (canvas["width"] - SIZE[1] * scale) / 2 + column * SIZE[1] * scale,
            canvas["y"] + (canvas["height"] - SIZE[0] * scale) / 2 + row * SIZE[0] * scale,
        )

    tab.click("#areas-draw")
    tab.mouse.move(*point(0.75, 0.8))
    tab.mouse.down()
    tab.mouse.move(*point(0.5, 0.5))
    tab.mouse.move(*point(0.25, 0.3))
    tab.mouse.up()
    tab.wait_for_selector("#areas-rows .control")
    (area,) = fuser.areas.areas
    assert area.share == 0
    np.testing.assert_allclose(area.polygon, [(0.25, 0.3), (0.25, 0.8), (0.75, 0.8), (0.75, 0.3)], atol=0.01)
    assert tab.locator("#boxes polygon").count() == 1
    outline = tab.locator("#boxes polygon").bounding_box()
    np.testing.assert_allclose((outline["x"], outline["y"]), point(0.25, 0.3), atol=3)
    tab.locator("#areas-rows select").select_option("Lean: visible to infrared")
    tab.wait_for_function("() => document.querySelector('#areas-rows input')?.value === '1'")
    tab.locator("#areas-rows input[type=range]").fill("0.6")
    tab.wait_for_function("async () => (await (await fetch('/areas')).json()).areas[0].attention === 0.6")
    assert fuser.areas.areas[0].share is None
    tab.click("text=Side by side")
    assert not tab.locator("#boxes").is_visible()
    assert tab.locator("#areas-draw").is_disabled()
    tab.click("text=Fused")
    fuser.areas = Areas([Area(0.5, "visible", attention=0.4)])  # as a detector posts one
    tab.wait_for_function("() => document.querySelector('#areas-rows select').selectedIndex === 2")
    tab.locator("#areas-rows input[type=range]").fill("0.25")
    tab.wait_for_function("async () => (await (await fetch('/areas')).json()).areas[0].share === 0.25")
    assert fuser.areas.areas[0].attention == 0.4, "the slider turns its own key"
    tab.click("#areas-clear")
    tab.wait_for_function("() => !document.querySelector('#areas-rows .control')")
    assert fuser.areas.areas == ()
    assert tab.said == []
