"""Which engines a command line asks for: graphs of a bundle, each with the options to build it by."""

from collections.abc import Sequence
from typing import get_args

from cled_edge.backend.tensorrt.build_options import BuildOptions, fitting_graph
from cled_edge.backend.tensorrt.capabilities import Capabilities
from cled_edge.build.builder import check_sizes
from cled_edge.bundle.manifest import Manifest
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import REFERENCE_GRAPHS, STRENGTH_MAPS, GraphRole
from cled_edge.errors import EngineError
from cled_edge.json_text import counted
from cled_edge.size import Size, padded

Chosen = tuple[str, BuildOptions]  # name of a graph, how to build it


def camera_modes(manifest: Manifest, precision: str) -> list[Size]:
    """Return the sizes of pictures, (height, width), that the bundle has graphs of a precision for, smallest first.

    Loops are of the pictures' own size, steps and fusions of that padded.
    """
    graphs = [graph for graph in manifest.graphs.values() if graph.size and graph.precision == precision]
    loops = {graph.size for graph in graphs if graph.size and graph.role == "fused_loop"}
    served = {padded(size, manifest.size_multiple) for size in loops}
    return sorted(loops | {graph.size for graph in graphs if graph.size and graph.size not in served})


def chosen_graphs(
    bundle: Bundle,
    has: Capabilities,
    options: Sequence[BuildOptions],
    graphs: Sequence[str] = (),
    steps: int | None = None,
) -> list[Chosen]:
    """Return what to build for each of `options`, in the opset that this release parses.

    options: their size is that of the pictures; what is returned has the size that the graph takes, as the fuser gives
    it: padded, unless the graph is of just that size. graphs: roles or names of graphs. None given means all that
    fusing needs: the loops of `steps` (None: the bundle's default) with and without a map, where the bundle has them,
    and step and fusion, which it may lack in this precision if it has a loop; doubt too, where it has that.
    EngineError for what is asked for and not there. The warm loop is built only where it is asked for by its name.
    """
    steps = steps or bundle.manifest.schedule.default_steps
    found: dict[tuple[str, str], Chosen] = {}
    for one in options:
        loops = _names(bundle, has, one, "fused_loop", steps, needed="fused_loop" in graphs)
        for what in graphs or get_args(GraphRole):
            is_needed = bool(graphs) or (what in REFERENCE_GRAPHS and not loops)
            for name in loops if what == "fused_loop" else _names(bundle, has, one, what, steps, needed=is_needed):
                sized = _sized(bundle.manifest, name, one)
                check_sizes(bundle, name, sized)
                found[name, sized.canonical_json()] = name, sized
    return list(found.values())


def _names(
    bundle: Bundle, has: Capabilities, options: BuildOptions, what: str, steps: int, *, needed: bool
) -> list[str]:
    if what not in get_args(GraphRole):
        return [what]  # a name: checked with its size
    is_loop = what == "fused_loop"
    role: GraphRole = what  # type: ignore[assignment]  # it is one of them
    sized = options if is_loop else _padded(bundle.manifest, options)
    names = [
        fitting_graph(bundle.manifest, role, sized, has.newest_opset, steps if is_loop else None, maps)
        for maps in (((), STRENGTH_MAPS) if is_loop else ((),))
    ]
    found = [name for name in names if name is not None]
    if not found and needed:
        opset = options.opset or (f"up to {has.newest_opset}" if has.newest_opset else "any")
        wanted = f" of {counted(steps, 'step')}" if is_loop else ""
        raise EngineError(
            f"{bundle.path} has no {what}{wanted} in {options.precision} for {options.sizes.opt[0]}x"
            f"{options.sizes.opt[1]} (opset {opset}); it has {', '.join(bundle.manifest.graphs)}; take one of "
            f"those, or a bundle with graphs in {options.precision}"
        )
    return found


def _sized(manifest: Manifest, name: str, options: BuildOptions) -> BuildOptions:
    graph = manifest.graphs.get(name)  # an unknown one is refused with its size
    return options if graph is not None and graph.size == options.size else _padded(manifest, options)


def _padded(manifest: Manifest, options: BuildOptions) -> BuildOptions:
    if options.size is None:
        return options
    return options.model_copy(update={"size": padded(options.size, manifest.size_multiple)})
