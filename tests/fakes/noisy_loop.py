"""The shipped networks in a loop with noise: theirs has none, and nothing to spread. Nor a doubt graph."""

from dataclasses import replace

from cled_edge import Bundle, Fuser
from cled_edge.backend.opener import open_backend
from cled_edge.bundle.manifest import ScheduleSpec
from cled_edge.schedule import Schedule


def noisy_fuser() -> Fuser:
    """Return a fuser with the schedule `rddm09`, step by step; close it."""
    bundle = Bundle.open()
    schedule = ScheduleSpec.from_schedule(Schedule.named("rddm09"), bundle.manifest.schedule.default_steps)
    graphs = {name: graph for name, graph in bundle.manifest.graphs.items() if graph.role != "doubt"}
    noisy = replace(bundle, manifest=bundle.manifest.model_copy(update={"schedule": schedule, "graphs": graphs}))
    return Fuser(noisy, open_backend("onnxruntime", noisy))
