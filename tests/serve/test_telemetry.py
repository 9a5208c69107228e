"""Health and metrics: fresh, stale, degraded; counters by their Prometheus names."""

import re

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra serve")

from cled_edge.control_box import ControlBox
from cled_edge.evidence.told import Evidence
from cled_edge.serve.seen_kinds import SeenKinds
from cled_edge.serve.server import PageServer
from cled_edge.serve.telemetry import Telemetry
from tests.serve.conftest import Client, scene


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_health_follows_the_newest_frame_and_what_it_lacks() -> None:
    clock = Clock()
    telemetry = Telemetry(ControlBox(), {}, clock)
    assert telemetry.health() == (False, {"status": "no frame yet", "frame_age_s": None})
    telemetry.count(1, scene())
    clock.now_ns = 1_900_000_000
    assert telemetry.health() == (True, {"status": "ok", "frame_age_s": 1.9})
    clock.now_ns = 2_100_000_000
    assert telemetry.health() == (False, {"status": "stale", "frame_age_s": 2.1})
    telemetry.count(2, scene(degraded="visible lost"))
    assert telemetry.health() == (True, {"status": "visible lost", "frame_age_s": 0.0})
    telemetry.count(3, scene(degraded="both lost"))
    assert telemetry.health() == (False, {"status": "both lost", "frame_age_s": 0.0})


def test_the_rate_is_that_of_the_last_two_seconds() -> None:
    clock = Clock()
    telemetry = Telemetry(ControlBox(), {}, clock)
    assert telemetry.rate_hz() == 0
    for index in range(90):
        clock.now_ns += 100_000_000 if index < 30 else 40_000_000
        telemetry.count(index + 1, scene(index))
    assert telemetry.rate_hz() == pytest.approx(25, abs=0.1)
    clock.now_ns += 10_000_000_000
    assert telemetry.rate_hz() == 0


def test_evidence_is_worked_out_for_who_asks_and_once_a_second() -> None:
    clock, looked = Clock(), []

    def told(frame) -> Evidence:
        looked.append(frame.name)
        return Evidence({"stripes": 0.9}, {"haze": 0.25})

    telemetry = Telemetry(ControlBox(), {}, clock, kinds=SeenKinds(told, clock))
    assert telemetry.evidence() is None
    assert b"cled_edge_evidence{" not in telemetry.prometheus()
    for number, at_ms in enumerate((0, 400, 1100, 1200)):
        clock.now_ns = at_ms * 1_000_000
        telemetry.count(number, scene(number))
        if at_ms != 1100:
            assert set(telemetry.evidence()) == {"infrared", "visible", "network"}
    assert len(looked) == 2, "a frame that nobody asks of is not looked at, nor a second one within a second"
    text = telemetry.prometheus().decode()
    assert 'cled_edge_evidence{by="network",kind="haze",modality="visible"} 0.25' in text
    assert re.search(r'^cled_edge_evidence{by="formulas",kind="rows",modality="infrared"} \S+$', text, re.MULTILINE)


def test_what_is_lost_shows_no_evidence() -> None:
    telemetry = Telemetry(ControlBox(), {}, Clock())
    telemetry.count(1, scene(degraded="infrared lost"))
    assert telemetry.evidence() is None


def test_healthz_tells_by_its_code(page: PageServer, client: Client) -> None:
    assert client.json("/healthz") == (503, {"status": "no frame yet", "frame_age_s": None})
    page.show(scene())
    status, told = client.json("/healthz")
    assert (status, told["status"]) == (200, "ok")


def test_metrics_are_in_prometheus_text_format(page: PageServer, client: Client) -> None:
    page.show(scene(0, states=("open", "stale")))
    page.show(scene(1, degraded="infrared lost", states=("lost", "open")))
    status, content, headers = client.ask("/metrics")
    text = content.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE))
    expected = {
        'cled_edge_frames_total{degraded=""}': 1,
        'cled_edge_frames_total{degraded="infrared lost"}': 1,
        "cled_edge_pairs_overtaken_total": 3,
        'cled_edge_output_frames_total{to="a.mp4",what="dropped"}': 1,
        'cled_edge_source_state{modality="infrared",state="lost"}': 1,
        'cled_edge_stage_seconds_count{stage="total"}': 2,
        'cled_edge_stage_seconds_sum{stage="total"}': 0.042,
        'cled_edge_age_seconds_bucket{le="0.05",modality="infrared"}': 2,
        'cled_edge_age_seconds_bucket{le="0.02",modality="infrared"}': 0,
        "cled_edge_skew_seconds_count": 2,
        'cled_edge_camera_frames_total{modality="infrared",what="dropped: overtaken"}': 3,
        'cled_edge_camera_reopened_total{modality="visible"}': 2,
        'cled_edge_control{name="balance"}': 0.5,
        'cled_edge_info{bundle="fake"}': 1,
        "cled_edge_healthy": 1,
    }
    assert {name: pytest.approx(float(values[name])) for name in expected} == expected
