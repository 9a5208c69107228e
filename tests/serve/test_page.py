"""The page's addresses: what they show and tell, what they change, and that nobody who looks holds up the loop."""

import io
import json
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from cled_edge.areas import Area, Areas
from cled_edge.contract import CONTROLS
from cled_edge.frame import Frame, FusedFrame
from cled_edge.registration.calibration import Calibration, distance_map
from cled_edge.registration.lens import PixelMap
from cled_edge.registration.warp import Registrar
from cled_edge.serve.drawn_areas import MOST, MOST_CORNERS
from cled_edge.serve.routes import MAX_VIEWERS
from cled_edge.serve.server import PageServer
from cled_edge.thermal import ThermalStream
from tests.serve.conftest import SIZE, Client, scene

connect = pytest.importorskip("websockets.sync.client", reason="needs the extra serve").connect


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


class Viewer:
    """An open page: asks for the newest frame and reads the answer."""

    def __init__(self, page: PageServer, *views: str) -> None:
        self.socket = connect(f"ws{page.url[4:]}live", max_size=None).__enter__()
        self.views, self.after = views, 0

    def next(self) -> tuple[dict, list[np.ndarray]]:
        self.socket.send(json.dumps({"views": self.views, "after": self.after}))
        answer = self.socket.recv(timeout=10)
        place = 4 + int.from_bytes(answer[:4], "little")
        told, images = json.loads(answer[4:place]), []
        for length in told["bytes"]:
            images.append(cv2.imdecode(np.frombuffer(answer[place : place + length], np.uint8), cv2.IMREAD_UNCHANGED))
            place += length
        assert place == len(answer)
        if told["frame"]:
            self.after = told["frame"]["number"]
        return told, images


def test_a_viewer_gets_the_newest_frame_with_its_facts_and_views(page: PageServer) -> None:
    for index in range(3):
        page.show(scene(index))
    viewer = Viewer(page, "fused", "infrared-input@160", "side-by-side@160")
    told, images = viewer.next()
    frame = told["frame"]
    assert (frame["number"], frame["name"], frame["size"]) == (3, "000002", [48, 64])
    assert (frame["infrared_age_ms"], frame["visible_age_ms"], frame["skew_ms"]) == (40, 30, -10)
    assert (frame["total_ms"], frame["controls"]["steps"]) == (21, 1)
    assert [image.shape for image in images] == [(48, 64, 3), (48, 64), (40, 160, 3)]
    assert abs(images[0].astype(int) - 120).max() < 3
    assert abs(int(images[1][12, 12]) - 220) < 6
    assert [point["n"] for point in told["points"]] == [1, 2, 3]
    assert told["status"]["dropped"] == 3


def test_a_viewer_that_is_slow_misses_frames_and_never_sees_an_old_one(page: PageServer) -> None:
    page.show(scene(0))
    viewer = Viewer(page, "fused")
    assert viewer.next()[0]["frame"]["number"] == 1
    for index in range(1, 500):
        page.show(scene(index))
    told, _ = viewer.next()
    assert told["frame"]["number"] == 500
    assert len(told["points"]) == 499, "the charts miss none"


def test_a_viewer_waits_for_a_new_frame_and_is_told_of_silence(page: PageServer, monkeypatch) -> None:
    from cled_edge.serve import routes

    page.show(scene(0))
    viewer = Viewer(page, "fused")
    viewer.next()
    threading.Timer(0.05, page.show, [scene(1)]).start()
    assert viewer.next()[0]["frame"]["number"] == 2
    monkeypatch.setattr(routes, "STATUS_S", 0.02)
    told, images = viewer.next()
    assert (told["frame"], images) == (None, [])


def test_frames_are_made_into_jpeg_once_for_all_who_look(page: PageServer, monkeypatch) -> None:
    from cled_edge.serve import shot

    made = []
    inner = shot.jpeg_of
    monkeypatch.setattr(shot, "jpeg_of", lambda *arguments: made.append(arguments[1:]) or inner(*arguments))
    page.show(scene(0))
    for _ in range(3):
        Viewer(page, "fused", "visible").next()
    assert sorted(made) == [("fused", 0), ("visible", 0)]
    page.show(scene(1))
    assert len(made) == 2, "nobody asked for it"


@pytest.mark.parametrize(
    "wish", ["{}", '{"views": [], "after": "1"}', '{"views": ["x"], "after": 0}', "[1]", "no json"]
)
def test_a_senseless_wish_closes_the_line_and_no_other(page: PageServer, wish: str) -> None:
    from websockets.exceptions import ConnectionClosed

    page.show(scene(0))
    viewer = Viewer(page, "fused")
    viewer.socket.send(wish)
    with pytest.raises(ConnectionClosed):
        viewer.socket.recv(timeout=10)
    other = Viewer(page, "fused")
    assert other.next()[0]["frame"]["number"] == 1
    wait_until(lambda: page.telemetry.viewers == 1)


def test_the_simple_stream_is_parts_of_jpeg(page: PageServer) -> None:
    page.show(scene(0))
    with urlopen(f"{page.url}stream/fused.mjpg", timeout=10) as stream:  # noqa: S310 (loopback)
        assert stream.headers["content-type"] == "multipart/x-mixed-replace; boundary=cled-edge-frame"
        for index in range(2):
            head = [stream.readline() for _ in range(4)]
            assert head[:2] == [b"--cled-edge-frame\r\n", b"Content-Type: image/jpeg\r\n"]
            jpeg = stream.read(int(head[2].split(b":")[1]))
            assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (*SIZE, 3)
            assert stream.readline() == b"\r\n"
            page.show(scene(index + 1))

    def is_left() -> bool:
        page.show(scene())  # so that the server notices who left
        return page.telemetry.viewers == 0

    wait_until(is_left)


def test_only_so_many_may_look(page: PageServer) -> None:
    page.show(scene(0))
    viewers = [Viewer(page, "fused") for _ in range(MAX_VIEWERS)]
    for viewer in viewers:
        viewer.next()
    assert Client(page.url).ask("/stream/fused.mjpg")[0] == 503


def test_unknown_views_are_refused_in_words(client: Client) -> None:
    status, told = client.json("/stream/heat.mjpg")
    assert status == 422
    assert "there is no view 'heat'; known: fused, infrared" in told["error"]


def test_the_page_names_every_control_of_the_contract_with_its_range_and_help(client: Client, box) -> None:
    box.change(balance=0.25)
    _, about = client.json("/about.json")
    assert [(c["name"], c["low"], c["high"], c["meaning"]) for c in about["controls"]] == [
        (c.name, c.low, c.high, c.meaning) for c in CONTROLS
    ]
    assert {c["name"]: c["value"] for c in about["controls"]}["balance"] == 0.25


def test_controls_are_changed_and_refused_in_the_contracts_words(client: Client, box) -> None:
    assert client.json("/controls", {"strength_visible": 0.5, "steps": 2})[1]["strength_visible"] == 0.5
    assert (box.current.strength_visible, box.current.steps) == (0.5, 2)
    for body, words in (
        ({"balance": 2}, "balance is 2; it must lie between 0 and 1"),
        ({"ballance": 1}, "write balance"),
        ({"steps": 9}, "the bundle has no graph of 9 steps"),
        ([1], "needed names and values"),
        (b"{", "is no JSON"),
    ):
        status, told = client.json("/controls", body)
        assert status == 422
        assert words in told["error"]
    assert box.current.balance == 0.5


def test_a_snapshot_holds_all_images_and_the_facts(page: PageServer, client: Client) -> None:
    assert client.ask("/snapshot.zip")[0] == 422, "there is no frame yet"
    page.show(scene(7))
    status, content, headers = client.ask("/snapshot.zip")
    assert status == 200
    assert headers["content-disposition"] == 'attachment; filename="cled-edge-000001.zip"'
    archive = zipfile.ZipFile(io.BytesIO(content))
    images = {f"{name}.png" for name in ("fused", "infrared-input", "visible-input", "infrared", "visible")}
    assert {name.partition("/")[2] for name in archive.namelist()} == images | {"frame.json"}
    assert json.loads(archive.read("000001/frame.json"))["frame"]["name"] == "000007"
    fused = cv2.imdecode(np.frombuffer(archive.read("000001/fused.png"), np.uint8), cv2.IMREAD_COLOR)
    assert (fused == 120).all()
    assert client.ask("/snapshot/overlay.png")[2]["content-type"] == "image/png"


def test_the_grey_scale_is_locked_and_a_pixel_is_read(serve: Callable[..., PageServer]) -> None:
    stream = ThermalStream(kelvin_per_count=0.01)
    page = serve(thermal=stream)
    client = Client(page.url)
    counts = np.full(SIZE, 29_000, np.uint16)
    counts[24:, :32] = 31_000
    frame = scene()
    stream(Frame(counts, 0, "monotonic", 0, "ir"))
    page.show(frame)
    assert client.json("/reading.json?row=0.75&column=0.25")[1] == {"counts": 31_000, "kelvin": pytest.approx(310)}
    assert client.json("/reading.json?row=0.25&column=0.25")[1]["counts"] == 29_000
    assert client.json("/thermal", {"lock": True})[1]["is_locked"] is True
    assert stream.is_locked
    assert client.json("/status.json")[1]["thermal"]["bad_pixels"] == 0
    assert client.ask("/thermal", {"lock": 1})[0] == 422


def test_a_registered_pixel_is_read_where_the_infrared_camera_has_it(serve: Callable[..., PageServer]) -> None:
    stream = ThermalStream(kelvin_per_count=0.01)
    # The infrared camera sees the right half of the visible one, each of its pixels as two there.
    moved = PixelMap(np.array([[0.5, 0, -SIZE[1] / 4], [0, 0.5, 0], [0, 0, 1]]))
    found = distance_map(moved, "similarity", SIZE, 0.3, 0.9)
    sizes = {"infrared_size": (SIZE[0] // 2, SIZE[1] // 4), "visible_size": SIZE}
    page = serve(thermal=stream, registrar=Registrar(Calibration(mode="points", maps=(found,), **sizes)))
    counts = np.full(sizes["infrared_size"], 29_000, np.uint16)
    counts[6, 4] = 31_000
    stream(Frame(counts, 0, "monotonic", 0, "ir"))
    page.show(scene())
    client = Client(page.url)

    def at(row: float, column: float) -> int | None:
        return client.json(f"/reading.json?row={row / SIZE[0]}&column={column / SIZE[1]}")[1]["counts"]

    assert at(12.5, SIZE[1] / 2 + 8.5) == 31_000
    assert at(12.5, SIZE[1] / 2 + 12.5) == 29_000
    assert at(12.5, 5) is None


def test_a_recording_begins_and_ends_on_demand(page: PageServer, client: Client) -> None:
    status, told = client.json("/record", {"on": True, "view": "side-by-side"})
    assert (status, told["is_on"]) == (200, True)
    assert client.json("/record", {"on": True})[0] == 422, "one at a time"
    for index in range(4):
        page.show(scene(index, timestamp_ns=index * 40_000_000, clock="monotonic"))
        wait_until(lambda count=index + 1: page.recorder.status()["written"] == count)
    _, told = client.json("/record", {"on": False})
    assert (told["is_on"], told["written"], told["failure"]) == (False, 4, None)
    video = cv2.VideoCapture(told["to"])
    assert (int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_COUNT))) == (192, 4)
    assert client.json("/record", {"on": "yes"})[0] == 422
    assert client.json("/record", {"on": True, "kind": "gif"})[0] == 422
    assert client.json("/record", {"on": False})[0] == 200


def test_two_recordings_of_one_second_are_two_files(page: PageServer) -> None:
    page.recorder._now_utc = lambda: datetime(2026, 11, 28, tzinfo=timezone.utc)
    names = []
    for _ in range(2):
        page.recorder.start()
        page.show(scene(0))
        names.append(page.recorder.stop()["to"])
    assert names[0] != names[1]
    assert all(os.path.getsize(name) for name in names)


def test_a_recording_may_be_a_bag_with_both_inputs(page: PageServer, client: Client) -> None:
    reader = pytest.importorskip("mcap.reader", reason="needs the extra bags")
    client.json("/record", {"on": True, "kind": "mcap"})
    page.show(scene(0))
    wait_until(lambda: page.recorder.status()["written"] == 1)
    _, told = client.json("/record", {"on": False})
    with open(told["to"], "rb") as file:
        topics = {channel.topic for _, channel, _ in reader.make_reader(file).iter_messages()}
    assert {"/infrared/image", "/visible/image/compressed", "/fused/image/compressed"} < topics


def test_a_recording_that_fails_says_why_and_the_run_goes_on(page: PageServer, client: Client) -> None:
    page.recorder.folder.write_text("a file, no folder")
    client.json("/record", {"on": True})

    def failed() -> bool:
        page.show(scene(0))
        return page.recorder.status()["failure"] is not None

    wait_until(failed)
    status = client.json("/status.json")[1]["recording"]
    assert status["is_on"] is False
    assert str(page.recorder.folder) in status["failure"]


def test_the_server_ends_at_once_though_viewers_are_connected(serve: Callable[..., PageServer]) -> None:
    from websockets.exceptions import ConnectionClosed

    page = serve()
    page.show(scene(0))
    viewer = Viewer(page, "fused")
    viewer.next()
    stream = urlopen(f"{page.url}stream/fused.mjpg", timeout=10)  # noqa: S310 (loopback)
    begin_s = time.monotonic()
    page.__exit__(None, None, None)
    assert time.monotonic() - begin_s < 1.5
    with pytest.raises(ConnectionClosed):
        viewer.next()
    stream.close()


class Doubter:
    """What fuses, as the page knows it."""

    def __init__(self, can_doubt: bool = True, areas: Sequence[Area] = ()) -> None:
        self.areas = Areas(areas)
        self.is_looked_at, self.can_doubt, self.look_failure = False, can_doubt, ""

    def scene(self) -> FusedFrame:
        levels = np.full((2, *SIZE), 8, np.float32) if self.is_looked_at else None
        return scene(uncertainty=levels)


def test_the_uncertainty_is_computed_while_somebody_looks_at_it(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    fuser = Doubter()
    page = serve(fuser=fuser)
    assert "visible-uncertainty" in Client(page.url).json("/about.json")[1]["views"]
    page.show(fuser.scene())
    assert not fuser.is_looked_at
    viewer = Viewer(page, "fused", "visible-uncertainty@160")
    told, images = viewer.next()
    assert (told["views"], told["missing"], len(images)) == (["fused"], "this frame has no uncertainty", 1)
    page.show(fuser.scene())  # whoever looks gets it from the next frame on
    assert fuser.is_looked_at
    page.show(fuser.scene())
    told, images = viewer.next()
    assert told["views"] == ["fused", "visible-uncertainty@160"]
    assert images[1].shape == (48, 64, 3)
    monkeypatch.setattr("cled_edge.serve.asked_doubt.ASKED_S", 0.0)
    page.show(fuser.scene())
    assert not fuser.is_looked_at


def test_without_a_doubt_graph_and_with_steadiness_there_is_no_uncertainty(serve, box) -> None:
    page = serve(fuser=Doubter(can_doubt=False))
    assert not any(view.endswith("-uncertainty") for view in Client(page.url).json("/about.json")[1]["views"])
    page.show(scene())
    told, images = Viewer(page, "visible-uncertainty").next()
    assert (told["views"], images) == ([], [])
    assert "no doubt graph" in told["missing"]
    client = Client(page.url)
    for answer in (
        client.json("/record", {"on": True, "view": "visible-uncertainty"}),
        client.json("/stream/visible-uncertainty.mjpg"),
        client.json("/snapshot/visible-uncertainty.png"),
    ):
        assert answer[0] == 422
        assert "cannot be had: no uncertainty: this bundle" in answer[1]["error"]
    fuser = Doubter()
    page = serve(fuser=fuser)
    box.change(steadiness=0.5)
    page.show(fuser.scene())
    told, _ = Viewer(page, "visible-uncertainty").next()
    page.show(fuser.scene())
    assert not fuser.is_looked_at, "the warm loop tells none"
    assert told["missing"] == "no uncertainty while steadiness is above 0"
    box.change(steadiness=0.0)
    fuser.look_failure = "there is no engine"
    page.show(fuser.scene())
    assert not fuser.is_looked_at
    assert Viewer(page, "visible-uncertainty").next()[0]["missing"] == "no uncertainty: there is no engine"


def test_a_recording_of_the_uncertainty_keeps_it_on(serve) -> None:
    fuser = Doubter()
    page = serve(fuser=fuser)
    client = Client(page.url)
    assert client.json("/record", {"on": True, "view": "infrared-uncertainty"})[0] == 200
    for _ in range(4):  # the first frame has none and is left out
        page.show(fuser.scene())
        time.sleep(0.02)
    assert fuser.is_looked_at
    status = client.json("/record", {"on": False})[1]
    assert (status["written"] + status["dropped"], status["failure"]) == (3, None)


def test_areas_are_drawn_over_those_of_the_run_and_taken_back(serve) -> None:
    begun = Area.box(0, 0, 1, 0.5, share=0)
    fuser = Doubter(areas=[begun])
    client = Client(serve(fuser=fuser).url)
    assert client.json("/areas") == (200, {"areas": []})
    corners = [[0, 0.5], [0, 1], [1, 1], [1, 0.5]]
    drawn = [{"polygon": corners, "attention": 0.8}, {"polygon": corners, "valid": False, "modality": "visible"}]
    status, told = client.json("/areas", {"areas": drawn})
    assert status == 200
    assert fuser.areas.areas[0] is begun
    assert [(area.attention, area.valid) for area in fuser.areas.areas[1:]] == [(0.8, True), (None, False)]
    assert client.json("/status.json")[1]["areas"] == told["areas"]
    again = fuser.areas.areas
    assert client.json("/areas", {"areas": told["areas"]})[0] == 200, "what is told can be sent"
    assert fuser.areas.areas == again
    client.json("/areas", {"areas": []})
    assert list(fuser.areas.areas) == [begun]


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ("all", "areas is str; needed a list of at most 32"),
        ([{"share": 0}] * 33, "areas is 33 areas; needed a list of at most 32"),
        ([{"share": 0}, {"share": 3}], "areas 1: the share of an area is 3.0; it must lie between 0 and 1"),
        ([{"share": 0, "shape": 1}], "areas 0: shape: is unknown"),
        ([{}], "areas 0: an area says nothing; needed a share, an attention"),
        ([7], "areas 0: "),
        ([{"share": 0, "mask": "/etc/passwd"}], "areas 0 has a mask; needed a polygon"),
        ([{"share": 0, "polygon": [[0, 0], [0, 1], [1, 1]] * 11}], "areas 0 has 33 corners; needed 32 at most"),
        ([{"share": 0, "polygon": [[0, 0], [0, 1], [1, 1, 1]]}], "areas 0: polygon.2: needed 2 values at most"),
    ],
)
def test_what_is_no_area_changes_nothing(serve, areas: object, words: str) -> None:
    fuser = Doubter()
    client, before = Client(serve(fuser=fuser).url), fuser.areas
    status, told = client.json("/areas", {"areas": areas})
    assert status == 422
    assert re.search(words, told["error"]), told
    assert fuser.areas is before


def test_another_key_beside_the_areas_is_refused_and_the_most_areas_are_taken(serve) -> None:
    fuser = Doubter()
    client = Client(serve(fuser=fuser).url)
    assert "the body has ['areas', 'x']; needed" in client.json("/areas", {"areas": [], "x": 1})[1]["error"]
    corner = [0.123456789012345678, 0.987654321098765432]
    most = [{"polygon": [corner] * MOST_CORNERS, "share": 0.123456789012345678, "modality": "infrared"}] * MOST
    assert client.json("/areas", {"areas": most})[0] == 200


def test_a_run_that_does_not_fuse_has_no_areas(serve) -> None:
    client = Client(serve().url)
    assert client.json("/areas") == (200, {"areas": []})
    assert "has no areas to draw" in client.json("/areas", {"areas": []})[1]["error"]
