"""Names that belong together: templates, regular expressions, words of the modalities, forms of Unicode."""

import unicodedata
from pathlib import Path

import pytest

from cled_edge.data.naming import Names, paired_but_for_modality, without_modality
from cled_edge.errors import NoPairsError, OptionError, UnmatchedStemsError
from cled_edge.metrics.folders import match_stems
from cled_edge.pairing import pair_by_stem


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


@pytest.mark.parametrize(
    ("infrared", "visible"),
    [
        (("FLIR_00_IR.png", "FLIR_01_IR.png"), ("FLIR_00_RGB.png", "FLIR_01_RGB.png")),
        (("I00_lwir.png", "I01_lwir.png"), ("I00_visible.png", "I01_visible.png")),
        (("ir_1.png", "ir_2.png"), ("vis_1.png", "vis_2.png")),
        (("IR001.png", "IR002.png"), ("VIS001.png", "VIS002.png")),
        (("a_thermal_1.png",), ("a_color_1.jpg",)),
        (("DJI_0001_T.JPG", "DJI_0002_T.JPG"), ("DJI_0001_V.JPG", "DJI_0002_V.JPG")),
        (("1_ir.png", "2_ir.png"), ("1.png", "2.png")),
    ],
)
def test_names_that_differ_by_their_modality_pair(infrared: tuple[str, ...], visible: tuple[str, ...]) -> None:
    # Given in another order: each belongs to its own partner.
    found = pair_by_stem(paths(*reversed(infrared)), paths(*visible))
    assert [(str(one), str(other)) for _, one, other in found] == list(zip(infrared, visible, strict=True))


@pytest.mark.parametrize(
    ("infrared", "visible"),
    [
        (("1_ir.png", "2_ir.png"), ("1_vis.png", "3_vis.png")),
        (("1_ir.png", "1_thermal.png"), ("1_vis.png", "1_rgb.png")),  # ambiguous
        (("1_left.png",), ("1_right.png",)),
    ],
)
def test_other_names_are_not_guessed(infrared: tuple[str, ...], visible: tuple[str, ...]) -> None:
    with pytest.raises(UnmatchedStemsError, match="or give templates of names"):
        pair_by_stem(paths(*infrared), paths(*visible))


def test_equal_stems_pair_whatever_words_they_have() -> None:
    found = pair_by_stem(paths("ir_1.png", "rgb_1.png"), paths("ir_1.png", "rgb_1.png"))
    assert [stem for stem, _, _ in found] == ["ir_1", "rgb_1"]


@pytest.mark.parametrize("texts", [("left_{name}", "right_{name}"), ("LEFT_(.*)", "RIGHT_(.*)")])
def test_templates_and_expressions_pair(texts: tuple[str, str]) -> None:
    names = Names.parse(texts)
    found = pair_by_stem(paths("left_2.png", "left_1.png"), paths("right_1.png", "right_2.png"), names=names)
    assert [(one.stem, other.stem) for _, one, other in found] == [("left_1", "right_1"), ("left_2", "right_2")]


def test_a_template_chooses_among_the_pictures_of_one_folder() -> None:
    folder = paths("1_a.png", "1_b.png", "2_a.png", "2_b.png", "map.png")
    found = pair_by_stem(folder, folder, names=Names.parse(("{name}_a", "{name}_b")))
    assert [(str(one), str(other)) for _, one, other in found] == [("1_a.png", "1_b.png"), ("2_a.png", "2_b.png")]
    with pytest.raises(NoPairsError, match=r"no visible picture has a name as .*, seen 1_a\.png; correct names"):
        pair_by_stem(folder, folder, names=Names.parse(("{name}_a", "{name}_c")))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("{name}",), "needed two, for infrared and for visible"),
        (("a", "{name}"), "marks nothing; needed what a pair shares"),
        (("(", "(a)"), "is no regular expression"),
        (("{name}", "{number}"), "share other parts"),
    ],
)
def test_what_makes_no_names_is_refused(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Names.parse(texts)


def test_composed_and_decomposed_names_are_the_same() -> None:
    one, other = (f"{unicodedata.normalize(form, 'café')}.png" for form in ("NFC", "NFD"))
    assert one != other
    assert len(pair_by_stem(paths(one), paths(other))) == 1
    with pytest.raises(UnmatchedStemsError, match="occurs twice"):
        pair_by_stem(paths(one, other), paths(one))


@pytest.mark.parametrize("names", [None, ("{name}_ir", "{name}_vis")])
def test_scores_find_the_fused_image_of_such_a_pair(names: tuple[str, str] | None) -> None:
    found = {
        "infrared": paths("1_ir.png", "2_ir.png"),
        "visible": paths("1_vis.png", "2_vis.png"),
        "fused": paths("2_vis.png", "1_vis.png"),
        "restored_infrared": paths("1_vis.png", "2_vis.png"),
        "reference_infrared": paths("1_ir.png", "2_ir.png"),
    }
    matched = match_stems(found, names and Names.parse(names))
    assert [stem for stem, _ in matched] == ["1_vis", "2_vis"]
    assert [{str(path)[0] for path in files.values()} for _, files in matched] == [{"1"}, {"2"}]


def test_only_one_word_is_taken_away() -> None:
    assert without_modality(Path("ir_ir_1.png"), "infrared") == "ir_ir_1"
    assert without_modality(Path("circle_1.png"), "infrared") == "circle_1"
    assert paired_but_for_modality({"infrared": paths("a_ir.png"), "visible": paths("b_vis.png")}) is None
