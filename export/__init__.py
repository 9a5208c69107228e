"""Checkpoint to bundle: ONNX graphs, manifest, verification. Programs to run, never installed."""
