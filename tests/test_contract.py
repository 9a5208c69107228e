"""The contract of the graphs: its entries agree with each other and with the bundles that exist."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cled_edge.bundle.manifest import GraphSpec
from cled_edge.bundle.reader import Bundle
from cled_edge.contract import (
    CONTROL_TENSORS,
    CONTROLS,
    DOUBT_TO_STEP,
    GRAPHS,
    NOISE,
    STEP_ROW,
    STEP_TO_DOUBT,
    STEP_TO_FUSION,
    STEP_TO_STEP,
    UNCERTAINTY,
    Controls,
    controls_of,
    dimensions,
    wired,
)
from cled_edge.errors import OptionError

LOOP_INPUTS = tuple(spec.name for spec in GRAPHS["fused_loop"].inputs_with())
IMAGES, MAP = ("infrared", "visible"), "strength_map"


def test_every_control_has_a_range_that_holds_its_default_and_neutral_value() -> None:
    for entry in CONTROLS:
        entry.check(entry.default)
        entry.check(entry.neutral)
        kind = "a whole number" if entry.is_whole else "a number"
        for beyond in (entry.low - 1, entry.high + 1):
            with pytest.raises(OptionError, match=f"{entry.name} is .*; it must lie between"):
                entry.check(beyond)
        for other in ("1", True):
            with pytest.raises(OptionError, match=f"{entry.name} is .*; it must be {kind} between"):
                entry.check(other)
        with pytest.raises(OptionError, match=f"{entry.name} is nan; it must"):
            entry.check(float("nan"))


def test_controls_become_the_tensors_of_graphs() -> None:
    tensors = Controls(3, 0.25, 0.75, 1).tensors()
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"strength": [0.25, 0.75], "balance": [1]}
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert [[entry.place for entry in entries] for entries in CONTROL_TENSORS.values()] == [[0, 1], [0]]


def test_the_shipped_bundle_keeps_the_contract() -> None:
    """Names, types, shapes and order: what a bundle of format 2 has had from the first."""

    def said(specs, sides):
        shapes = [tuple(sides.get(side, side) for side in spec.shape) for spec in specs]
        return [(s.name, s.dtype, shape, s.layout, s.color_order) for s, shape in zip(specs, shapes, strict=True)]

    for graph in Bundle.open().manifest.graphs.values():
        role, sides = GRAPHS[graph.role], dimensions(graph.role, graph.size) if graph.size else {}
        assert said(graph.inputs, {}) == said(role.inputs_with(graph.maps), sides)
        assert said(graph.outputs, {}) == said(role.outputs_with(graph.kinds), sides)


def test_a_mapping_becomes_controls_and_says_what_it_does_not_know() -> None:
    values = {"balance": 1, "steps": 2}
    assert Controls.from_mapping(values, "robot.toml, [controls]") == Controls(steps=2, balance=1)
    with pytest.raises(
        OptionError,
        match=r"robot.toml, \[controls\] has 'blance', which is no control; known: steps, .*; write balance$",
    ):
        Controls.from_mapping({"blance": 1}, "robot.toml, [controls]")
    for value, seen in (
        (1.5, "1.5; it must lie"),
        ("much", "'much'; it must be a number"),
        (True, "True; it must be a number"),
    ):
        with pytest.raises(OptionError, match=rf"^robot.toml: balance is {seen} between 0 and 1$"):
            Controls.from_mapping({"balance": value}, "robot.toml")


def test_a_keyword_with_a_typo_is_told_the_nearest_control() -> None:
    with pytest.raises(OptionError, match=r"^Controls\(...\) has 'strength_visble', .*; write strength_visible$"):
        Controls(strength_visble=0.5)
    with pytest.raises(OptionError, match=r"has 'balanc', .*; write balance$"):
        replace(Controls(), balanc=0.5)


def test_a_graph_without_a_control_is_used_at_its_neutral_value_alone() -> None:
    inputs = GRAPHS["fusion"].inputs_with()
    older = [spec for spec in inputs if spec.name != "balance"]
    assert list(Controls(strength_visible=0.5).inputs(older, "an older graph")) == ["strength"]
    with pytest.raises(
        OptionError, match=r"balance is 0.7, but an older graph has no such control; leave it at 0.5, or"
    ):
        Controls(balance=0.7).inputs(older, "an older graph")
    # A tensor that held fewer controls then.
    shorter = [replace(spec, shape=(1,)) if spec.name == "strength" else spec for spec in inputs]
    assert Controls(strength_infrared=0.5).inputs(shorter, "one")["strength"].tolist() == [0.5]
    with pytest.raises(OptionError, match=r"strength_visible is 0.5, but one has no such control"):
        Controls(strength_visible=0.5).inputs(shorter, "one")


def test_wires_join_tensors_that_exist_and_leave_only_controls_open() -> None:
    step, fusion = GRAPHS["unet_step"], GRAPHS["fusion"]
    given = {spec.name for spec in (*step.inputs, *step.outputs)}
    for wire in (*STEP_TO_STEP, *STEP_TO_FUSION, *STEP_TO_DOUBT):
        assert wire.source in given
    doubt = GRAPHS["doubt"]
    assert {spec.name for spec in doubt.inputs} == {wire.target for wire in STEP_TO_DOUBT} | {NOISE}
    assert [spec.name for spec in doubt.outputs] == [*(wire.source for wire in DOUBT_TO_STEP), UNCERTAINTY]
    assert {wire.target for wire in DOUBT_TO_STEP} <= given
    assert {wire.target for wire in STEP_TO_FUSION} == {spec.name for spec in fusion.inputs}
    assert {spec.name for spec in step.inputs} == {wire.target for wire in STEP_TO_STEP} | {"x_in", *STEP_ROW}
    batch = {"x_in": np.arange(2), "residual": np.arange(2, 4), "x_prev": np.arange(4, 6)}
    assert {name: x.tolist() for name, x in wired(STEP_TO_FUSION, batch).items()} == {
        "infrared": [0], "infrared_residual": [2], "visible": [1], "visible_residual": [3],
    }  # fmt: skip
    assert wired(STEP_TO_STEP, batch)["x_t"].tolist() == [4, 5]


def test_controls_spread_over_their_ranges_and_known_to_an_older_graph() -> None:
    assert Controls.spread(3, 0.6, 0.3, 0.8) == Controls(3, 0.6 * 1.5, 0.3 * 1.5, 0.8)
    assert Controls.spread(None, 1, 0) == Controls(None, 1.5, 0, 1), "shares come round again"
    older = [spec for spec in GRAPHS["fusion"].inputs_with() if spec.name != "balance"]
    assert Controls(2, 0.1, 0.2, 0.3).known_to(older) == Controls(2, 0.1, 0.2, 0.5)


def test_a_bundle_s_own_range_of_strength_decides_what_it_takes() -> None:
    newer = GRAPHS["fusion"].inputs_with()
    older = [replace(spec, range=(0.0, 1.0)) for spec in newer]
    assert Controls(strength_visible=1.4).inputs(newer, "one")["strength"].tolist() == pytest.approx([1, 1.4])
    with pytest.raises(OptionError, match=r"strength_visible is 1.4, but an older graph takes up to 1; give no"):
        Controls(strength_visible=1.4).inputs(older, "an older graph")
    assert Controls(strength_visible=1.4).known_to(older) == Controls()
    for taken, high in ((newer, 1.5), (older, 1.0)):
        highs = {entry.name: entry.high for entry in controls_of(taken)}
        assert highs == {
            "steps": 10, "strength_infrared": high, "strength_visible": high, "balance": 1, "light": 1,
            "deadline_ms": 60_000, "steadiness": 0.9, "start_noise": 1, "seed": 2**31 - 1,
        }  # fmt: skip
    with pytest.raises(OptionError, match=r"strength_infrared is 1\.6; it must lie between 0 and 1.5"):
        Controls(strength_infrared=1.6)


@pytest.mark.parametrize(
    ("taken", "has_map", "words"),
    [
        (LOOP_INPUTS, False, None),
        ((*LOOP_INPUTS, MAP), True, None),
        (LOOP_INPUTS[:-1], False, None),  # exported before the newest control came
        (LOOP_INPUTS[1:], False, f"inputs of a fused_loop are {', '.join(LOOP_INPUTS[1:])}: needed"),
        ((*IMAGES, "x_t"), False, f"needed {', '.join((*LOOP_INPUTS, MAP))}"),
        (IMAGES, True, f"{MAP} is True, but inputs are {', '.join(IMAGES)}"),
    ],
)
def test_a_manifest_is_refused_whose_graphs_break_the_contract(taken, has_map: bool, words: str | None) -> None:
    role = GRAPHS["fused_loop"]
    known = {spec.name: spec for spec in (*GRAPHS["unet_step"].inputs, *role.inputs_with(["strength_map"]))}
    values = {"role": "fused_loop", "file": "a.onnx", "precision": "fp32", "opset": 17, "steps": 1, "nodes": {}}
    values |= {"inputs": [asdict(known[name]) for name in taken], "outputs": [asdict(spec) for spec in role.outputs]}
    if words is None:
        assert GraphSpec(**values, strength_map=has_map).maps == ("strength_map",) * has_map
        return
    with pytest.raises(ValidationError, match=words):
        GraphSpec(**values, strength_map=has_map)


def test_a_graph_may_tell_kinds_and_an_older_one_does_not() -> None:
    role = GRAPHS["unet_step"]
    values = {"role": "unet_step", "file": "a.onnx", "precision": "fp32", "opset": 17, "nodes": {}}
    values["inputs"] = [asdict(spec) for spec in role.inputs]

    def told(outputs):
        return GraphSpec(**values, outputs=[asdict(spec) for spec in outputs]).kinds

    assert told(role.outputs) == 0
    assert told(role.outputs_with(3)) == 3
    with pytest.raises(ValidationError, match="outputs of a unet_step are kinds, x_prev, residual: needed x_prev"):
        told((*role.outputs_with(3)[2:], *role.outputs))
    with pytest.raises(ValidationError, match="kinds is uint8"):
        told((*role.outputs, replace(role.outputs_with(3)[2], dtype="uint8")))


def test_the_format_s_description_names_the_controls_of_the_shipped_bundle() -> None:
    """A new control is told by the manifest. The table of the other tensors is checked in tests/test_readme.py."""
    text = (Path(__file__).parents[1] / "export" / "BUNDLE.md").read_text()
    told = text[text.index("The controls are ") :].partition(".")[0]
    inputs = Bundle.open().manifest.graphs["fusion"].inputs
    shipped = [spec.name for spec in inputs if spec.name in CONTROL_TENSORS]
    assert re.findall(r"`(\w+)`", told) == shipped
