"""What a run tells of itself in numbers: the last frames for charts, counters for Prometheus, and its health."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cled_edge.control_box import ControlBox
from cled_edge.frame import BOTH_LOST, FusedFrame
from cled_edge.output.frame_facts import ms, total_ns
from cled_edge.serve.seen_kinds import SeenKinds
from cled_edge.stage_times import NETWORK_STAGES

FRESH_S = 2.0  # a run whose newest fused frame is older is not healthy
KEPT_POINTS = 1200
_SECONDS = (0.005, 0.01, 0.02, 0.033, 0.05, 0.067, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_SKEW_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2)


class Telemetry:
    """Counts frames. status: of the run, see `Report.as_dict`; called when somebody asks, never for each frame.

    kinds: which degradations the newest frame shows, also for those who ask.
    """

    def __init__(
        self,
        box: ControlBox,
        about: dict[str, str],
        now: Callable[[], int] = time.monotonic_ns,
        *,
        kinds: SeenKinds | None = None,
    ) -> None:
        self._kinds = kinds or SeenKinds(now=now)
        self.status: Callable[[], dict[str, Any]] = dict
        self.points: deque[dict[str, Any]] = deque(maxlen=KEPT_POINTS)
        self.viewers = 0
        self._box, self._about, self._now = box, about, now
        self._begun_ns = now()
        self._fused, self._degraded = 0, Counter[str]()
        self._last: FusedFrame | None = None
        self._last_ns: int | None = None
        self.registry = CollectorRegistry()
        self._stages = Histogram(
            "cled_edge_stage_seconds", "time of a stage of a frame", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self._of_stage: dict[str, Histogram] = {}
        self._age = Histogram(
            "cled_edge_age_seconds",
            "from when a frame was taken until it was fused",
            ["modality"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._skew = Histogram(
            "cled_edge_skew_seconds",
            "between both frames of a pair, as an amount",
            buckets=_SKEW_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_Asked(self._asked))

    def count(self, number: int, frame: FusedFrame) -> None:
        """Count a fused frame, on the loop's thread: it takes a tenth of a millisecond."""
        self._last, self._last_ns = frame, self._now()
        self._fused = number
        self._degraded[frame.degraded] += 1
        if frame.degraded == BOTH_LOST:
            return  # a dead tile took no time that is worth a chart
        for stage, value_ns in (*frame.latency_ns.items(), ("total", total_ns(frame))):
            if stage not in self._of_stage:  # looking one up by its label takes ten times as long
                self._of_stage[stage] = self._stages.labels(stage)
            self._of_stage[stage].observe(value_ns / 1e9)
        ages_ns = {"infrared": frame.infrared_age_ns, "visible": frame.visible_age_ns}
        for modality, age_ns in ages_ns.items():
            if age_ns is not None:
                self._age.labels(modality).observe(age_ns / 1e9)
        if frame.skew_ns is not None:
            self._skew.observe(abs(frame.skew_ns) / 1e9)
        self.points.append(
            {
                "n": number,
                "t": round((self._last_ns - self._begun_ns) / 1e6, 1),
                "total": ms(total_ns(frame)),
                "network": ms(sum(frame.latency_ns.get(name, 0) for name in NETWORK_STAGES)),
                "infrared": ms(ages_ns["infrared"]),
                "visible": ms(ages_ns["visible"]),
                "skew": ms(frame.skew_ns),
            }
        )

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the run is healthy, and why: a frame under 2 s old, of one camera at least."""
        last, last_ns = self._last, self._last_ns
        age_s = None if last_ns is None else round((self._now() - last_ns) / 1e9, 3)
        if last is None or age_s is None:
            return False, {"status": "no frame yet", "frame_age_s": None}
        if age_s > FRESH_S:
            return False, {"status": "stale", "frame_age_s": age_s}
        if last.degraded == BOTH_LOST:
            return False, {"status": BOTH_LOST, "frame_age_s": age_s}
        return True, {"status": last.degraded or "ok", "frame_age_s": age_s}

    def evidence(self) -> dict[str, Any] | None:
        """Return how likely each kind of degradation is in the newest inputs, a second old at most; it takes 10 ms."""
        return self._kinds.of(self._last)

    def rate_hz(self) -> float:
        """Return how many frames were fused a second, over the last two seconds."""
        now_ms = (self._now() - self._begun_ns) / 1e6
        times = [point["t"] for point in list(self.points)[-200:] if now_ms - point["t"] < 2000]
        return round(1000 * (len(times) - 1) / (times[-1] - times[0]), 2) if len(times) > 1 else 0.0

    def prometheus(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _asked(self) -> Iterable[Metric]:
        """Yield what is read when somebody asks."""
        status = self.status()
        info = GaugeMetricFamily("cled_edge_info", "what runs; always 1", labels=list(self._about))
        info.add_metric(list(self._about.values()), 1)
        yield info
        fused = CounterMetricFamily("cled_edge_frames", "fused frames, by what they lacked", labels=["degraded"])
        for degraded, count in list(self._degraded.items()) or [("", 0)]:
            fused.add_metric([degraded], count)
        yield fused
        yield CounterMetricFamily(
            "cled_edge_pairs_overtaken", "pairs that a newer one overtook", value=status.get("dropped", 0)
        )
        outputs = CounterMetricFamily("cled_edge_output_frames", "frames of an output", labels=["to", "what"])
        for output in status.get("outputs", ()):
            for what in ("written", "dropped"):
                outputs.add_metric([output["to"], what], output[what])
        yield outputs
        yield from _of_cameras(status.get("live") or {})
        controls = GaugeMetricFamily("cled_edge_control", "controls that hold now, but those not set", labels=["name"])
        for name, value in asdict(self._box.current).items():
            if value is not None:
                controls.add_metric([name], value)
        yield controls
        states = GaugeMetricFamily("cled_edge_source_state", "1: its state", labels=["modality", "state"])
        for modality, state in zip(("infrared", "visible"), (self._last and self._last.states) or (), strict=False):
            states.add_metric([modality, str(getattr(state, "value", state))], 1)
        yield states
        yield _of_kinds(self.evidence() or {})
        healthy, told = self.health()
        yield GaugeMetricFamily("cled_edge_healthy", "1: a fresh frame of one camera at least", value=int(healthy))
        if told["frame_age_s"] is not None:
            yield GaugeMetricFamily("cled_edge_newest_frame_seconds", "since the last fused", value=told["frame_age_s"])
        yield GaugeMetricFamily("cled_edge_rate_hz", "fused frames a second", value=self.rate_hz())
        yield GaugeMetricFamily("cled_edge_viewers", "open streams of the page", value=self.viewers)


def _of_kinds(evidence: dict[str, Any]) -> Metric:
    """Return how likely each kind of degradation is, by formulas, and by the network where its bundle tells."""
    likely = GaugeMetricFamily(
        "cled_edge_evidence", "how likely a kind of degradation is in the input", labels=["modality", "kind", "by"]
    )
    for by, told in (("formulas", evidence), ("network", evidence.get("network", {}))):
        for modality in ("infrared", "visible"):
            for kind, probability in told.get(modality, {}).items():
                likely.add_metric([modality, kind, by], probability)
    return likely


def _of_cameras(live: dict[str, Any]) -> Iterable[Metric]:
    """Yield what became of the frames of live cameras, see `LivePairs.as_dict`."""
    frames = CounterMetricFamily("cled_edge_camera_frames", "frames of a camera", labels=["modality", "what"])
    for modality, ledger in live.get("ledger", {}).items():
        for what in ("received", "fused", "held", "unpaired"):
            frames.add_metric([modality, what], ledger[what])
        for cause, count in ledger["dropped"].items():
            frames.add_metric([modality, f"dropped: {cause}"], count)
    yield frames
    reopened = CounterMetricFamily("cled_edge_camera_reopened", "times a lost camera came back", labels=["modality"])
    for modality, source in live.get("sources", {}).items():
        reopened.add_metric([modality], source["reopened"])
    yield reopened


class _Asked:
    """Metrics that are made when they are asked for, as prometheus_client takes them."""

    def __init__(self, ask: Callable[[], Iterable[Metric]]) -> None:
        self.collect = ask

    def describe(self) -> Iterable[Metric]:
        """Tell nothing, so that registering asks for no status."""
        return ()
