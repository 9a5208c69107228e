"""Detection: what each layout says, boxes there and back, precisions known beforehand, refusals by their words."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import coco, detection, detector
from benchmarks.coco import Coco, Labels, read_labels
from benchmarks.detector import Detections, Detector, Letterbox
from benchmarks.result import Result
from cled_edge.errors import BackendError, CledEdgeError, DataError, NoPairsError, OptionError, SourceMissingError
from cled_edge.image import write_png
from tests.fakes.frames import pair_of

onnx = pytest.importorskip("onnx", reason="needs onnx: make test installs it")
pytest.importorskip("pycocotools", reason="needs pycocotools: make test installs it")

SIZE = (64, 96)
CELL = 16  # side of every object; each fills a cell of the detector's finer grid
PERSON, CAR = 0, 2
NAMES = {PERSON: "person", CAR: "car"}
# What `blob_detector` finds: full green is a person (class 0), blue without green a car (class 2).
CHANNELS = {0: (0.0, 1.0, 0.0), 1: (0.0, 0.0, 0.0), 2: (0.0, -1.0, 1.0)}
Save = Callable[..., Path]


def blob_detector(size: tuple[int, int] = SIZE, dtype: int = 1) -> Any:
    """Return a model that finds bright cells of a grid of 16 pixels, and of 32; each box is its cell.

    A score is 10 (mean - 0.9) of the cell in its class's weights of RGB, at least 0: 1 where it is full.
    """
    helper, number = onnx.helper, onnx.numpy_helper.from_array
    nodes, constants = [], [number(np.array(list(CHANNELS.values()), np.float32)[:, :, None, None], "weights")]

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(name: str, values: Any, kind: type = np.float32) -> str:
        constants.append(number(np.asarray(values, kind), name))
        return name

    x = node("Cast", ["x"], "x32", to=1)
    x = node("Conv", [x, "weights"], "by_class")
    grids, boxes = [], []
    for side in (CELL, 2 * CELL):
        mean = node("AveragePool", [x], f"mean_{side}", kernel_shape=[side, side], strides=[side, side])
        over = node("Sub", [mean, constant(f"floor_{side}", 0.9)], f"over_{side}")
        times = node("Relu", [node("Mul", [over, constant(f"ten_{side}", 10)], f"times_{side}")], f"relu_{side}")
        grids.append(node("Reshape", [times, constant(f"flat_{side}", (1, 3, -1), np.int64)], f"grid_{side}"))
        ys, xs = np.mgrid[: size[0] // side, : size[1] // side].reshape(2, -1) * side + side / 2
        boxes.append(np.stack([xs, ys, np.full(xs.shape, side), np.full(xs.shape, side)]))
    scores = node("Concat", grids, "scores", axis=2)  # (1, 3, N)
    centred = np.concatenate(boxes, axis=1)  # (4, N)
    count = centred.shape[1]
    # A row for each class of each cell.
    flat = node("Reshape", [scores, constant("column", (1, -1, 1), np.int64)], "flat")
    corners = np.concatenate([centred[:2] - centred[2:] / 2, centred[:2] + centred[2:] / 2]).T
    classes = constant("classes", np.repeat([0, 1, 2], count).reshape(1, -1, 1))
    everywhere = constant("corners", np.tile(corners, (3, 1))[None])
    node("Concat", [everywhere, flat, classes], "output", axis=2)
    shape = [1, 3, *size]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("output", 1, [1, 3 * count, 6])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def constant_detector(outputs: dict[str, Any], shape: tuple[Any, ...] = (1, 3, 64, 96), dtype: int = 1) -> Any:
    """Return a model that says the same of every picture."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.asarray(values, np.float32)))
        for name, values in outputs.items()
    ]
    infos = [helper.make_tensor_value_info(name, 1, np.shape(values)) for name, values in outputs.items()]
    graph = helper.make_graph(nodes, "fixed", [helper.make_tensor_value_info("x", dtype, shape)], infos)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(model: Any, name: str = "blobs.onnx") -> Path:
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


def painted(colors: dict[tuple[int, int], tuple[int, int, int]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a black picture with cells, (row, column), of the given RGB."""
    picture = np.zeros((*size, 3), np.uint8)
    for (row, column), color in colors.items():
        picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = color
    return picture


GREEN, BLUE = (0, 255, 0), (0, 0, 255)
STREET = painted({(1, 2): GREEN, (3, 5): BLUE})


def found_in(model: Detector, picture: np.ndarray = STREET) -> dict[int, list[list[float]]]:
    found = model(picture, NAMES)
    assert found.scores == pytest.approx(1.0, abs=1e-3)
    return {number: found.boxes[found.classes == number].round(6).tolist() for number in sorted(set(found.classes))}


def test_boxes_of_the_wanted_classes_are_found(save: Save) -> None:
    model = Detector(save(blob_detector()))
    assert model.size == SIZE
    assert found_in(model) == {PERSON: [[32, 16, 48, 32]], CAR: [[80, 48, 96, 64]]}
    assert set(model(STREET, [CAR]).classes) == {CAR}


def test_the_input_may_have_half_precision(save: Save) -> None:
    model = Detector(save(blob_detector(dtype=onnx.TensorProto.FLOAT16)))
    assert found_in(model) == {PERSON: [[32, 16, 48, 32]], CAR: [[80, 48, 96, 64]]}


def test_boxes_come_back_to_a_picture_of_another_size(save: Save) -> None:
    # Twice as large and not as wide: 128x128 becomes 64x64 with 16 columns of grey on each side.
    picture = np.kron(painted({(1, 2): GREEN}, (64, 64)), np.ones((2, 2, 1), np.uint8))
    assert found_in(Detector(save(blob_detector())), picture) == {PERSON: [[64, 32, 96, 64]]}


@pytest.mark.parametrize("picture", [(480, 640), (640, 480), (33, 517), (64, 96), (7, 5)])
def test_a_letterbox_there_and_back(picture: tuple[int, int], rng: np.random.Generator) -> None:
    box = Letterbox.fit(picture, SIZE)
    (top, left), (height, width) = box.corner, box.inner
    assert height == SIZE[0] or width == SIZE[1]
    assert height <= SIZE[0]
    assert width <= SIZE[1]
    corners = np.sort(rng.random((20, 2, 2)), axis=1).reshape(20, 4)
    inside = corners * (width, height, width, height) + (left, top, left, top)
    sides = np.array([picture[1], picture[0]] * 2)
    assert box.undo(inside) == pytest.approx(corners * sides)
    assert box.undo(np.array([[-50.0, -50.0, 500.0, 500.0]])).tolist() == [[0, 0, picture[1], picture[0]]]


def test_a_letterbox_is_grey_around_the_picture() -> None:
    boxed = Letterbox.fit((32, 32), SIZE).apply(np.full((32, 32, 3), 7, np.uint8))
    assert boxed.shape == (*SIZE, 3)
    assert (boxed[:, 16:80] == 7).all()
    assert (boxed[:, :16] == 114).all()
    assert (boxed[:, 80:] == 114).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 1, 64, 96), 1, "takes tensor(float) [1, 1, 64, 96]; needed float (1, 3, H, W); export it so"),
        ((1, 3, 64), 1, "needed float (1, 3, H, W)"),
        ((1, 3, 64, 96), 2, "takes tensor(uint8)"),
        ((1, 3, "h", "w"), 1, "takes images of any size; say the one it was trained for, as --size 640x640"),
    ],
)
def test_other_inputs_are_refused(shape: tuple[Any, ...], dtype: int, words: str, save: Save) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        Detector(save(constant_detector({"o": np.zeros((1, 7, 30))}, shape, dtype)))


def test_a_size_is_taken_where_the_input_has_none(save: Save) -> None:
    path = save(constant_detector({"o": np.zeros((1, 7, 30))}, ("n", 3, "h", "w")))
    assert Detector(path, size=SIZE).size == SIZE


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (np.full((1, 30, 6), 3.5), "scores run from 3.5 to 3.5, needed 0 to 1 in the fifth column"),
        (np.full((1, 30, 6), np.nan), "scores run from nan to nan"),
        (np.zeros((1, 84, 300)), "gives (1, 84, 300); needed (1, N, 6); export it with suppression inside"),
    ],
)
def test_a_wrong_output_is_refused(output: np.ndarray, words: str, save: Save) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        Detector(save(constant_detector({"o": output})))(STREET, NAMES)


def test_files_that_are_no_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match=r"none.onnx does not exist; give the ONNX file of a detector"):
        Detector(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BackendError, match=r"text.onnx is no network that ONNX Runtime opens: .*; export it again"):
        Detector(tmp_path / "text.onnx")


def judged(
    moved: float, classes: tuple[int, ...] = (PERSON, CAR), stems: tuple[str, ...] = ("1D", "2N")
) -> dict[str, Any]:
    """Return what COCO says of boxes 100 wide, all moved to the right by so many pixels."""
    judge = Coco(NAMES)
    boxes = np.array([[50.0, 50, 150, 100], [300, 200, 400, 300]])
    for stem in stems:
        labels = Labels(np.array([PERSON, CAR]), boxes / (640, 480, 640, 480))
        judge.add_image(stem, (480, 640), labels)
        own = np.isin(labels.classes, classes)
        found = boxes[own] + (moved, 0, moved, 0)
        judge.add_found("fused", Detections(found, np.full(len(found), 0.5), labels.classes[own]))
    return judge.row("fused")


def test_perfect_boxes_have_precision_1_everywhere() -> None:
    row = judged(0)
    assert row.pop("source") == "fused"
    names = ["map_50", "map_50_95", "person_ap_50", "car_ap_50", "day_map_50", "night_map_50"]
    assert row == {name: pytest.approx(1) for name in names}


@pytest.mark.parametrize("moved", [2, 8, 14, 22, 30, 40])
def test_moved_boxes_count_at_the_thresholds_below_their_overlap(moved: float) -> None:
    overlap = (100 - moved) / (100 + moved)
    passed = sum(overlap >= threshold for threshold in np.linspace(0.5, 0.95, 10))
    row = judged(moved)
    assert row["map_50"] == pytest.approx(float(overlap >= 0.5))
    assert row["map_50_95"] == pytest.approx(passed / 10)


def test_a_class_that_is_never_found_has_precision_0_and_one_without_boxes_none() -> None:
    row = judged(0, classes=(CAR,), stems=("1D", "2D"))
    assert (row["person_ap_50"], row["night_map_50"]) == (0, None)
    assert row["map_50"] == pytest.approx(0.5)
    assert judged(0, classes=())["map_50"] == 0


def test_a_false_box_of_a_higher_score_halves_the_precision() -> None:
    judge = Coco({PERSON: "person"})
    judge.add_image("1D", (100, 100), Labels(np.array([PERSON]), np.array([[0.1, 0.1, 0.3, 0.3]])))
    boxes = np.array([[60.0, 60, 90, 90], [10, 10, 30, 30]])
    judge.add_found("fused", Detections(boxes, np.array([0.9, 0.5]), np.array([PERSON, PERSON])))
    assert judge.row("fused")["map_50"] == pytest.approx(0.5)


def test_labels_are_read_and_named(tmp_path: Path) -> None:
    (tmp_path / "1D.txt").write_text("0 0.5 0.5 0.2 0.4\n\n2 0.95 0.5 0.2 0.1\n")
    (tmp_path / "2N.txt").write_text("")
    labels, names = read_labels(tmp_path)
    assert names == NAMES
    assert labels["1D"].boxes == pytest.approx(np.array([[0.4, 0.3, 0.6, 0.7], [0.85, 0.45, 1, 0.55]]))
    assert labels["2N"].boxes.shape == (0, 4)
    (tmp_path / "classes.txt").write_text("People\nBus\n")
    assert read_labels(tmp_path)[1] == {0: "People", 2: "class 2"}


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5 0.2", "0.5 0 0 0 0", "-1 0 0 0 0", "a 0 0 0 0", "0 300 200 20 40", "0 nan 0 0 0"]
)
def test_lines_that_are_no_label_are_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "1D.txt").write_text(f"0 0.5 0.5 0.2 0.4\n{line}\n")
    with pytest.raises(DataError, match=re.escape(f"1D.txt, line 2 is {line!r}; needed a class number and centre x")):
        read_labels(tmp_path)


PEOPLE = {"1D": [(0, 0), (2, 4)], "2D": [(1, 1)], "3N": [(3, 2), (1, 5), (0, 3)]}
CARS = {"1D": [(3, 1)], "2D": [], "3N": [(2, 0), (1, 2)]}


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Write pairs in which people are seen in the infrared alone and cars by their blue alone; `4N` has no labels."""
    data = tmp_path / "data"
    for side in ("infrared", "visible", "labels"):
        (data / side).mkdir(parents=True)
    for stem in (*PEOPLE, "4N"):
        people, cars = PEOPLE.get(stem, []), CARS.get(stem, [])
        write_png(data / "infrared" / f"{stem}.png", painted(dict.fromkeys(people, (255, 255, 255)))[:, :, 0].copy())
        write_png(data / "visible" / f"{stem}.png", painted(dict.fromkeys(cars, BLUE)))
    for stem, people in PEOPLE.items():
        boxes = [(PERSON, *cell) for cell in people] + [(CAR, *cell) for cell in CARS[stem]]
        lines = [
            f"{number} {(column + 0.5) * CELL / SIZE[1]} {(row + 0.5) * CELL / SIZE[0]} "
            f"{CELL / SIZE[1]} {CELL / SIZE[0]}\n"
            for number, row, column in boxes
        ]
        (data / "labels" / f"{stem}.txt").write_text("".join(lines))
    return data


def run(*arguments: object) -> Any:
    app = Typer()
    app.command()(detection.main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_run_gives_the_precisions_that_the_images_have(streets: Path, save: Save) -> None:
    path, out = save(blob_detector()), streets.parent / "d.json"
    ran = run("--detector", path, "--data", streets, "--out", out, "--threads", 1)
    assert ran.exit_code == 0, ran.output
    result = Result.read(out)
    assert result.file_name.startswith("detection-blobs-nano-")
    rows = {row["source"]: row for row in result.rows}
    precisions = {source: [row["person_ap_50"], row["car_ap_50"]] for source, row in rows.items()}
    assert precisions["infrared"] == pytest.approx([1, 0])
    assert precisions["visible"] == pytest.approx([0, 1])
    assert precisions["max"] == pytest.approx([1, 1])
    assert list(rows)[-1] == "fused"
    # By day three people and one car, at night three people and two cars.
    assert rows["max"]["night_map_50"] == pytest.approx(1)
    said = result.settings
    assert [said[name] for name in ("images", "day", "night", "unlabelled")] == [3, 2, 1, 1]
    assert (said["person_boxes"], said["car_boxes"]) == (6, 3)
    assert said["detector_sha256"] == detector.hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(result.provenance.bundles["nano"]) == 64
    assert "| infrared | 50.0% | 50.0% | 100.0% | 0.0% | 50.0% | 50.0% |" in ran.output
    assert "| paper: CLED-Fusion | 95.4% | 72.8% | - | - | - | - |" in ran.output


def test_msrs_own_folder_names_and_a_graph_that_drops_low_scores(streets: Path, save: Save) -> None:
    for own, published in (("infrared", "ir"), ("visible", "vi")):
        (streets / own).rename(streets / published)
    found = np.zeros((1, 9, 6))
    found[..., 4], found[0, 4:, 5] = 0.25, CAR
    path = save(constant_detector({"o": found}))
    ran = run("--detector", path, "--data", streets, "--threads", 1)
    assert ran.exit_code == 0, ran.output
    assert "the graph gives no score below 0.25: export it with a threshold of 0.001, or mAP is too low" in ran.output


def refusal(*arguments: object) -> tuple[int, str]:
    result = run(*arguments)
    return result.exit_code, result.stderr


def test_refusals_of_a_run(streets: Path, save: Save) -> None:
    silent = np.zeros((1, 9, 6))
    silent[..., 4] = 0.5
    path = save(constant_detector({"o": silent}))
    out = streets.parent / "d.json"
    code, words = refusal("--detector", path, "--data", streets, "--out", out, "--threads", 1)
    assert code == OptionError.exit_code
    assert "never found class 2 (car) in 3 images of 7 sources; it must count classes as the labels do" in words
    assert not out.exists()

    code, words = refusal("--detector", path, "--data", streets, "--labels", streets / "none")
    assert code == SourceMissingError.exit_code
    assert "none holds no .txt labels; give the folder of YOLO labels by --labels" in words

    (streets.parent / "other").mkdir()
    (streets.parent / "other" / "77D.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    code, words = refusal("--detector", path, "--data", streets, "--labels", streets.parent / "other")
    assert code == NoPairsError.exit_code
    assert re.search(r"none of 4 images of .*infrared has the stem of one of 1 label files, such as 77D.txt", words)

    code, words = refusal("--detector", path, "--data", streets, "--size", "a")
    assert (code, "--size is 'a'; it must be HEIGHTxWIDTH in pixels" in words) == (2, True)


def test_without_pycocotools_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(coco.importlib, "import_module", missing)
    with pytest.raises(
        OptionError, match=r"mAP needs pycocotools .*; install it: pip install 'cled-edge\[benchmarks\]'"
    ):
        coco.pycocotools("coco")


def test_images_of_unequal_size_are_refused() -> None:
    pair = pair_of(np.zeros((8, 8), np.uint8), np.zeros((8, 9, 3), np.uint8), 0, "1D")
    with pytest.raises(CledEdgeError, match="infrared is 8x8, visible 8x9"):
        detection.shown(pair, lambda infrared, visible: visible)


def test_the_detector_sees_infrared_as_three_equal_channels() -> None:
    infrared = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    visible = np.dstack([infrared // 2] * 3)
    images = detection.shown(pair_of(infrared, visible, 0, "1D"), lambda infrared, visible: visible)
    assert (images["infrared"] == infrared[:, :, None]).all()
    assert {picture.shape for picture in images.values()} == {(64, 64, 3)}
    assert (images["visible"] == visible).all()
