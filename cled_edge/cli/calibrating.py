"""`cled-edge calibrate`: find where the pixels of one camera lie in the other, and write it down."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cled_edge.cli.infrared_options import InfraredCrop, Names, numbers_of
from cled_edge.cli.marking import address_of, marked_by_hand
from cled_edge.cli.options import INPUTS, with_default
from cled_edge.cli.page_options import ServeToken, ServeTokenFile
from cled_edge.errors import CalibrationError, OptionError, SourceUnreadableError
from cled_edge.json_text import counted, json_of
from cled_edge.progress import print_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cled_edge.frame import Frame
    from cled_edge.registration.calibration import DistanceMap, Mode
    from cled_edge.serve.page_address import PageAddress

SHOWN = 3  # pairs of each distance that get an overlay
MOST_BOARDS = 40
_HELP = (
    "hold a warm board where both see it and give --board, mark points with --serve or --points, or take more frames "
    "of a scene with edges in both"
)


@dataclass(frozen=True, eq=False)
class Shot:
    """Pairs of grey images, infrared and visible, at one distance. names: what each pair is called."""

    pairs: "list[tuple[NDArray[Any], NDArray[Any]]]"
    names: list[str]
    distance_m: float | None


Sources = Annotated[
    list[str],
    typer.Option(
        metavar="SRC", help="as 'fuse' takes them; give both again for each further distance", rich_help_panel=INPUTS
    ),
]
WAY, REPORT = "How they are registered", "Report"


def calibrate(
    infrared: Sources,
    visible: Sources,
    names: Names = None,
    infrared_crop: InfraredCrop = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, **with_default("pairs to use", "8, or 40 with a board"), rich_help_panel=INPUTS
        ),
    ] = None,
    distance_m: Annotated[
        list[float] | None,
        typer.Option(
            metavar="M",
            help="distance of the scene; repeat for each pair of sources, or for each map that a board gives",
            rich_help_panel=WAY,
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(
            metavar="CxR", help="find a warm chessboard of so many inner corners, such as 9x6", rich_help_panel=WAY
        ),
    ] = None,
    square_mm: Annotated[
        float | None, typer.Option(metavar="MM", help="side of a square of the board", rich_help_panel=WAY)
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of points by hand: infrared_x,infrared_y,visible_x,visible_y,distance_m, the last one if known",
            rich_help_panel=WAY,
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="mark points by hand on a page at that address; the host is 127.0.0.1 unless it is named",
            rich_help_panel=WAY,
        ),
    ] = None,
    serve_token: ServeToken = None,
    serve_token_file: ServeTokenFile = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="the calibration to write", rich_help_panel=REPORT)] = Path(
        "calibration.yaml"
    ),
    overlays: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            **with_default("folder for images of before and after", "FILE's name with -overlays"),
            rich_help_panel=REPORT,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print what was found as JSON", rich_help_panel=REPORT)
    ] = False,
) -> None:
    """Register two cameras of two sizes and lenses; 'fuse --calibration' then takes them."""
    # Imported here so that --help and usage errors need no OpenCV.
    from cled_edge.files import check_writable, make_folder, write_whole  # noqa: PLC0415
    from cled_edge.registration.calibration import SURE, Calibration  # noqa: PLC0415

    _check(infrared, visible, distance_m or [], board, points, serve)
    address = address_of(serve, serve_token, serve_token_file) if serve else None
    check_writable(out)
    folder = overlays or out.with_name(f"{out.stem}-overlays")
    make_folder(folder)
    console = Console(stderr=True)
    of_scene = not (board or points)
    distances: list[float | None] = [*(distance_m or [])] if of_scene else []
    distances += [None] * (len(infrared) - len(distances))
    count = frames or (MOST_BOARDS if board else 8)
    crop = numbers_of(infrared_crop, "--infrared-crop", "ABOVE,BELOW", int) if infrared_crop else (0, 0)
    shots = [_read(*each, count, names, crop) for each in zip(infrared, visible, distances, strict=True)]
    sizes = {tuple(image.shape for image in pair) for shot in shots for pair in shot.pairs}
    if len(sizes) > 1:
        seen = "; ".join("infrared {}x{} with visible {}x{}".format(*one, *other) for one, other in sorted(sizes)[:3])
        raise OptionError(
            f"the pairs are of {len(sizes)} sizes (height x width): {seen}; needed one size for each camera; give "
            "pairs of one rig"
        )
    mode: Mode
    taken = sum(len(shot.pairs) for shot in shots)
    working = console.status(f"registering {counted(taken, 'pair')}, which may take a minute")
    with nullcontext() if address else working:
        if address:
            mode, maps, told = "points", *_by_page(address, shots[0], out, console)
        elif points:
            mode, maps, told = "points", *_by_points(points, shots[0])
        elif board:
            mode, maps, told = "board", *_by_board(board, square_mm, distance_m or [], shots[0])
        else:
            mode, maps, told = "scene", *_by_scene(shots)
    written = _draw(folder, shots, maps)
    ((infrared_size, visible_size),) = sizes
    report: dict[str, Any] = {
        "mode": mode,
        "infrared_size": list(infrared_size),
        "visible_size": list(visible_size),
        "maps": [{**each.model_dump(mode="json"), **more} for each, more in zip(maps, told, strict=True)],
        "overlays": [str(path) for path in written],
        "calibration": None,
    }
    doubtful = [each for each in maps if each.confidence < SURE]
    if not doubtful:
        ordered = sorted(maps, key=lambda each: each.distance_m or 0)
        whole = Calibration(mode=mode, infrared_size=infrared_size, visible_size=visible_size, maps=tuple(ordered))
        write_whole(out, whole.text())
        report["calibration"] = str(out)
    if as_json:
        typer.echo(json_of(report), nl=False)
    else:
        _print(report)
    if doubtful:
        raise CalibrationError(
            f"the cameras are not registered: confidence is {doubtful[0].confidence:.2f}, needed {SURE}; {out} is not "
            f"written; look at {folder}; {_HELP}"
        )


def _check(
    infrared: Sequence[str],
    visible: Sequence[str],
    distances: Sequence[float],
    board: str | None,
    points: Path | None,
    serve: str | None,
) -> None:
    """Refuse options that do not fit each other, before anything is read."""
    ways = [name for name, value in (("--board", board), ("--points", points), ("--serve", serve)) if value]
    if len(ways) > 1:
        raise OptionError(f"{ways[0]} and {ways[1]} are both given; they are two ways; choose one")
    if len(infrared) != len(visible):
        raise OptionError(f"there are {len(infrared)} --infrared and {len(visible)} --visible; give as many of each")
    if any(not distance > 0 for distance in distances):
        raise OptionError(f"--distance-m is {min(distances)}; it must be above 0, in metres")
    if len(set(distances)) < len(distances):
        raise OptionError("--distance-m has one distance twice; give each once")
    if ways and len(infrared) > 1:
        raise OptionError("a board and points take one pair of sources; put all images into one folder for each camera")
    if points and distances:
        raise OptionError("--distance-m goes with a scene or a board; with --points write a column distance_m")
    if len(infrared) > 1 and len(distances) != len(infrared):
        raise OptionError(
            f"{len(infrared)} pairs of sources need as many --distance-m, got {len(distances)}; give them"
        )
    if (serve or not ways) and len(distances) > len(infrared):
        raise OptionError(f"there are {len(distances)} --distance-m for one scene; give both sources again for each")


def _read(
    infrared: str,
    visible: str,
    distance_m: float | None,
    count: int,
    names: tuple[str, str] | None,
    crop: tuple[int, int],
) -> Shot:
    """Return up to `count` pairs of two sources, spread over them if they say how many they hold."""
    from cled_edge.data.naming import Names as Pattern  # noqa: PLC0415
    from cled_edge.live_pairing import TimePairer  # noqa: PLC0415
    from cled_edge.live_pairs import open_cameras  # noqa: PLC0415

    pattern = Pattern.parse(names) if names else None
    with open_cameras(infrared, visible, TimePairer(), names=pattern, crop_rows=crop) as cameras:
        every = max(1, min(cameras.announced) // count) if cameras.announced else 1
        pairs, called = [], []
        for index, pair in enumerate(cameras):
            if index % every == 0:
                pairs.append((_grey(pair.infrared), _grey(pair.visible)))
                called.append(pair.name)
            if len(pairs) == count:
                break
    if not pairs:
        raise SourceUnreadableError(f"{infrared} and {visible} gave no pair; needed one at least; check them")
    return Shot(pairs, called, distance_m)


def _grey(frame: "Frame") -> "NDArray[Any]":
    """Return an image as grey (H, W) of its own depth: the squares of a warm board may differ by a few counts."""
    import cv2  # noqa: PLC0415

    image = frame.image
    if image.ndim == 3 and image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if frame.color_order == "BGR" else cv2.COLOR_RGB2GRAY)
    image = image.reshape(image.shape[:2])
    return cv2.medianBlur(image, 3) if image.dtype != "uint8" else image  # raw counts have dead pixels


Found = tuple["list[DistanceMap]", list[dict[str, Any]]]


def _by_scene(shots: Sequence[Shot]) -> Found:
    from cled_edge.registration.calibration import distance_map  # noqa: PLC0415
    from cled_edge.registration.scene_match import match  # noqa: PLC0415

    maps, told = [], []
    for shot in shots:
        found, model, evidence = match(shot.pairs)
        size = shot.pairs[0][1].shape
        error_px = min(evidence.error_px, float(size[1]))
        maps.append(distance_map(found, model, size, error_px, evidence.confidence, shot.distance_m))
        told.append({"pairs": len(shot.pairs), "patches": evidence.patches, "lead": round(evidence.lead, 3)})
    return maps, told


def _by_board(board: str, square_mm: float | None, distances: Sequence[float], shot: Shot) -> Found:
    from cled_edge.registration.board import agreeing, find_board  # noqa: PLC0415
    from cled_edge.registration.board_rig import rig_of  # noqa: PLC0415
    from cled_edge.registration.calibration import distance_map  # noqa: PLC0415
    from cled_edge.size import parse_size  # noqa: PLC0415

    if distances and not square_mm:
        raise OptionError("--distance-m needs the board's size in metres; give --square-mm")
    if square_mm is not None and not square_mm > 0:
        raise OptionError(f"--square-mm is {square_mm}; it must be above 0")
    grid = parse_size(board, "--board")
    if min(grid) < 3:
        raise OptionError(f"--board is {board}; needed 3 inner corners or more along each side")
    seen = [tuple(find_board(image, grid) for image in pair) for pair in shot.pairs]
    both = [(agreeing(one, other), other) for one, other in seen if one and other]
    sizes = shot.pairs[0][0].shape, shot.pairs[0][1].shape
    if not both:
        counts = [sum(bool(pair[k]) for pair in seen) for k in (0, 1)]
        raise CalibrationError(
            f"a board of {board} corners is in {counts[0]} infrared and {counts[1]} visible of {len(seen)} images, "
            "in no pair of both; warm it until its squares show in the infrared, or mark points and give --points"
        )
    rig = rig_of(both, *sizes, (square_mm or 1000.0) / 1000)
    told = {
        "pairs": len(seen),
        "infrared_boards": sum(bool(one) for one, _ in seen),
        "visible_boards": sum(bool(other) for _, other in seen),
        "boards": rig.boards,
        "baseline_m": round(float((rig.shift**2).sum() ** 0.5), 4) if square_mm and rig.planar is None else None,
    }
    wanted = sorted(distances) if rig.planar is None else []
    if distances and not wanted:
        raise CalibrationError(
            f"{rig.boards} boards tell no lens, needed three or more, tilted differently; without --distance-m the map "
            "is for where they were held"
        )
    known = round(rig.depth, 3) if square_mm and rig.planar is None else None
    places: list[tuple[float, float | None]] = [(d, d) for d in wanted] or [(rig.depth, known)]
    model = "rig" if rig.planar is None else "homography"
    maps = [
        distance_map(rig.at(at), model, sizes[1], rig.error_px, rig.confidence, said)  # type: ignore[arg-type]
        for at, said in places
    ]
    return maps, [told] * len(maps)


def _by_points(path: Path, shot: Shot) -> Found:
    from cled_edge.registration.calibration import distance_map  # noqa: PLC0415
    from cled_edge.registration.points import map_of, read_points  # noqa: PLC0415

    sizes = shot.pairs[0][0].shape, shot.pairs[0][1].shape
    maps, told = [], []
    for marked in read_points(path):
        found = map_of(marked, *sizes)
        maps.append(
            distance_map(found.found, found.model, sizes[1], found.error_px, found.confidence, marked.distance_m)
        )
        number, off_px = found.worst
        told.append({"points": len(marked.infrared), "worst_point": number, "worst_px": round(off_px, 2)})
    return maps, told


def _by_page(address: "PageAddress", shot: Shot, out: Path, console: Console) -> Found:
    found, told = marked_by_hand(address, shot.pairs, shot.names, out, shot.distance_m, console)
    return [found], [told]


def _draw(folder: Path, shots: Sequence[Shot], maps: "Sequence[DistanceMap]") -> list[Path]:
    """Write before and after of a few pairs for each map, and return the files."""
    from cled_edge.image import write_png  # noqa: PLC0415
    from cled_edge.registration.overlay import overlay  # noqa: PLC0415

    written = []
    for index, each in enumerate(maps):
        shot = shots[index] if len(shots) == len(maps) else shots[0]
        at = "" if each.distance_m is None else f"-{each.distance_m:g}m"
        says = f"error {each.error_px:.1f} px, confidence {each.confidence:.2f}"
        for pair, name in list(zip(shot.pairs, shot.names, strict=True))[:SHOWN]:
            path = folder / f"{name}{at}.png"
            write_png(path, overlay(*pair, each.pixel_map(), says))
            written.append(path)
    return written


def _print(report: dict[str, Any]) -> None:
    console = Console()
    for each in report["maps"]:
        at = "" if each["distance_m"] is None else f" at {each['distance_m']:g} m"
        counts = ", ".join(
            f"{each[key]} {key.replace('_', ' ')}"
            for key in ("pairs", "infrared_boards", "visible_boards", "patches", "points")
            if key in each
        )
        line = (
            f"{report['mode']}{at}: {each['model']}, error {each['error_px']:.2f} visible pixels "
            f"({each['error_infrared_px']:.2f} infrared), confidence {each['confidence']:.2f}, of {counts}"
        )
        if "worst_px" in each:
            line += f"; point {each['worst_point']} is {each['worst_px']:.1f} px off the others"
        print_line(console, line)
    overlays = report["overlays"]
    print_line(console, f"before and after: {', '.join(overlays[:2])}{' and more' * (len(overlays) > 2)}")
    if report["calibration"]:
        said = f"wrote {report['calibration']}; fuse both cameras with --calibration {report['calibration']}"
        print_line(console, said)
