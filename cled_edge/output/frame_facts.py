"""What a fused frame says of itself, as plain JSON types: for the page, and for recordings."""

from dataclasses import asdict
from typing import Any

from cled_edge.frame import FusedFrame
from cled_edge.stage_times import IDLE


def facts_of(frame: FusedFrame) -> dict[str, Any]:
    """Return name, size, ages, skew, latencies, controls and states; times in milliseconds, None if one is unknown."""
    return {
        "name": frame.name,
        "size": list(frame.picture.shape[:2]),
        "infrared_age_ms": ms(frame.infrared_age_ns),
        "visible_age_ms": ms(frame.visible_age_ns),
        "skew_ms": ms(frame.skew_ns),
        "latency_ms": {stage: ms(value) for stage, value in frame.latency_ns.items()},
        "total_ms": ms(total_ns(frame)),
        "controls": asdict(frame.controls),
        "degraded": frame.degraded,
        "states": [str(getattr(state, "value", state)) for state in frame.states] if frame.states else None,
        "notes": list(frame.notes),
    }


def ms(value_ns: int | None) -> float | None:
    """Return milliseconds, None for None."""
    return None if value_ns is None else round(value_ns / 1e6, 3)


def total_ns(frame: FusedFrame) -> int:
    """Return what a frame took, less what its thread idled."""
    return sum(value for stage, value in frame.latency_ns.items() if stage != IDLE)
