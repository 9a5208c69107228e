"""Whether the controls do what they say, and what each step of the loop is worth: strength, balance, steps, light.

    python -m benchmarks.control --data DATA --small
    python -m benchmarks.control --data DATA --bundle bundles/mine --out FILE.json

Pairs are held out and degraded by `ems.py`, a kind in the infrared beside one in the visible: the network restores each
image alone. Images are cut to their middle, `--size`, but for the balance. The recording form runs: the step graph, and
the fusion graph.

    strength     PSNR to the clean image at 16 strengths, 0 to 1.5. The restored image is x_in - s R, cut to [-1, 1]:
                 also where a bundle takes no s over 1. best: of the mean curve. rank: Spearman's, of strength and PSNR
                 up to the best
    leak         by how many levels a modality's restored image changes with the other one's strength: 0
    balance      SSIM of the fused luma to the restored visible luma at 0, to the restored infrared at 1; steady:
                 over five values the first falls and the second rises
    steps        PSNR gained at 1 to 5 steps, the processor's time a frame, and the spread over start noises
    taken        of what was left of the true residual before a step, the share that it took, and the cosine of both
    doubt        rank: Spearman's of uncertainty and the absolute error of the luma, in a picture. inside: the share of
                 pixels whose error is no larger than it. share: of the tenth with the largest uncertainty, how much is
                 in the tenth with the largest error. spread: the deviation over 8 samples, in that tenth, over the
                 one that the uncertainty stands for. PSNR of the estimate, of the samples' mean, and of one sample
    grey         PSNR that the visible gains in colour, and what the same scene gains as a monochrome camera sees it,
                 which is degraded itself
    light        of nights with a little noise: how bright they come out, and the PSNR to the same nights brightened
                 alike without that noise, before and after it is removed
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks import ems
from benchmarks.baselines import luma_of
from benchmarks.held_out import Scene, read_scenes
from benchmarks.measures import capped_db
from benchmarks.result import Out, Row, Update, check_target, new_result, save
from cled_edge.backend.choice import BackendChoice
from cled_edge.backend.opener import open_backend
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import UNCERTAINTY_DEVIATIONS, Controls
from cled_edge.errors import OptionError, one_line_errors
from cled_edge.explain.pixel_origin import luma_levels
from cled_edge.fuser import Fuser
from cled_edge.image import Float32, Uint8, bytes_from_network
from cled_edge.light import gains, lifted
from cled_edge.metrics.psnr import psnr_db
from cled_edge.metrics.reference import ssim
from cled_edge.schedule import Schedule
from cled_edge.size import Size, parse_size
from cled_edge.tensors import fused_image, grey_of, restored_images, start_noise

PARTS = ("strength", "leak", "balance", "steps", "taken", "doubt", "grey", "light")
FOLDERS = ("msrs", "roadscene")
STRENGTHS = tuple(round(0.1 * k, 1) for k in range(16))
BALANCES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_STEPS, SEEDS, SAMPLES = 5, 4, 8
LIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
NIGHT_NOISE = 4.0  # standard deviation, grey levels
MODALITIES = ("infrared", "visible")
_ALL = 1e-3  # of SSIM: a step of the balance that moves by less is neither up nor down
Float64 = NDArray[np.float64]


class Trial(NamedTuple):
    """A degraded pair and its clean one, as batches (2, 3, H, W); kinds: of the infrared and of the visible, or ""."""

    scene: Scene
    kinds: tuple[str, str]
    x_in: Float32
    clean: Float32


def trials_of(fuser: Fuser, scene: Scene) -> Iterator[Trial]:
    """Yield a scene with each kind once; where the infrared has no more kinds it stays clean."""
    clean = fuser.prepare(scene.infrared, scene.visible)
    for infrared, visible in zip_longest(ems.INFRARED, ems.VISIBLE, fillvalue=""):
        case = ems.Case((infrared,) if infrared else (), (visible,) if visible else ())
        degraded = case(scene.infrared, scene.visible, scene.seed)
        yield Trial(scene, (infrared, visible), fuser.prepare(*degraded), clean)


def cut(scene: Scene, size: Size) -> Scene:
    """Return the middle of a scene, of at most this size."""
    starts = [max(0, (side - most) // 2) for side, most in zip(scene.infrared.shape, size, strict=True)]
    place = tuple(slice(start, start + most) for start, most in zip(starts, size, strict=True))
    images = (np.ascontiguousarray(image[place]) for image in (scene.infrared, scene.visible))
    return Scene(scene.folder, scene.stem, *images)


def residuals_of(fuser: Fuser, x_in: Float32, steps: int, x_t: Float32 | None = None) -> list[Float32]:
    """Return the residual after each step."""
    return [each["residual"].copy() for each in fuser.trajectory(x_in, Controls(steps), x_t)]


def image_of(batch: Float32, place: int) -> Uint8:
    """Return one modality of a batch as bytes."""
    return grey_of(batch[0]) if place == 0 else bytes_from_network(batch[1])


def is_judged(trial: Trial, place: int) -> bool:
    """Whether an image tells of its kind: it has one, and a night is not judged, which is dark when it is clean."""
    return bool(trial.kinds[place]) and not (place == 1 and trial.scene.light == "night")


def each_kind(trials: Iterable[Trial]) -> Iterator[tuple[str, str, Trial, int]]:
    """Yield modality, kind, trial and place in the batch of each image that is judged."""
    for trial in trials:
        for place, modality in enumerate(MODALITIES):
            if is_judged(trial, place):
                yield modality, trial.kinds[place], trial, place


def spearman(x: Float64, y: Float64) -> float:
    """Return the rank correlation of values without ties; NaN of fewer than two."""
    if len(x) < 2:
        return float("nan")
    ranks = np.argsort(np.argsort(x)), np.argsort(np.argsort(y))
    return float(np.corrcoef(*ranks)[0, 1])


def strength_rows(fuser: Fuser, trials: list[Trial]) -> Iterator[Row]:
    """Yield, for each kind, the mean PSNR at each strength, the best one, and the rank correlation up to it."""
    curves: dict[tuple[str, str], list[list[float]]] = {}
    last = {id(trial): residuals_of(fuser, trial.x_in, fuser.steps(Controls()))[-1] for trial in trials}
    for modality, kind, trial, place in each_kind(trials):
        wanted, taken = image_of(trial.clean, place), last[id(trial)]
        images = (image_of(np.clip(trial.x_in - np.float32(s) * taken, -1, 1), place) for s in STRENGTHS)
        curves.setdefault((modality, kind), []).append([capped_db(image, wanted) for image in images])
    for (modality, kind), found in curves.items():
        mean = np.mean(found, axis=0)
        best = int(mean.argmax())
        yield {
            "part": "strength", "modality": modality, "kind": kind, "images": len(found),
            "best": STRENGTHS[best], "best_db": round(float(mean[best]), 2),
            "at_1_db": round(float(mean[STRENGTHS.index(1.0)]), 2), "at_0_db": round(float(mean[0]), 2),
            "rank": round(spearman(np.array(STRENGTHS[: best + 1]), mean[: best + 1]), 3),
            **{f"db_at_{s}": round(float(db), 2) for s, db in zip(STRENGTHS, mean, strict=True)},
        }  # fmt: skip


def leak_rows(fuser: Fuser, trials: list[Trial]) -> Iterator[Row]:
    """Yield by how much a modality's restored image changes with the other's strength, in the form that `fuse` runs."""
    most = dict.fromkeys(MODALITIES, 0)
    for trial in trials:
        images = image_of(trial.x_in, 0), image_of(trial.x_in, 1)
        plain = fuser.fuse(*images, Controls())
        for modality, other in (MODALITIES, MODALITIES[::-1]):
            turned = fuser.fuse(*images, Controls.from_mapping({f"strength_{other}": 0.3}, "leak"))
            change = np.abs(getattr(turned, modality).astype(int) - getattr(plain, modality)).max()
            most[modality] = max(most[modality], int(change))
    for modality, levels in most.items():
        yield {"part": "leak", "modality": modality, "images": len(trials), "largest_change_levels": levels}


def balance_rows(fuser: Fuser, scenes: list[Scene]) -> Iterator[Row]:
    """Yield how alike the fused luma is to each restored one by balance, and on how many pairs that is steady."""
    curves = []
    for scene in scenes:
        size = scene.infrared.shape[0], scene.infrared.shape[1]
        x_in = fuser.prepare(scene.infrared, scene.visible)
        residual, _ = fuser.residual(x_in, Controls())
        residual = residual.copy()
        infrared, visible = restored_images(x_in, residual, Controls(), size)
        pictures = [fused_image(fuser.fusion(x_in, residual, Controls(balance=b)), size) for b in BALANCES]
        curves.append([(ssim(picture, visible), ssim(picture, infrared)) for picture in pictures])
    found = np.array(curves)
    for place, balance in enumerate(BALANCES):
        yield {
            "part": "balance", "balance": balance, "images": len(found),
            "ssim_to_visible": round(float(found[:, place, 0].mean()), 4),
            "ssim_to_infrared": round(float(found[:, place, 1].mean()), 4),
            "lowest_to_visible": round(float(found[:, place, 0].min()), 4),
            "lowest_to_infrared": round(float(found[:, place, 1].min()), 4),
        }  # fmt: skip
    falls, rises = -np.diff(found[:, :, 0], axis=1), np.diff(found[:, :, 1], axis=1)
    lowest = np.minimum(falls, rises).min(axis=1).tolist()
    odd = [f"{scene.folder}/{scene.stem}" for scene, least in zip(scenes, lowest, strict=True) if least < -_ALL]
    yield {"part": "balance", "balance": "steady", "images": len(scenes) - len(odd), "odd": " ".join(odd) or None}


def steps_rows(fuser: Fuser, trials: list[Trial]) -> Iterator[Row]:
    """Yield the mean gain of each modality, the processor's time and the spread over start noises, by steps."""
    for steps in range(1, MOST_STEPS + 1):
        gains, cpu_ms = gains_at(fuser, trials, steps)
        spreads = [spread_of(fuser, trial.x_in, steps).mean() for trial in trials[:2]]
        yield {
            "part": "steps", "steps": steps, "images": len(trials),
            **{f"{modality}_gain_db": round(float(np.mean(found)), 3) for modality, found in gains.items()},
            "steps_cpu_ms": round(float(np.median(cpu_ms)), 1),
            "spread_levels": round(float(np.mean(spreads)), 3),
        }  # fmt: skip


def gains_at(fuser: Fuser, trials: list[Trial], steps: int) -> tuple[dict[str, list[float]], list[float]]:
    """Return the PSNR that each image gains, by modality, and the processor's ms of each pair's loop."""
    gains: dict[str, list[float]] = {modality: [] for modality in MODALITIES}
    cpu_ms = []
    for trial in trials:
        begun = time.process_time()
        residual = residuals_of(fuser, trial.x_in, steps)[-1]
        cpu_ms.append((time.process_time() - begun) * 1e3)
        for modality, _, _, place in each_kind([trial]):
            wanted = image_of(trial.clean, place)
            before, after = (image_of(x, place) for x in (trial.x_in, trial.x_in - residual))
            gains[modality].append(psnr_db(after, wanted) - psnr_db(before, wanted))
    return gains, cpu_ms


def taken_rows(fuser: Fuser, trials: list[Trial]) -> Iterator[Row]:
    """Yield, for each kind and step, what it took of what was left of the true residual, and the cosine of both."""
    found: dict[tuple[str, str], list[list[tuple[float, float]]]] = {}
    for modality, kind, trial, place in each_kind(trials):
        residuals = [r[place] for r in residuals_of(fuser, trial.x_in, max(3, fuser.steps(Controls())))]
        found.setdefault((modality, kind), []).append(taken(residuals, (trial.x_in - trial.clean)[place]))
    for (modality, kind), steps in found.items():
        means = np.nanmean(np.array(steps), axis=0)
        for step, (share, cosine) in enumerate(means, 1):
            yield {
                "part": "taken", "modality": modality, "kind": kind, "step": step, "images": len(steps),
                "share_of_what_it_met": round(float(share), 3), "cosine": round(float(cosine), 3),
            }  # fmt: skip


def taken(residuals: list[Float32], true: Float32) -> list[tuple[float, float]]:
    """Return, for each step, <c, e> / <e, e> and <c, e> / |c| |e| of its change c and what was left before it, e."""
    found, before = [], np.zeros_like(true)
    for residual in residuals:
        change, left = (residual - before).astype(np.float64), (true - before).astype(np.float64)
        along, size, whole = float((change * left).sum()), float((change**2).sum()), float((left**2).sum())
        cosine = along / np.sqrt(size * whole) if size > 0 and whole > 0 else float("nan")
        found.append((along / whole if whole else float("nan"), cosine))
        before = residual
    return found


class Doubt(NamedTuple):
    """How a map of uncertainty, and samples, fit one image's true error; see the head of this file."""

    rank: float
    inside: float
    share: float
    spread: float
    estimate_db: float
    mean_db: float
    one_db: float


def doubt_rows(fuser: Fuser, trials: list[Trial]) -> Iterator[Row]:
    """Yield, for each kind and then all of a modality, how uncertainty and samples fit the true error.

    The last row of a modality is the mean of its kinds. There is none of a bundle without a doubt graph.
    """
    if fuser.bundle.manifest.find("doubt") is None:
        return
    found: dict[tuple[str, str], list[Doubt]] = {}
    for trial in trials:
        judged = doubts_of(fuser, trial)
        for modality, kind, _, place in each_kind([trial]):
            found.setdefault((modality, kind), []).append(judged[place])
    for modality in MODALITIES:
        kinds = {kind: np.nanmean(rows, axis=0) for (of, kind), rows in found.items() if of == modality}
        for kind, mean in kinds.items():
            yield _doubt_row(modality, kind, len(found[modality, kind]), mean)
        if kinds:
            images = sum(len(rows) for (of, _), rows in found.items() if of == modality)
            yield _doubt_row(modality, "mean of kinds", images, np.nanmean([*kinds.values()], axis=0))


def _doubt_row(modality: str, kind: str, images: int, mean: Float64) -> Row:
    values = {name: round(float(value), 3) for name, value in zip(Doubt._fields, mean, strict=True)}
    return {"part": "doubt", "modality": modality, "kind": kind, "images": images, **values}


def doubts_of(fuser: Fuser, trial: Trial) -> tuple[Doubt, Doubt]:
    """Return how uncertainty and samples fit the error of an infrared and a visible image."""
    x_in, size = trial.x_in, (trial.x_in.shape[2], trial.x_in.shape[3])
    residual = residuals_of(fuser, x_in, fuser.steps(Controls()))[-1]
    uncertainty = fuser.doubt(x_in, residual)[1][:, 0].copy()
    noises = (start_noise(Controls(start_noise=1.0, seed=seed), size) for seed in range(SAMPLES))
    samples = np.stack([x_in - fuser.doubt(x_in, residual, noise)[0] for noise in noises])
    spread = np.std([luma_levels(sample) for sample in samples], axis=0, ddof=1)
    error = np.abs(luma_levels(x_in - residual) - luma_levels(trial.clean))
    images = x_in - residual, samples.mean(axis=0), samples[0]

    def judged(place: int) -> Doubt:
        wanted = image_of(trial.clean, place)
        decibels = (capped_db(image_of(image, place), wanted) for image in images)
        doubt, miss = uncertainty[place], error[place]
        return Doubt(
            spearman(doubt.ravel().astype(np.float64), miss.ravel().astype(np.float64)),
            float((miss <= doubt).mean()),
            shared_tenth(doubt, miss),
            spread_share(spread[place], doubt),
            *decibels,
        )

    return judged(0), judged(1)


def spread_share(spread: NDArray[Any], uncertainty: NDArray[Any]) -> float:
    """Return the spread of samples over the deviation that the uncertainty stands for, in its largest tenth."""
    most = uncertainty >= np.quantile(uncertainty, 0.9)
    return float(spread[most].mean() / (uncertainty[most].mean() / UNCERTAINTY_DEVIATIONS))


def shared_tenth(doubt: Float32, error: Float32) -> float:
    """Return the share of the most doubtful tenth that is among the tenth of the largest errors; NaN without doubt."""
    if float(np.ptp(doubt)) == 0:
        return float("nan")
    count = doubt.size // 10
    most = [set(np.argpartition(-x.ravel(), count)[:count].tolist()) for x in (doubt, error)]
    return len(most[0] & most[1]) / count


def spread_of(fuser: Fuser, x_in: Float32, steps: int) -> Float32:
    """Return the deviation of the clean luma over start noises, (2, H, W) in levels; 0 of a schedule without noise."""
    noise = np.float32(Schedule.named(fuser.bundle.manifest.schedule.name).start_noise)
    if noise == 0:
        return np.zeros((2, *x_in.shape[2:]), np.float32)
    start = fuser.start(x_in)["x_t"]
    drawn = (np.random.default_rng(seed).standard_normal(x_in.shape, np.float32) for seed in range(SEEDS))
    lumas = [luma_levels(x_in - residuals_of(fuser, x_in, steps, start + noise * each)[-1]) for each in drawn]
    return np.asarray(np.std(lumas, axis=0, ddof=1), np.float32)


def grey_rows(fuser: Fuser, scenes: list[Scene]) -> Iterator[Row]:
    """Yield, for each kind of the visible, what colour images and grey ones gain, by day; and both of clean ones."""
    found: dict[str, list[tuple[float, float]]] = {}
    for scene in scenes:
        if scene.light == "night":
            continue
        luma = luma_of(scene.visible)
        for kind in ("clean", *ems.VISIBLE):
            case = ems.Case((), () if kind == "clean" else (kind,))
            infrared, color = case(scene.infrared, scene.visible, scene.seed)
            grey = luma_of(case(scene.infrared, np.stack([luma] * 3, axis=2), scene.seed)[1])
            restored = fuser(infrared, color).visible, fuser(infrared, grey).visible[:, :, 0]
            after = capped_db(restored[0], scene.visible), capped_db(restored[1], luma)
            before = (0.0, 0.0) if kind == "clean" else (psnr_db(color, scene.visible), psnr_db(grey, luma))
            found.setdefault(kind, []).append((after[0] - before[0], after[1] - before[1]))
    for kind, both in found.items():
        in_color, in_grey = (round(float(gain), 2) for gain in np.mean(both, axis=0))
        yield {"part": "grey", "kind": kind, "images": len(both), "color_db": in_color, "grey_db": in_grey}


def light_rows(fuser: Fuser, scenes: list[Scene]) -> Iterator[Row]:
    """Yield, for each light, how bright nights come out, and what noise in them costs before and after its removal."""
    nights = [scene for scene in scenes if scene.light == "night"]
    for light in LIGHTS if nights else ():
        controls, found = Controls(light=light), []
        for scene in nights:
            noise = np.random.default_rng(scene.seed).normal(0, NIGHT_NOISE, scene.visible.shape)
            noisy = np.clip(np.rint(scene.visible + noise), 0, 255).astype(np.uint8)
            gain = gains(noisy, light)
            wanted = scene.visible if gain is None else lifted(scene.visible, gain)
            fused = fuser(scene.infrared, noisy, controls)
            lumas = (float(luma_of(image).mean()) for image in (fused.visible, fused.picture))
            seen = fuser.as_seen(noisy, controls).image
            found.append((*lumas, capped_db(seen, wanted), capped_db(fused.visible, wanted)))
        means = (round(float(mean), 2) for mean in np.mean(found, axis=0))
        values = dict(zip(("visible_levels", "fused_levels", "noisy_db", "restored_db"), means, strict=True))
        yield {"part": "light", "light": light, "images": len(nights), **values}


def main(
    data: Annotated[Path, typer.Option(metavar="DIR", help="the shared data, with pairs/ in it")],
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="bundle; the shipped one unless given")] = None,
    backend: Annotated[str, typer.Option(help="what runs it")] = "onnxruntime",
    only: Annotated[str, typer.Option(metavar="A,B", help=f"of {','.join(PARTS)}")] = ",".join(PARTS),
    count: Annotated[int, typer.Option(min=1, help="pairs of each folder")] = 10,
    size: Annotated[str, typer.Option(metavar="HEIGHTxWIDTH", help="of the middle that is taken")] = "256x320",
    small: Annotated[bool, typer.Option("--small", help="a first look: two pairs of each folder, 160x224")] = False,
    out: Out = None,
    update: Update = False,
) -> None:
    """Measure, and print a line for each row."""
    with one_line_errors():
        check_target(out, update)
        if unknown := [part for part in only.split(",") if part not in PARTS]:
            raise OptionError(f"--only has {unknown[0]!r}; it must list some of {','.join(PARTS)}")
        count, size = (2, "160x224") if small else (count, size)
        opened = Bundle.open(bundle)
        with Fuser(opened, open_backend(BackendChoice.parse(backend), opened)) as fuser:
            whole = [scene for name in FOLDERS for scene in read_scenes(data / "pairs", name, count)]
            rows: list[Row] = []
            for row in measured(fuser, whole, only.split(","), parse_size(size)):
                rows.append(row)
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        settings = {"backend": backend, "size": list(parse_size(size)), "pairs": len(whole)}
        if out or update:
            save(new_result("control", opened.manifest.name, rows, (opened,), settings), out, update)


def measured(fuser: Fuser, whole: list[Scene], parts: list[str], size: Size) -> Iterator[Row]:
    """Yield the rows of parts, of the middles of scenes; balance is of whole ones, as a scene's own range is."""
    scenes = [cut(scene, size) for scene in whole]
    # A pair has six cases; each pair gives two of them, in turn, where a kind's mean needs no more.
    trials = [trial for index, scene in enumerate(scenes) for trial in _turn(list(trials_of(fuser, scene)), index)]
    by_part: dict[str, Callable[[Fuser, list[Trial]], Iterator[Row]]] = {
        "strength": strength_rows, "leak": lambda f, t: leak_rows(f, t[:4]), "steps": steps_rows, "taken": taken_rows,
        "doubt": doubt_rows, "balance": lambda f, _: balance_rows(f, whole), "grey": lambda f, _: grey_rows(f, scenes),
        "light": lambda f, _: light_rows(f, whole),
    }  # fmt: skip
    for part in parts:
        yield from by_part[part](fuser, trials)


def _turn(trials: list[Trial], index: int) -> list[Trial]:
    """Return half of a scene's cases: the even ones, then the odd ones."""
    return trials[index % 2 :: 2]


if __name__ == "__main__":
    typer.run(main)
