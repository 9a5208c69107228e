"""The pairs of a data set on disk: found by its layout or by a table of names, and split into training and held out.

Only names are read here. `training.decoded` reads the images.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from cled_edge.data.layouts import FOLDER, LAYOUTS, Layout, expression_of
from cled_edge.data.split import Part, part_of
from cled_edge.decoder import IMAGE_SUFFIXES
from cled_edge.errors import DataError

log = logging.getLogger("cled_edge.data")
Key = tuple[tuple[str, str], ...]  # the fields of a path and their values, sorted by field


class DataSet(BaseModel):
    """A data set as its owner publishes it, in a folder below the root of all data.

    layout: a name of `LAYOUTS`; `folder` is two folders, `infrared` and `visible` unless named here.
    part: train, test and the like, where the layout has them; by default train, or all if it has no train.
    names: for `folder` whose file names differ by modality: two regular expressions with the same groups, infrared
        first; or the path of a table below the data set's folder, `infrared file<TAB>visible file` a line.
    held_out: stems, or patients, that are reported on besides the tenth that always is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str = FOLDER
    root: str
    part: str | None = None
    infrared: str = "infrared"
    visible: str = "visible"
    names: str | tuple[str, str] | None = None
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A pair on disk. An image is its own clean reference unless there is another.

    unit: what is held out or trained on as a whole, the stem or the patient.
    """

    infrared: Path
    visible: Path
    infrared_clean: Path
    visible_clean: Path
    unit: str


_PURPOSES: dict[Part, str] = {"train": "to train on", "choose": "to choose by", "report": "held out"}


def find_pairs(root: Path, sets: Sequence[DataSet], part: Part) -> list[Pair]:
    """Return the pairs of data sets below `root` that are of one part: to train on, to choose by or to report on.

    DataError names the first thing that is not as a data set says, or says that no pair is left.
    """
    pairs = []
    for entry in sets:
        found = pairs_of_set(root, entry)
        absent = set(entry.held_out) - {pair.unit for pair in found}
        if absent:
            raise DataError(f"{root / entry.root}: held_out has {sorted(absent)[0]!r}, which no pair is of; correct it")
        pairs += [pair for pair in found if part_of(pair.unit, entry.held_out) == part]
    if not pairs:
        names = ", ".join(entry.root for entry in sets)
        raise DataError(f"{root}: no pairs {_PURPOSES[part]} in {names}; add images")
    return pairs


def pairs_of_set(root: Path, entry: DataSet) -> list[Pair]:
    """Return all pairs of one data set below `root`, in the order of their names.

    DataError names what is wrong first: an unknown layout, an absent folder, no images where the layout has them, an
    image without its partner or its reference, two files for one place, a faulty table of names.
    """
    layout = _layout(entry)
    folder = root / entry.root
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; the folder of all data must hold it; correct the data set's root")
    if isinstance(entry.names, str):
        return _pairs_of_table(folder, entry, folder / entry.names)
    files = _images_below(folder)
    regular = entry.names or (None, None)
    infrared = _of_modality(folder, files, layout, layout.infrared, entry, regular[0])
    visible = _of_modality(folder, files, layout, layout.visible, entry, regular[1])
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


def _layout(entry: DataSet) -> Layout:
    if entry.layout == FOLDER:
        infrared, visible = (PurePosixPath(folder, "{name}").as_posix() for folder in (entry.infrared, entry.visible))
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


def _images_below(folder: Path) -> list[str]:
    """Return the paths of all images below a folder, relative, with slashes, sorted."""
    paths = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        pictures = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        paths += [Path(where, name) for name in pictures if not name.startswith(".")]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _of_modality(
    folder: Path, files: Sequence[str], layout: Layout, templates: Sequence[str], entry: DataSet, regular: str | None
) -> dict[Key, Path]:
    """Return the images of one modality; DataError if there are none, or none of the part that is wanted."""
    if regular is None:
        expressions = [expression_of(template) for template in templates]
    else:
        expressions = [_expression_in(templates[0], regular)]
    found = _by_key(folder, files, expressions)
    where = " or ".join(templates)
    if not found:
        raise DataError(f"{folder}: no image at {where}, as layout {entry.layout!r} needs; correct layout or root")
    if layout.part is None:
        return found
    of_part = {key: path for key, path in found.items() if dict(key)["part"] == layout.part.lower()}
    if not of_part:
        parts = ", ".join(sorted({dict(key)["part"] for key in found}))
        raise DataError(f"{folder}: no part {layout.part!r} at {where}, only {parts}; name one as part")
    return of_part


def _by_key(folder: Path, files: Sequence[str], expressions: Sequence[re.Pattern[str]]) -> dict[Key, Path]:
    """Return the files that an expression fits, by the fields of their paths; DataError if two have the same."""
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
            raise DataError(f"{found[key]} and {folder / file} claim the same place in a pair; keep one")
        found[key] = folder / file
    return found


def _expression_in(template: str, regular: str) -> re.Pattern[str]:
    """Return a data set's own expression for the names of a modality; its groups are what a pair shares."""
    try:
        expression = re.compile(f"{re.escape(template.removesuffix('{name}'))}(?:{regular})", re.IGNORECASE)
    except re.error as error:
        raise DataError(f"names: {regular!r} is no regular expression, {error}; correct it") from error
    if not expression.groups:
        raise DataError(f"names: {regular!r} has no group; put what a pair shares in round brackets")
    return expression


def _refuse_lonely(folder: Path, layout: Layout, infrared: Mapping[Key, Path], visible: Mapping[Key, Path]) -> None:
    """Raise a DataError for images without a partner, unless the layout is loose and some have one."""
    lonely = sorted(infrared.keys() ^ visible.keys())
    if not lonely:
        return
    if layout.loose and infrared.keys() & visible.keys():
        log.info("%s: %d images without a partner are left out", folder, len(lonely))
        return
    if any(field == "order" for field, _ in lonely[0]):
        where = "/".join(value for field, value in lonely[0] if field != "order")
        counts = [sum(key[:-1] == lonely[0][:-1] for key in found) for found in (infrared, visible)]
        raise DataError(
            f"{folder}: {where} has {counts[0]} infrared and {counts[1]} visible images, paired by their order; "
            "the counts must agree, add or remove some"
        )
    path = infrared.get(lonely[0]) or visible[lonely[0]]
    missing = "visible" if lonely[0] in infrared else "infrared"
    raise DataError(
        f"{folder}: {len(lonely)} images lack their partner, first {path.relative_to(folder)}, which has no "
        f"{missing} one; add or remove them"
    )


def _references(folder: Path, files: Sequence[str], template: str | None, pairs: Sequence[Key]) -> dict[Key, Path]:
    """Return the clean references of pairs: of all in a folder, or of none."""
    if template is None:
        return {}
    found = _by_key(folder, files, [expression_of(template)])
    for group in sorted({key[:-1] for key in pairs}):
        counts = [sum(key[:-1] == group for key in keys) for keys in (found, pairs)]
        if counts[0] and counts[0] != counts[1]:
            where = "/".join(value for _, value in group)
            raise DataError(
                f"{folder}: {where} has {counts[0]} references at {template} for {counts[1]} pairs, paired by their "
                "order; the counts must agree, add or remove some"
            )
    return found


def _pairs_of_table(folder: Path, entry: DataSet, table: Path) -> list[Pair]:
    """Return the pairs that a table names, a line each: the file of the infrared, a tab, the file of the visible."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read as a table of names, {error}; correct names") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        names = line.split("\t")
        if len(names) != 2:
            raise DataError(f"{table}:{number}: {len(names)} columns; needed an infrared name, a tab, a visible name")
        infrared, visible = (
            folder / below / name.strip() for below, name in zip((entry.infrared, entry.visible), names, strict=True)
        )
        for path in (infrared, visible):
            if not path.is_file():
                raise DataError(f"{table}:{number}: {path} does not exist; correct the name or remove the line")
        pairs.append(Pair(infrared, visible, infrared, visible, infrared.stem))
    return pairs
