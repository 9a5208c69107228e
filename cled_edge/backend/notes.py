"""What a report must say of a backend: on what its graphs really ran, and how they were launched."""

from collections.abc import Mapping
from typing import Any

NOTED = {
    "engines": "engine",
    "cuda_graph": "CUDA graph",
    "providers": "providers",
}  # entries of `Backend.details`, by graph


def notes(details: Mapping[str, Any]) -> list[str]:
    """Return a line for each graph that ran, of a backend's details; none on a CPU."""
    return [f"{word}: {graph}: {said}" for key, word in NOTED.items() for graph, said in details.get(key, {}).items()]
