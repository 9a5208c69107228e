"""Opening a backend: what this machine can run of a bundle, and the class behind each registered name."""

from importlib import import_module
from typing import TYPE_CHECKING, cast

from cled_edge.backend.choice import AUTO, REGISTRY, BackendChoice
from cled_edge.backend.failures import one_line
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.cpu import check_threads
from cled_edge.errors import BackendError, CledEdgeError, OptionError

if TYPE_CHECKING:  # opening imports what a backend needs, and not more
    from cled_edge.backend.protocol import Backend, BackendType
    from cled_edge.bundle.reader import Bundle


def open_backend(
    choice: BackendChoice | str,
    bundle: "Bundle",
    threads: int = 0,
    cuda: CudaOptions | None = None,
    *,
    any_size: bool = True,
) -> "Backend":
    """Open a bundle's graphs on a backend that is named, NAME or NAME:PRECISION; `auto` is measured above this.

    threads: CPU threads, 0 is the backend's choice. cuda: of `tensorrt` alone. any_size: False takes a precision too
    that only graphs of one size have; images of another size then have none. OptionError for a choice that does not
    exist and for `auto`, BackendError for one that this machine cannot run: another is never taken in its place.
    """
    choice = BackendChoice.parse(choice) if isinstance(choice, str) else choice
    check_threads(threads)
    check_cuda(choice, cuda)
    if choice.name == AUTO:
        raise OptionError(
            "backend is auto, needed one by name; measure which is fastest here with cled_edge.select.choose(bundle, "
            "threads, size) and give its choice, or open it with cled_edge.select.open_chosen"
        )
    known = _runnable(choice, bundle) if any_size else bundle.manifest.precisions(any_size=False)
    if choice.graphs not in known:
        raise BackendError(
            f"backend {choice}: {bundle.path} has no {choice.graphs} graphs for every size, only {', '.join(known)}; "
            f"take one of those, or a bundle with graphs in {choice.graphs}"
        )
    options = {"options": cuda} if choice.name == "tensorrt" else {}
    return backend_type(choice.name)(bundle, choice, threads, **options)


def check_cuda(choice: BackendChoice, cuda: CudaOptions | None) -> None:
    """Raise OptionError if options of CUDA are given for a backend that has none."""
    if cuda not in (None, CudaOptions()) and choice.name != "tensorrt":
        raise OptionError(
            f"options of CUDA are given for backend {choice}; they are of backend tensorrt alone; leave the "
            "binding and the building of engines out"
        )


def available_backends() -> list[BackendChoice]:
    """Return what this machine can run: the package is installed, the device is there and has the precision."""
    choices = []
    for name, entry in REGISTRY.items():
        try:
            runnable = precisions_here(name)
        except BackendError:
            continue
        choices += [BackendChoice(name, precision) for precision in entry.precisions if precision in runnable]
    return choices


def precisions_here(name: str) -> tuple[str, ...]:
    """Return the precisions in which a backend works here; BackendError if it does not, whatever its SDK raised."""
    try:
        return backend_type(name).precisions(name)
    except CledEdgeError:
        raise
    except Exception as error:  # a package that is half installed, or misses a driver, raises what it likes
        raise BackendError(f"backend {name}: {one_line(error)}; {REGISTRY[name].install}") from error


def backends_of(bundle: "Bundle") -> list[BackendChoice]:
    """Return what this machine can run of a bundle: of `available_backends`, those whose graphs it has."""
    return [choice for choice in available_backends() if choice.graphs in _runnable(choice, bundle)]


def _runnable(choice: BackendChoice, bundle: "Bundle") -> tuple[str, ...]:
    """Return the precisions of a bundle's graphs that a backend can run: only engines are of one size anyway."""
    return bundle.manifest.precisions(any_size=choice.name != "tensorrt")


def backend_type(name: str) -> "BackendType":
    """Return the class behind a name; its SDK is imported only when it is used."""
    entry = REGISTRY[name]
    return cast("BackendType", getattr(import_module(entry.module), entry.type_name))
