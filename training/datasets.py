"""Where the pairs of a dataset lie: one description per layout, as its owners publish it.

A layout is two lists of path templates. Two files whose fields agree are the halves of a pair:

    {name}          a file name without its suffix
    {order}         a file name that tells nothing: the k-th of one half belongs to the k-th of the other
    {scene}         folders, one or more
    {part}          a folder that a recipe may choose by `part`, such as train
    {kind}          any other folder
    {number}        digits and dashes within a name
    {case}{slice}   a patient, and a slice of three digits: a patient is held out as a whole
    {_}             letters that differ between the halves

Upper and lower case are the same, and pictures that no template fits are not of the dataset.
"""

import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cled_edge.errors import DataError
from training.recipe import SetRecipe

log = logging.getLogger("training")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FIELDS = {
    "name": "[^/]+",
    "order": "[^/]+",
    "scene": ".+",
    "part": "[^/]+",
    "kind": "[^/]+",
    "number": r"[\d-]*",
    "_": r"[^/\d]*",
    "case": r"\d+",
    "slice": r"\d{3}",
}
Key = tuple[tuple[str, str], ...]  # the fields of a path and their values, sorted by field


@dataclass(frozen=True)
class Pair:
    """A pair on disk. Pictures are their own clean references unless there are others.

    unit: what is held out or trained on as a whole, the stem or the patient.
    """

    infrared: Path
    visible: Path
    infrared_clean: Path
    visible_clean: Path
    unit: str


@dataclass(frozen=True)
class Layout:
    """Templates of paths below the dataset's folder.

    part: what is read unless the recipe names another, so that official test pictures are not trained on by accident.
    loose: the owner's own set has pictures without a partner; they are left out.
    """

    infrared: tuple[str, ...]
    visible: tuple[str, ...]
    infrared_clean: str | None = None
    visible_clean: str | None = None
    part: str | None = None
    loose: bool = False


FOLDER = "folder"  # two folders whose names the recipe may change
LAYOUTS: Mapping[str, Layout] = {
    # Text-IF's reader of EMS_lite; its eval part has no references.
    "ems": Layout(
        ("{kind}/{part}/Infrared/{order}",),
        ("{kind}/{part}/Visible/{order}",),
        "{kind}/{part}/Infrared_gt/{order}",
        "{kind}/{part}/Visible_gt/{order}",
        part="train",
    ),
    # xianming-gu/Havard-Medical-Image-Fusion-Datasets: CT-MRI/{CT,MRI} and so on. MRI takes the place of the infrared.
    "harvard": Layout(("{part}-MRI/MRI/{case}{slice}",), ("{part}-MRI/{part}/{case}{slice}",)),
    "llvip": Layout(("infrared/{part}/{name}",), ("visible/{part}/{name}",), part="train"),
    # M3FD_Detection and M3FD_Fusion as published, or as TarDAL's reader wants them.
    "m3fd": Layout(("Ir/{name}",), ("Vis/{name}", "vi/{name}")),
    # Its `detection` folder is a part too.
    "msrs": Layout(("{part}/ir/{name}",), ("{part}/vi/{name}",), part="train"),
    # hanna-xu/RoadScene: crop_HR_visible is larger than the infrared.
    "roadscene": Layout(("cropinfrared/{name}",), ("crop_LR_visible/{name}",)),
    # TNO_Image_Fusion_Dataset as on figshare, each camera system in its own way; or the flat choice of 25 to 42 pairs.
    "tno": Layout(
        (
            "ir/{name}",
            "{scene}/thermal/RAD{name}",
            "{scene}/thermal/{name}i",
            "{scene}/LWIR{number}",
            "{scene}/IR{_}{number}{_}",
        ),
        (
            "vi/{name}",
            "vis/{name}",
            "{scene}/dhv/DHV{name}",
            "{scene}/visual/{name}v",
            "{scene}/VIS{_}{number}{_}",
            "{scene}/EO{_}{number}{_}",
        ),
        loose=True,
    ),
}


def is_held_out(unit: str) -> bool:
    """Return whether a stem or a patient belongs to the tenth that training never sees."""
    return zlib.crc32(unit.encode()) % 10 == 0


def pairs_of_set(root: Path, entry: SetRecipe) -> list[Pair]:
    """Return the pairs of one dataset below `root`, in the order of their names.

    DataError names what is wrong first: an unknown layout, an absent folder, no pictures where the layout has them, a
    picture without its other half or its reference, two files for one place, a faulty name map.
    """
    layout = _layout(entry)
    folder = root / entry.root
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; --data must hold the folders that the recipe names")
    if isinstance(entry.names, str):
        return _pairs_of_map(folder, entry, folder / entry.names)
    files = _pictures_below(folder)
    regular = entry.names or (None, None)
    infrared = _half(folder, files, layout, layout.infrared, entry, regular[0])
    visible = _half(folder, files, layout, layout.visible, entry, regular[1])
    _refuse_lonely(folder, layout, infrared, visible)
    both = sorted(infrared.keys() & visible.keys())
    cleans = [_references(folder, files, template, both) for template in (layout.infrared_clean, layout.visible_clean)]
    return [
        Pair(
            infrared[key],
            visible[key],
            cleans[0].get(key, infrared[key]),
            cleans[1].get(key, visible[key]),
            dict(key).get("case", infrared[key].stem),
        )
        for key in both
    ]


def _layout(entry: SetRecipe) -> Layout:
    if entry.layout == FOLDER:
        infrared, visible = (PurePosixPath(half, "{name}").as_posix() for half in (entry.infrared, entry.visible))
        layout = Layout((infrared,), (visible,))
    elif entry.layout not in LAYOUTS:
        known = ", ".join([FOLDER, *LAYOUTS])
        raise DataError(f"unknown layout {entry.layout!r} of {entry.root}; choose one of {known}")
    else:
        layout = LAYOUTS[entry.layout]
        if entry.names or (entry.infrared, entry.visible) != ("infrared", "visible"):
            raise DataError(
                f"{entry.root}: names, infrared and visible belong to layout {FOLDER!r}, not to {entry.layout!r}; "
                "remove them or change the layout"
            )
    if entry.part and not any("{part}" in template for template in layout.infrared):
        raise DataError(f"{entry.root}: layout {entry.layout!r} has no parts; remove part = {entry.part!r}")
    return replace(layout, part=entry.part or layout.part)


def _pictures_below(folder: Path) -> list[str]:
    """Return the paths of all pictures below a folder, relative, with slashes, sorted."""
    paths = []
    for where, _, names in os.walk(folder, followlinks=True):
        paths += [Path(where, name) for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _half(
    folder: Path, files: Sequence[str], layout: Layout, templates: Sequence[str], entry: SetRecipe, regular: str | None
) -> dict[Key, Path]:
    """Return one half of a layout; DataError if there is nothing, or nothing of the part that is wanted."""
    if regular is None:
        expressions = [_expression(template) for template in templates]
    else:
        expressions = [_regular(templates[0], regular)]
    found = _by_key(folder, files, expressions)
    where = " or ".join(templates)
    if not found:
        raise DataError(f"{folder}: no picture at {where}, the layout {entry.layout!r}; correct it or root")
    if layout.part is None:
        return found
    of_part = {key: path for key, path in found.items() if dict(key)["part"] == layout.part.lower()}
    if not of_part:
        parts = ", ".join(sorted({dict(key)["part"] for key in found}))
        raise DataError(f"{folder}: no part {layout.part!r} at {where}, only {parts}; name one in the recipe")
    return of_part


def _by_key(folder: Path, files: Sequence[str], expressions: Sequence[re.Pattern[str]]) -> dict[Key, Path]:
    found: dict[Key, Path] = {}
    ranks: Counter[Key] = Counter()
    for file in files:
        name = file[: file.rindex(".")]
        match = next(filter(None, (expression.fullmatch(name) for expression in expressions)), None)
        if match is None:
            continue
        fields = match.groupdict() or {str(k): value for k, value in enumerate(match.groups())}
        key = tuple(sorted((field, (value or "").lower()) for field, value in fields.items() if field != "order"))
        if "order" in fields:
            ranks[key] += 1
            key = (*key, ("order", f"{ranks[key]:06d}"))
        if key in found:
            raise DataError(f"{found[key]} and {folder / file} claim the same half of a pair; keep one")
        found[key] = folder / file
    return found


def _expression(template: str) -> re.Pattern[str]:
    """Return the regular expression of a template; a field that occurs again must have its first value."""
    seen: set[str] = set()
    parts = []
    for part in re.split(r"(\{\w+\})", template):
        field = part[1:-1]
        if field not in _FIELDS or not part.startswith("{"):
            parts.append(re.escape(part))
        elif field == "_":
            parts.append(_FIELDS[field])
        else:
            parts.append(f"(?P={field})" if field in seen else f"(?P<{field}>{_FIELDS[field]})")
            seen.add(field)
    return re.compile("".join(parts), re.IGNORECASE)


def _regular(template: str, regular: str) -> re.Pattern[str]:
    """Return the recipe's expression for the names in a half's folder; its groups are what both halves share."""
    try:
        expression = re.compile(f"{re.escape(template.removesuffix('{name}'))}(?:{regular})", re.IGNORECASE)
    except re.error as error:
        raise DataError(f"names: {regular!r} is no regular expression, {error}; correct it in the recipe") from error
    if not expression.groups:
        raise DataError(f"names: {regular!r} has no group; put what both halves share in round brackets")
    return expression


def _refuse_lonely(folder: Path, layout: Layout, infrared: Mapping[Key, Path], visible: Mapping[Key, Path]) -> None:
    lonely = sorted(infrared.keys() ^ visible.keys())
    if not lonely:
        return
    if layout.loose and infrared.keys() & visible.keys():
        log.info("%s: %d pictures without a partner are left out", folder, len(lonely))
        return
    if any(field == "order" for field, _ in lonely[0]):
        where = "/".join(value for field, value in lonely[0] if field != "order")
        counts = [sum(key[:-1] == lonely[0][:-1] for key in half) for half in (infrared, visible)]
        raise DataError(
            f"{folder}: {where} has {counts[0]} infrared and {counts[1]} visible pictures, paired by their order; "
            "the counts must agree, add or remove some"
        )
    path = infrared.get(lonely[0]) or visible[lonely[0]]
    missing = "visible" if lonely[0] in infrared else "infrared"
    raise DataError(
        f"{folder}: {len(lonely)} pictures lack their other half, first {path.relative_to(folder)}, which has no "
        f"{missing} one; add or remove them"
    )


def _references(folder: Path, files: Sequence[str], template: str | None, pairs: Sequence[Key]) -> dict[Key, Path]:
    """Return the clean references of pairs: of all in a folder, or of none."""
    if template is None:
        return {}
    found = _by_key(folder, files, [_expression(template)])
    for group in sorted({key[:-1] for key in pairs}):
        counts = [sum(key[:-1] == group for key in keys) for keys in (found, pairs)]
        if counts[0] and counts[0] != counts[1]:
            where = "/".join(value for _, value in group)
            raise DataError(
                f"{folder}: {where} has {counts[0]} references at {template} for {counts[1]} pairs, paired by their "
                "order; the counts must agree, add or remove some"
            )
    return found


def _pairs_of_map(folder: Path, entry: SetRecipe, table: Path) -> list[Pair]:
    """Return the pairs that a table names, a line each: the file of the infrared, a tab, the file of the visible."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read as a name map, {error}; correct names in the recipe") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        names = line.split("\t")
        if len(names) != 2:
            raise DataError(f"{table}:{number}: {len(names)} columns; needed an infrared name, a tab, a visible name")
        infrared, visible = (
            folder / half / n.strip() for half, n in zip((entry.infrared, entry.visible), names, strict=True)
        )
        for path in (infrared, visible):
            if not path.is_file():
                raise DataError(f"{table}:{number}: {path} does not exist; correct the name or remove the line")
        pairs.append(Pair(infrared, visible, infrared, visible, infrared.stem))
    return pairs
