"""TensorRT on an NVIDIA GPU: what is installed, engines on disk, and the runner."""
