"""robot.toml: the example names every option, flags win, and what is wrong is one line with the key."""

import inspect
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cled_edge.bundle.reader import Bundle
from cled_edge.cli.fusing import fuse, outputs_of
from cled_edge.config import OutputTable, RobotConfig, known_keys, read_config
from cled_edge.contract import CONTROLS, Controls
from cled_edge.errors import OptionError
from cled_edge.output.sink import OutputSettings

EXAMPLE = Path(__file__).parent.parent / "runtime" / "robot.example.toml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "robot.toml"
    path.write_text(text)
    return path


def keys_of(values: dict[str, Any]) -> set[str]:
    tables = (
        (table, part) for table, parts in values.items() for part in (parts if isinstance(parts, tuple) else [parts])
    )
    return {f"{table}.{key}" for table, part in tables for key in part}


def test_the_example_loads_and_names_every_key_with_its_default(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    whole = re.sub(r"^# (?=\[\[|\w+ = )", "", text, flags=re.MULTILINE)  # with what is commented out
    named = keys_of(read_config(written(tmp_path, whole)).model_dump(exclude_unset=True, by_alias=True))
    # A control that no shipped bundle has yet works in a file before the example shows it.
    taken = {spec.name for graph in Bundle.open().manifest.graphs.values() for spec in graph.inputs}
    new_controls = {f"controls.{entry.name}" for entry in CONTROLS if entry.tensor and entry.tensor not in taken}
    assert named | new_controls == set(known_keys())
    config = read_config(EXAMPLE)
    assert (config.model, config.run) == (RobotConfig().model, RobotConfig().run)
    assert Controls.from_mapping(config.controls, "the example") == Controls()
    options = [line for line in whole.splitlines() if re.match(r"\w+ = ", line)]
    assert [line for line in options if "  # " not in line] == ['infrared = "/dev/video0"', 'visible = "/dev/video1"']


def test_every_option_of_the_command_is_a_key() -> None:
    options = set(inspect.signature(fuse).parameters) - {"config", "verbose", "quiet"}
    of_outputs = {"out", "restored", "uncertainty"}  # each is one of [[outputs]]
    in_tables = {
        key for table in ("cameras", "model", "page", "run") for key in type(getattr(RobotConfig(), table)).model_fields
    }
    assert options - of_outputs == in_tables | {entry.name for entry in CONTROLS}
    assert set(OutputTable.model_fields) == {field.name for field in fields(OutputSettings)}


def test_what_is_given_wins_and_the_rest_stays(tmp_path: Path) -> None:
    text = '[model]\nbackend = "openvino"\nthreads = 3\nallow_build = true\n[controls]\nbalance = 0.2\nsteps = 2\n'
    config = read_config(written(tmp_path, text + '[[outputs]]\nto = "a.mp4"\n[cameras]\ninfrared = 0\n'))
    whole = config.overlaid({"threads": 1, "allow_build": False, "max_frames": 5}, {"balance": 0.9})
    assert (whole.model.backend, whole.model.threads, whole.model.allow_build) == ("openvino", 1, False)
    assert (whole.controls, whole.run.max_frames, whole.cameras.infrared) == ({"balance": 0.9, "steps": 2}, 5, "0")
    assert outputs_of(whole, None, None) == [OutputSettings("a.mp4")]
    assert outputs_of(whole, ["window", "visible=b"], Path("r")) == [
        OutputSettings("window"),
        OutputSettings("b", "visible"),
        OutputSettings("folder:r/infrared", "infrared"),
        OutputSettings("folder:r/visible", "visible"),
    ]


def test_what_is_replaced_is_not_checked_and_an_unknown_key_still_is(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "[cameras]\ninfrared = true\n[model]\nthreads = 'two'\n[controls]\nsteps = 99\nbalance = 0.2\n"
        "[[outputs]]\nto = 'a.gif'\n[run]\njson = 1\n",
    )
    config = read_config(path, {"infrared", "threads", "steps", "outputs", "as_json"})
    assert (config.controls, config.outputs, config.model.threads) == ({"balance": 0.2}, (), 0)
    for left_out, words in (("steps", "steps is 99"), ("threads", "threads is 'two'"), ("as_json", "run.json is 1")):
        with pytest.raises(OptionError, match=words):
            read_config(path, {"infrared", "threads", "steps", "outputs", "as_json"} - {left_out})
    with pytest.raises(OptionError, match=r"model\.steps is unknown"):
        read_config(written(tmp_path, "[model]\nsteps = 5\n"), {"steps"})


def test_no_output_is_refused() -> None:
    with pytest.raises(OptionError, match=r"no output is named; needed one at least, or a page; give --out or --serve"):
        outputs_of(RobotConfig(), None, Path("restored"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[model]\nbackned = 'x'",
            r"model\.backned is unknown; known: model\.bundle, .*, model\.tile; write model\.backend",
        ),
        ("[modle]\nbackend = 'x'", "modle is unknown; .* write model"),
        ("backend = 'x'", "backend is unknown; .* write model.backend"),
        ("[run]\nas_json = true", "run.as_json is unknown; .* write run.json"),
        ("[[outputs]]\nto = 'a'\nshow = 'visible'", "outputs.0.show is unknown; .* write outputs.shows"),
        ("[[areas]]\nshare = 2", "areas.0 is .*the share of an area is 2.0; it must lie between 0 and 1"),
        ("[[areas]]\nvalid = false", "areas.0 is .*an area that is not valid has the modality 'both'"),
        ("[[areas]]\nshare = 0\nshape = 1", "areas.0.shape is unknown; .* write areas.share"),
        ("[[outputs]]\nshows = 'visible'", "outputs.0.to is missing; needed a value"),
        ("[[outputs]]\nto = 'a'\npolicy = 'hurry'", "outputs.0.policy is 'hurry': needed 'wait' or 'drop'$"),
        ("[[outputs]]\nto = 'a'\nqueue_frames = 0", "queue_frames is 0; it must be 1 or more"),
        ("[[outputs]]\nto = 'a.gif'", "outputs.0 is .*a.gif names a file; give a folder"),
        ("[model]\nthreads = '2'", "model.threads is '2': needed a whole number$"),
        ("[model]\nthreads = -2", "model.threads is -2: needed 0 or more$"),
        ("[run]\nmax_frames = 0", "run.max_frames is 0: needed 1 or more$"),
        ("[cameras]\ninfrared = true", "cameras.infrared is True: needed text in quotes$"),
        ("[controls]\nbalnce = 0.5", r"\[controls\] has 'balnce', .* write balance"),
        ("[controls]\nbalance = 2", r"\[controls\]: balance is 2; it must lie between 0 and 1"),
        ("[controls]\nsteps = 'one'", r"\[controls\]: steps is 'one'; it must be a whole number between 1 and 10"),
        ("[model]\nbundle = 1", "model.bundle is 1: needed a path in quotes$"),
        ("[model]\nallow_build = 'yes'", "model.allow_build is 'yes': needed true or false$"),
        ("model = 3", r"model is 3: needed a table, below a line \[model\]$"),
        ("controls = 3", r"controls is 3: needed a table"),
        ("[outputs]\nto = 'a'", r"outputs is .*: needed tables, each below a line \[\[outputs\]\]$"),
        ("outputs = [1]", r"outputs.0 is 1: needed a table"),
        ("x == 1", "is not TOML: .*line 1"),
        ("\xff", "is not TOML"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_key(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "robot.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(OptionError, match=words) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^\S*none\.toml does not exist; give a TOML file$"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x=" + b"[" * 100_000, "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"#" * (2**20 + 1), "at most"),
        (b'[page]\nserve="\\u0000:80"', "NUL"),
    ],
)
def test_a_file_that_would_exhaust_the_reader_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "robot.toml"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=words):
        read_config(path)


def test_a_byte_order_mark_is_read_and_a_pipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf[model]\nthreads = 1\n")
    assert read_config(tmp_path / "bom.toml").model.threads == 1
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(OptionError, match="is a pipe, needed a regular file"):
        read_config(tmp_path / "pipe.toml")
