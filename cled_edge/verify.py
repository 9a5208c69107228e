"""Whether a bundle computes here what its network did: golden pairs and what eager PyTorch made of them in FP32.

Export verifies with whole images before a bundle appears; `golden.safetensors` in the bundle holds a few pairs and
samples of what is to come out, so that `cled-edge verify` can repeat it on any machine and backend, without torch.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.facts import details, notes
from cled_edge.backend.opener import check_cuda, open_backend
from cled_edge.backend.tensorrt.run_options import CudaOptions
from cled_edge.bundle.manifest import GOLDEN_NAME, REFERENCE_OPSET, CheckSpec, Verdict
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import KINDS, TOLD, TOLD_SHARE, UNCERTAINTY, Controls
from cled_edge.errors import BundleCorruptError, BundleMissingError, EngineError
from cled_edge.fuser import Fuser
from cled_edge.image import Uint8
from cled_edge.json_text import json_from_bytes, shown
from cled_edge.memory import Told
from cled_edge.metrics.psnr import BYTES_SPAN, NETWORK_SPAN, psnr_db
from cled_edge.size import Size, padded, size_text
from cled_edge.tensors import maps_of, start_noise
from cled_edge.thermal import WHITE_HOT

# Of the whole loop against eager FP32, by the precision that computes: bf16 is OpenVINO's, of FP32 graphs.
NEEDED_DB = {"fp32": 60.0, "fp16": 50.0, "bf16": 40.0, "int8": 40.0}
EXACT_DB = 200.0  # what equal arrays count as
SAMPLES = 2048  # of each array that a golden case keeps
_MOST_CASES, _LARGEST = 256, (480, 640)  # of golden data: they are to be run; larger only for graphs of larger sizes
_FRAMES = ("picture", "infrared", "visible", KINDS)
KINDS_APART = 0.1  # of a kind's probability, in any precision
Form = Literal["step by step", "one graph"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A pair, controls, and what eager PyTorch makes of them.

    infrared: (H, W), visible: (H, W, 3), strength_map: (H, W, 2) or None; uint8. told: of the warm
    loop alone. controls.steps is a number.
    expected: `residual` (2, 3, H', W') and `fused` (1, 3, H', W'), float32, padded as the fuser does; `picture`
    (H, W, 3), `infrared` (H, W) and `visible` (H, W, 3), uint8; `kinds` (2, K), float32, if the network tells. With a
    start noise there is no form in one graph: `residual`, `drawn` of the same shape, `fused` of the sample, and
    `uncertainty` (2, 1, H', W'), float32. Where `positions` names an array, `expected` holds only those of its
    elements, by their place in the flat array.
    """

    infrared: Uint8
    visible: Uint8
    controls: Controls
    expected: dict[str, Array]
    strength_map: Uint8 | None = None
    positions: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    told: Told | None = None

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that it has."""
        return tuple(maps_of(self.strength_map, self.told))

    @property
    def size(self) -> Size:
        """Height and width."""
        height, width = self.infrared.shape
        return height, width

    def sampled(self, seed: int) -> "Case":
        """Return the case with SAMPLES elements of each expected array."""
        rng = np.random.default_rng(seed)
        positions = {
            name: rng.integers(array.size, size=min(SAMPLES, array.size), dtype=np.int32)
            for name, array in self.expected.items()
        }
        expected = {name: array.reshape(-1)[positions[name]] for name, array in self.expected.items()}
        return replace(self, expected=expected, positions=positions)

    def compared(self, name: str, seen: Array) -> tuple[Array, Array]:
        """Return what was seen and what was expected of an array, where both are known."""
        if name in self.positions:
            return seen.reshape(-1)[self.positions[name]], self.expected[name]
        return seen, self.expected[name]


@dataclass
class Remarks:
    """What is to be said beside checks. left_out: of each run for whose size no engine fits. notes: of the backends."""

    left_out: list[EngineError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    bundle: Bundle,
    choice: BackendChoice | str,
    cases: Sequence[Case],
    opset: int = REFERENCE_OPSET,
    remarks: Remarks | None = None,
    cuda: CudaOptions | None = None,
    *,
    any_size: bool = True,
) -> list[CheckSpec]:
    """Run every case that the graphs of one precision and opset can take, step by step and in one graph.

    Returns a check per size, form and number of steps: the worst of its cases; none if the backend has not that opset.
    remarks: takes what else is to be said; without it, an engine that is missing is an EngineError. cuda: of
    `tensorrt` alone. any_size: see `open_backend`.
    """
    choice = BackendChoice.parse(choice) if isinstance(choice, str) else choice
    checks: dict[tuple[Size, Form, int], CheckSpec] = {}
    default_steps = bundle.manifest.schedule.default_steps
    counted = [(case, case.controls.steps or default_steps) for case in cases]
    said: list[str] = []
    # A way at a time: ONNX Runtime keeps what a graph took at most, 5 GB of the lineage's at 480x640.
    for way in dict.fromkeys(way for _, steps in counted for way in _ways(steps)):
        backend = open_backend(choice, bundle, cuda=cuda, any_size=any_size)
        with Fuser(bundle, backend, opset=opset, thermal=WHITE_HOT) as fuser:
            for case, steps in counted if opset in fuser.backend.opsets else ():
                check = _check(fuser, opset, case, way[0], remarks) if way in _ways(steps) else None
                if check is not None:
                    key = (check.size, check.form, check.steps)
                    checks[key] = _merged(checks[key], check) if key in checks else check
            said += [f"{choice}: {note}" for note in notes(details(fuser.backend.facts, fuser.backend.runs))]
    if remarks is not None:
        remarks.notes += dict.fromkeys(said)
    order = dict.fromkeys((case.size, form, steps) for case, steps in counted for form, _ in _ways(steps))
    return [checks[key] for key in order if key in checks]


def verify_all(
    bundle: Bundle,
    choices: Sequence[BackendChoice],
    cases: Sequence[Case],
    remarks: Remarks | None = None,
    cuda: CudaOptions | None = None,
) -> list[tuple[BackendChoice, CheckSpec]]:
    """Run the cases on every backend, at every opset for which the bundle has graphs of its precision.

    cuda: for those of `choices` that are `tensorrt`; OptionError if none is.
    """
    if not any(choice.name == "tensorrt" for choice in choices):
        check_cuda(choices[0], cuda)
    checks = []
    for choice in choices:
        graphs = bundle.manifest.graphs.values()
        # Without a graph of that precision, opening the backend says so.
        for opset in sorted({graph.opset for graph in graphs if graph.precision == choice.graphs}) or (
            REFERENCE_OPSET,
        ):
            given = cuda if choice.name == "tensorrt" else None
            checks += [(choice, check) for check in verify(bundle, choice, cases, opset, remarks, given)]
    return checks


def _check(fuser: Fuser, opset: int, case: Case, form: Form, remarks: Remarks | None) -> CheckSpec | None:
    """Return what became of a case; None if the bundle has not the graphs, or no engine fits and remarks say so."""
    try:
        outputs = _computed(fuser, opset, case, form)
    except EngineError as error:
        if remarks is None:
            raise
        remarks.left_out.append(error)
        return None
    if outputs is None:
        return None
    choice = fuser.backend.choice
    needed = NEEDED_DB[choice.precision or "fp32"]
    verdict, psnr_db, tensor = _worst(case, outputs)
    return CheckSpec(
        precision=choice.graphs,
        opset=opset,
        size=case.size,
        form=form,
        steps=fuser.steps(case.controls),
        cases=1,
        psnr_db=round(psnr_db, 1),
        needed_db=needed,
        verdict="TOLERANCE" if verdict == "OK" and psnr_db < needed else verdict,
        tensor=tensor,
    )


def _merged(one: CheckSpec, other: CheckSpec) -> CheckSpec:
    worst = min(one, other, key=lambda check: (check.verdict == "OK", check.psnr_db))
    return worst.model_copy(update={"cases": one.cases + other.cases})


def _ways(steps: int) -> tuple[tuple[Form, int | None], ...]:
    """Return the ways to compute a case: by the graphs that any number of steps shares, and by the loop of so many."""
    return ("step by step", None), ("one graph", steps)


def _computed(fuser: Fuser, opset: int, case: Case, form: Form) -> dict[str, Array] | None:
    """Return what the bundle makes of a case in one form; None if it has not the graphs."""
    manifest = fuser.bundle.manifest
    if form == "one graph":
        if case.controls.start_noise or fuser.loop_graph(case.size, case.controls, case.maps) is None:
            return None
        frame = fuser.in_one_graph(case.infrared, case.visible, case.controls, case.strength_map, case.told)
        return {name: value for name in _FRAMES if (value := getattr(frame, name)) is not None}
    x_in = fuser.prepare(case.infrared, case.visible)
    padded = (x_in.shape[2], x_in.shape[3])
    if case.maps or manifest.find("unet_step", fuser.backend.choice.graphs, opset, padded) is None:
        return None
    # Before rounding to bytes, which would hide a difference or make one of it.
    if not case.controls.start_noise:
        residual, fused, told = fuser.residual_and_fused(x_in, case.controls)
        return {"residual": residual, "fused": fused, **({} if told is None else {KINDS: told})}
    if manifest.find("doubt", fuser.backend.choice.graphs, opset, padded) is None:
        return None
    residual, _ = fuser.residual(x_in, case.controls)
    drawn, uncertainty = fuser.doubt(x_in, residual, start_noise(case.controls, case.size))
    fused = fuser.fusion(x_in, drawn, case.controls)
    return {"residual": residual, "drawn": drawn, UNCERTAINTY: uncertainty, "fused": fused}


def _worst(case: Case, outputs: dict[str, Array]) -> tuple[Verdict, float, str]:
    # What a bundle gives and its golden pairs do not hold is not judged.
    return worst({n: case.compared(n, seen) for n, seen in outputs.items() if n != KINDS or n in case.expected})


def worst(pairs: Mapping[str, tuple[Array, Array]]) -> tuple[Verdict, float, str]:
    """Return the verdict, the PSNR in dB and the name of the worst of outputs: what was seen, and what was needed."""
    judged = [(*_judges.get(name, judge)(*pair), name) for name, pair in pairs.items()]
    return min(judged, key=lambda row: (row[0] == "OK", row[1]))


def judge_kinds(seen: Array, needed: Array) -> tuple[Verdict, float]:
    """Return a verdict on log odds, and the PSNR of the probabilities they stand for, over 1; that of OK is not worst.

    They are to be read, not shown: where probabilities differ by at most KINDS_APART they count as equal.
    """
    if not (np.isfinite(seen).all() and np.isfinite(needed).all()):
        return "NONFINITE", 0.0
    told, wanted = (1 / (1 + np.exp(-np.clip(x.astype(np.float64), -50, 50))) for x in (seen, needed))
    if float(np.abs(told - wanted).max(initial=0.0)) <= KINDS_APART:
        return "OK", EXACT_DB
    return "TOLERANCE", min(EXACT_DB, psnr_db(told, wanted, 1.0))


def judge(seen: Array, needed: Array, span: float | None = None) -> tuple[Verdict, float]:
    """Return a verdict, OK, NONFINITE or CONSTANT, and the PSNR in dB over a span: 255 for bytes, 2 for floats."""
    if not (np.isfinite(seen).all() and np.isfinite(needed).all()):
        return "NONFINITE", 0.0
    span = span or (BYTES_SPAN if needed.dtype == np.uint8 else NETWORK_SPAN)
    is_constant = float(np.ptp(seen)) == 0 and float(np.ptp(needed)) > 0
    return ("CONSTANT" if is_constant else "OK"), min(EXACT_DB, psnr_db(seen, needed, span))


_judges: dict[str, Callable[[Array, Array], tuple[Verdict, float]]] = {
    KINDS: judge_kinds,
    UNCERTAINTY: partial(judge, span=BYTES_SPAN),
}


def write_golden(cases: Iterable[Case]) -> bytes:
    """Return the content of `golden.safetensors`; a pair that several cases share is stored once."""
    arrays: dict[str, Array] = {}
    described = []
    pairs: dict[int, int] = {}
    for index, case in enumerate(cases):
        pair = pairs.setdefault(id(case.infrared), len(pairs))
        arrays |= {f"pair{pair}.infrared": case.infrared, f"pair{pair}.visible": case.visible}
        if case.strength_map is not None:
            arrays[f"case{index}.strength_map"] = case.strength_map
        if case.told is not None:
            arrays |= {f"case{index}.{TOLD.name}": case.told.image, f"case{index}.{TOLD_SHARE.name}": case.told.share}
        for name, values in case.expected.items():
            arrays[f"case{index}.{name}"] = values
            arrays[f"case{index}.{name}.at"] = case.positions[name]
        described.append({"pair": pair, "controls": vars(case.controls), "expected": list(case.expected)})
    return save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, {"cases": json.dumps(described)})


def read_golden(bundle: Bundle) -> list[Case]:
    """Return the bundle's golden cases.

    BundleMissingError if it has none, BundleCorruptError if they are not as `write_golden` writes them.
    """
    content = bundle.content(GOLDEN_NAME)
    if content is None:
        raise BundleMissingError(
            f"{bundle.path} has no {GOLDEN_NAME}; get a bundle that was exported with this release"
        )
    try:
        arrays = load(content)
        header = json_from_bytes(content[8 : 8 + int.from_bytes(content[:8], "little")])
        described = _Described(cases=json_from_bytes(header["__metadata__"]["cases"].encode()))
        if len(described.cases) > _MOST_CASES:
            raise ValueError(f"it has {len(described.cases)} cases, over {_MOST_CASES}")
        sizes = [graph.size for graph in bundle.manifest.graphs.values() if graph.size is not None]
        most_px = max(height * width for height, width in (_LARGEST, *sizes))
        multiple = bundle.manifest.size_multiple
        kinds = len(bundle.manifest.kinds)
        return [_case(index, entry, arrays, (multiple, kinds), most_px) for index, entry in enumerate(described.cases)]
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise BundleCorruptError(
            f"{bundle.path / GOLDEN_NAME} is not as export writes it ({shown(error, 200)}); "
            "get the bundle again from its source"
        ) from error


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pair: int
    controls: dict[str, int | float | None]
    expected: tuple[str, ...]


class _Described(BaseModel):
    cases: tuple[_Entry, ...]


def _expected_of(name: str, size: Size, multiple: int, kinds: int) -> tuple[type[np.generic], int]:
    """Return the type and the number of elements of an array that a case expects; ValueError for an unknown one."""
    plain, whole = size[0] * size[1], padded(size, multiple)
    known: dict[str, tuple[type[np.generic], int]] = {
        "residual": (np.float32, 2 * 3 * whole[0] * whole[1]),
        "fused": (np.float32, 3 * whole[0] * whole[1]),
        "picture": (np.uint8, 3 * plain),
        "infrared": (np.uint8, plain),
        "visible": (np.uint8, 3 * plain),
        "drawn": (np.float32, 2 * 3 * whole[0] * whole[1]),
        UNCERTAINTY: (np.float32, 2 * whole[0] * whole[1]),
        **({KINDS: (np.float32, 2 * kinds)} if kinds else {}),
    }
    if name not in known:
        raise ValueError(f"it expects {shown(name)}, which nothing computes")
    return known[name]


def _check_sample(where: str, values: Array, at: Array, dtype: type[np.generic], most: int) -> None:
    """Raise ValueError unless values are of their type and finite, each with a position below `most`."""
    if values.dtype != dtype or at.dtype != np.int32 or values.ndim != 1 or values.shape != at.shape or not at.size:
        raise ValueError(f"{where} is {values.dtype} {values.shape} at {at.dtype} {at.shape}")
    if int(at.min()) < 0 or int(at.max()) >= most:
        raise ValueError(f"{where} has positions from {at.min()} to {at.max()}, of {most}")
    if not np.isfinite(values).all():
        raise ValueError(f"{where} has values that are not finite")


def _case(index: int, entry: _Entry, arrays: dict[str, Array], facts: tuple[int, int], most_px: int) -> Case:
    """Return a case; ValueError if its arrays are not what the fuser could be compared with.

    facts: the bundle's size multiple, and how many kinds it tells.
    """
    strength_map = arrays.get(f"case{index}.strength_map")
    infrared, visible = arrays[f"pair{entry.pair}.infrared"], arrays[f"pair{entry.pair}.visible"]
    expected = {name: arrays[f"case{index}.{name}"] for name in entry.expected}
    positions = {name: arrays[f"case{index}.{name}.at"] for name in entry.expected}
    is_pair = infrared.dtype == visible.dtype == np.uint8 and visible.shape == (*infrared.shape, 3)
    if not is_pair or infrared.ndim != 2 or not infrared.size:
        raise ValueError(f"case {index} has arrays of other shapes or types")
    size = infrared.shape[0], infrared.shape[1]
    if infrared.size > most_px:
        raise ValueError(f"case {index} has images of {size_text(size)}, over {most_px} pixels")
    if strength_map is not None and (strength_map.dtype != np.uint8 or strength_map.shape != (*size, 2)):
        raise ValueError(f"case {index} has a strength map of {strength_map.dtype} {strength_map.shape}")
    told = _told(index, arrays, size)
    for name, values in expected.items():
        _check_sample(f"case {index}: {shown(name)}", values, positions[name], *_expected_of(name, size, *facts))
    return Case(
        infrared,
        visible,
        Controls.from_mapping(entry.controls, f"case {index}"),
        expected,
        strength_map,
        positions,
        told,
    )


def _told(index: int, arrays: dict[str, Array], size: Size) -> Told | None:
    """Return what a warm case starts from; ValueError if it is half there, or of another type or shape."""
    image, share = (arrays.get(f"case{index}.{name}") for name in (TOLD.name, TOLD_SHARE.name))
    if image is None and share is None:
        return None
    if image is None or share is None:
        raise ValueError(f"case {index} has {TOLD.name} or {TOLD_SHARE.name} alone")
    for name, values, channels in ((TOLD.name, image, 4), (TOLD_SHARE.name, share, 2)):
        if values.dtype != np.uint8 or values.shape != (*size, channels):
            raise ValueError(f"case {index} has {name} of {values.dtype} {values.shape}")
    return Told(image, share)
