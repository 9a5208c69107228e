"""Which engines a command line asks for: graphs of a bundle, each with the options to build it by."""

from collections.abc import Sequence
from typing import get_args

from cled_edge.bundle import Bundle
from cled_edge.engine.builder import check_sizes
from cled_edge.engine.capabilities import Capabilities
from cled_edge.engine.options import BuildOptions, graph_name
from cled_edge.errors import EngineError
from cled_edge.manifest import GraphRole, Manifest

Chosen = tuple[str, BuildOptions]  # name of a graph, how to build it


def fixed_sizes(manifest: Manifest, precision: str) -> list[tuple[int, int]]:
    """Return the sizes, (height, width), for which the bundle has graphs of a precision, smallest first."""
    return sorted({graph.size for graph in manifest.graphs.values() if graph.size and graph.precision == precision})


def chosen_graphs(
    bundle: Bundle,
    has: Capabilities,
    options: Sequence[BuildOptions],
    graphs: Sequence[str] = (),
    steps: int | None = None,
) -> list[Chosen]:
    """Return what to build for each of `options`, in the opset that this release parses.

    graphs: roles or names of graphs. None given means all that fusing needs: step, fusion and, where the bundle has
    them, the loops of `steps` (None: the bundle's default) with and without a map. EngineError for what is asked for
    and not there.
    """
    steps = steps or bundle.manifest.schedule.default_steps
    found: dict[tuple[str, str], Chosen] = {}
    for one in options:
        for what in graphs or get_args(GraphRole):
            for name in _names(bundle, has, one, what, steps, needed=bool(graphs)):
                check_sizes(bundle, name, one)
                found[name, one.canonical_json()] = name, one
    return list(found.values())


def _names(
    bundle: Bundle, has: Capabilities, options: BuildOptions, what: str, steps: int, *, needed: bool
) -> list[str]:
    if what not in get_args(GraphRole):
        return [what]  # a name: checked with its size
    is_loop = what == "fused_loop"
    role: GraphRole = what  # type: ignore[assignment]  # it is one of them
    names = [
        graph_name(bundle.manifest, role, options, has.newest_opset, steps if is_loop else None, strength_map)
        for strength_map in ((False, True) if is_loop else (False,))
    ]
    found = [name for name in names if name is not None]
    if not found and (needed or not is_loop):
        opset = options.opset or (f"up to {has.newest_opset}" if has.newest_opset else "any")
        wanted = f" of {steps} steps" if is_loop else ""
        raise EngineError(
            f"{bundle.path} has no {what}{wanted} in {options.precision} for {options.sizes.opt[0]}x"
            f"{options.sizes.opt[1]} (opset {opset}); it has {', '.join(bundle.manifest.graphs)}; export it: python -m "
            f"export.to_onnx --precision {options.precision}"
        )
    return found
