"""Data sets on disk: layouts as their owners publish them, tables of names, the split, and what is refused."""

import zlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from cled_edge.data.datasets import DataSet, find_pairs, pairs_of_set
from cled_edge.data.layouts import LAYOUTS, Layout
from cled_edge.data.split import NAMED_PATIENTS, is_held_out
from cled_edge.errors import DataError

# Layout, further keys, files each a pair (infrared, visible), files that are in no pair.
PUBLISHED = [
    ("msrs", {}, [("train/ir/1D.png", "train/vi/1D.png")], ["test/ir/2N.png", "test/vi/2N.png", "detection/ir/3.png"]),
    ("msrs", {"part": "test"}, [("test/ir/2N.png", "test/vi/2N.png")], ["train/ir/1D.png", "train/vi/1D.png"]),
    ("m3fd", {}, [("Ir/00001.png", "Vis/00001.png")], ["Annotation/00001.png"]),
    ("m3fd", {}, [("ir/00001.png", "vi/00001.png")], ["labels/00001.png"]),
    ("llvip", {}, [("infrared/train/010001.jpg", "visible/train/010001.jpg")], ["visible/test/190001.jpg"]),
    ("roadscene", {}, [("cropinfrared/FLIR_1.jpg", "crop_LR_visible/FLIR_1.jpg")], ["crop_HR_visible/FLIR_1.jpg"]),
    (
        "harvard",
        {},
        [
            ("CT-MRI/MRI/16003.png", "CT-MRI/CT/16003.png"),
            ("SPECT-MRI/MRI/16003.png", "SPECT-MRI/SPECT/16003.png"),
        ],
        [],
    ),
    ("harvard", {"part": "pet"}, [("pet-mri/mri/2006.png", "pet-mri/pet/2006.png")], ["ct-mri/ct/1.png"]),
    (
        "tno",
        {},
        [
            ("Athena_images/men/IR_meting003_g.bmp", "Athena_images/men/VIS_meting003_r.bmp"),
            ("Athena_images/bunker/IR_Bunker.bmp", "Athena_images/bunker/EO_Bunker.bmp"),
            ("DHV_images/bench/IR_37rad.bmp", "DHV_images/bench/VIS_37dhvR.bmp"),
            ("DHV_images/Fire_sequence/part_1/thermal/RAD7.bmp", "DHV_images/Fire_sequence/part_1/dhv/DHV7.bmp"),
            ("FEL_images/Camp/thermal/1803i.bmp", "FEL_images/Camp/visual/1803v.bmp"),
            ("Triclobs_images/k/IR.bmp", "Triclobs_images/k/Vis.bmp"),
            ("tank/LWIR.tif", "tank/Vis.tif"),
        ],
        ["Triclobs_images/k/NIR.bmp", "FEL_images/Camp/thermal/1805i.bmp"],
    ),
    ("folder", {"infrared": "mri", "visible": "ct"}, [("mri/a.png", "ct/a.jpg")], ["pet/a.png"]),
    ("folder", {"names": (r"ir_(\d+)", r"(\d+)_rgb")}, [("infrared/ir_1.png", "visible/1_rgb.png")], []),
    ("folder", {"infrared": ".", "visible": ".", "names": ("(.+)_ir", "(.+)_vi")}, [("a_ir.png", "a_vi.png")], []),
]


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def entry(layout: str, **more) -> DataSet:
    return DataSet(layout=layout, root="set", **more)


@pytest.mark.parametrize(("layout", "more", "pairs", "others"), PUBLISHED)
def test_layouts_are_read_as_published(tmp_path: Path, layout: str, more, pairs, others) -> None:
    root = tmp_path / "set"
    touch(root, *others, *(file for pair in pairs for file in pair))
    found = pairs_of_set(tmp_path, entry(layout, **more))
    assert sorted((p.infrared, p.visible) for p in found) == sorted((root / a, root / b) for a, b in pairs)
    assert all((p.infrared_clean, p.visible_clean) == (p.infrared, p.visible) for p in found)


def test_every_layout_is_tried() -> None:
    assert {row[0] for row in PUBLISHED} | {"ems"} == {*LAYOUTS, "folder"}


def test_ems_pairs_by_order_and_has_references_in_training_only(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part, suffixes in (("train", ("", "_gt")), ("eval", ("",))):
        for suffix in suffixes:
            touch(root, *(f"Low_light/{part}/Infrared{suffix}/{k}i.png" for k in (2, 1)))
            touch(root, *(f"Low_light/{part}/Visible{suffix}/{k}v.png" for k in (7, 9)))
    train = pairs_of_set(tmp_path, entry("ems"))
    inside = root / "Low_light" / "train"
    assert [(p.infrared, p.visible) for p in train] == [
        (inside / "Infrared" / "1i.png", inside / "Visible" / "7v.png"),
        (inside / "Infrared" / "2i.png", inside / "Visible" / "9v.png"),
    ]
    assert train[1].infrared_clean == inside / "Infrared_gt" / "2i.png"
    assert train[1].visible_clean == inside / "Visible_gt" / "9v.png"
    assert all(p.visible_clean == p.visible for p in pairs_of_set(tmp_path, entry("ems", part="eval")))
    (inside / "Visible_gt" / "7v.png").unlink()
    with pytest.raises(DataError, match=r"low_light/train has 1 references at .*Visible_gt.* for 2 pairs"):
        pairs_of_set(tmp_path, entry("ems"))
    (inside / "Visible" / "7v.png").unlink()
    with pytest.raises(DataError, match=r"low_light/train has 2 infrared and 1 visible images, paired by their order"):
        pairs_of_set(tmp_path, entry("ems"))


def test_patients_are_held_out_as_a_whole(tmp_path: Path) -> None:
    touch(
        tmp_path / "set", *(f"CT-MRI/{kind}/{c}{s:03d}.png" for kind in ("CT", "MRI") for c in (3, 41) for s in (7, 8))
    )
    found = pairs_of_set(tmp_path, entry("harvard"))
    assert sorted((p.unit, p.infrared.stem) for p in found) == [
        ("3", "3007"),
        ("3", "3008"),
        ("41", "41007"),
        ("41", "41008"),
    ]


def test_a_table_maps_names(tmp_path: Path) -> None:
    touch(tmp_path / "set", "infrared/a.png", "visible/b c.png")
    table = tmp_path / "set" / "names.tsv"
    table.write_text("# infrared\tvisible\n\na.png\tb c.png\n")
    (pair,) = pairs_of_set(tmp_path, entry("folder", names="names.tsv"))
    assert (pair.infrared.name, pair.visible.name, pair.unit) == ("a.png", "b c.png", "a")
    table.write_text("a.png\tb c.png\na.png b c.png\n")
    with pytest.raises(DataError, match=r"names\.tsv:2: 1 columns; needed an infrared name, a tab, a visible name"):
        pairs_of_set(tmp_path, entry("folder", names="names.tsv"))
    table.write_text("a.png\td.png\n")
    with pytest.raises(DataError, match=r"names\.tsv:1: .*d\.png does not exist"):
        pairs_of_set(tmp_path, entry("folder", names="names.tsv"))
    with pytest.raises(DataError, match="cannot be read as a table of names"):
        pairs_of_set(tmp_path, entry("folder", names="nothing.tsv"))


def test_what_is_not_as_described_is_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    with pytest.raises(DataError, match="set is not a folder"):
        pairs_of_set(tmp_path, entry("msrs"))
    touch(root, "train/ir/1.png", "train/ir/2.png", "train/vi/2.png")

    def refused(words: str, layout: str = "msrs", **more) -> None:
        with pytest.raises(DataError, match=words) as caught:
            pairs_of_set(tmp_path, entry(layout, **more))
        assert "\n" not in str(caught.value)

    refused(r"1 images lack their partner, first train/ir/1\.png, which has no visible one")
    refused("unknown layout 'kaist' of set; choose one of folder, ems, harvard", "kaist")
    refused(r"no part 'val' at \{part\}/ir/\{name\}, only train", part="val")
    refused("layout 'm3fd' has no parts", "m3fd", part="train")
    refused(r"no image at Ir/\{name\}", "m3fd")
    refused(r"no image at infrared/\{name\}", "folder")
    refused("belong to layout 'folder', not to 'msrs'", names="names.tsv")
    folders = {"infrared": "train/ir", "visible": "train/vi"}
    refused(r"names: '\(' is no regular expression", "folder", names=("(", "(.+)"), **folders)
    refused("names: '1' has no group", "folder", names=("1", "(.+)"), **folders)
    touch(root, "train/vi/2.jpg")
    refused(r"2\.jpg and .*2\.png claim the same place")


def test_the_split_is_a_tenth_by_the_crc_of_its_unit() -> None:
    stems = [f"{k:05d}D" for k in range(2000)]
    held = [stem for stem in stems if is_held_out(stem)]
    assert held == [stem for stem in stems if zlib.crc32(stem.encode()) % 10 == 0]
    assert 0.08 < len(held) / len(stems) < 0.12
    assert NAMED_PATIENTS == {"pet-mri": ("30",)}
    assert not is_held_out("30")
    assert is_held_out("30", NAMED_PATIENTS["pet-mri"])


def test_pairs_are_trained_on_chosen_by_or_reported_on_and_never_two_of_them(tmp_path: Path) -> None:
    touch(tmp_path / "set", *(f"{modality}/{k}.png" for modality in ("infrared", "visible") for k in range(40)))
    parts = ("train", "choose", "report")
    train, choose, held = (find_pairs(tmp_path, [entry("folder")], part) for part in parts)
    assert sorted(pair.unit for pair in (*train, *choose, *held)) == sorted(map(str, range(40)))
    assert {pair.unit for pair in choose} == {str(k) for k in range(40) if zlib.crc32(str(k).encode()) % 10 == 1}
    assert choose
    assert [pair.unit for pair in held] == [
        pair.unit for pair in pairs_of_set(tmp_path, entry("folder")) if is_held_out(pair.unit)
    ]
    named = entry("folder", held_out=(train[0].unit, train[3].unit))
    assert find_pairs(tmp_path, [named], "train") == [*train[1:3], *train[4:]]
    assert {pair.unit for pair in find_pairs(tmp_path, [named], "report")} == {
        *(pair.unit for pair in held),
        *named.held_out,
    }
    with pytest.raises(DataError, match=r"set: held_out has 'nobody', which no pair is of; correct it"):
        find_pairs(tmp_path, [entry("folder", held_out=("nobody",))], "train")
    touch(tmp_path / "few", "infrared/1.png", "visible/1.png")
    with pytest.raises(DataError, match="no pairs held out in few; add images"):
        find_pairs(tmp_path, [DataSet(root="few")], "report")


def test_a_data_set_refuses_keys_that_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        DataSet.model_validate({"root": "set", "infrard": "ir"})


def test_a_new_layout_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "kaist", Layout(("{part}/{scene}/lwir/{name}",), ("{part}/{scene}/visible/{name}",)))
    root = tmp_path / "set"
    touch(root, "day/set00/V000/lwir/I1.jpg", "day/set00/V000/visible/I1.jpg", "night/set03/V000/lwir/I1.jpg")
    (pair,) = pairs_of_set(tmp_path, entry("kaist", part="day"))
    inside = root / "day/set00/V000"
    assert (pair.infrared, pair.visible) == (inside / "lwir/I1.jpg", inside / "visible/I1.jpg")
    with pytest.raises(DataError, match=r"choose one of folder, ems, .*, kaist"):
        pairs_of_set(tmp_path, entry("nothing"))
