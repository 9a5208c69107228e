"""Where data sets keep their images: one description per layout, as its owners publish it.

A layout has two lists of path templates. Two files whose fields agree are a pair:

    {name}          a file name without its suffix
    {order}         a file name that tells nothing: the k-th infrared image belongs to the k-th visible one
    {scene}         folders, one or more
    {part}          a folder that a recipe may choose by `part`, such as train
    {kind}          any other folder
    {number}        digits and dashes within a name
    {case}{slice}   a patient, and a slice of three digits: a patient is held out as a whole
    {_}             letters that differ between the modalities

Upper and lower case are the same. Images that no template fits are not of the data set.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Layout:
    """Templates of paths below the data set's folder.

    part: what is read unless the recipe names another, so that official test images are not trained on by accident.
    loose: the owner's own set has images without a partner. They are left out.
    """

    infrared: tuple[str, ...]
    visible: tuple[str, ...]
    infrared_clean: str | None = None
    visible_clean: str | None = None
    part: str | None = None
    loose: bool = False


FOLDER = "folder"  # two folders, which the recipe may name
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


def expression_of(template: str) -> re.Pattern[str]:
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
