"""Checkpoint to bundle: ONNX graphs, manifest, verification. Programs to run, never installed."""

from cled_edge.errors import name_extras

name_extras(__name__, "export")
