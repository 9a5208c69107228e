"""The ROS 2 node's logic without ROS: messages in, fused images out, parameters, diagnostics."""

import importlib.util
import sys
import threading
import time
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cled_edge.contract import CONTROLS, Controls
from cled_edge.errors import BackendError, OptionError, SourceUnreadableError
from cled_edge.frame import FramePair, FusedFrame
from cled_edge.memory import Memory
from cled_edge.pair_facts import timed
from runtime.ros2.cled_edge_ros.bridge import ERROR, OK, WARN, Bridge, Fused, frame_of, image_fields, parameter_of

ROOT = Path(__file__).parent.parent.parent / "runtime" / "ros2"


def message(image: np.ndarray, encoding: str, at_ns: int = 0, **more: Any) -> SimpleNamespace:
    """A message as rclpy makes it: the data are an array of bytes."""
    height, width = image.shape[:2]
    stamp = SimpleNamespace(sec=at_ns // 10**9, nanosec=at_ns % 10**9)
    fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": image.nbytes // height}
    fields |= {"data": np.frombuffer(image.tobytes(), np.uint8), "header": SimpleNamespace(stamp=stamp, frame_id="cam")}
    return SimpleNamespace(**{**fields, **more})


def both(at_ns: int = 0, level: int = 50) -> tuple[SimpleNamespace, SimpleNamespace]:
    infrared = message(np.full((4, 6), level, np.uint8), "mono8", at_ns)
    return infrared, message(np.full((4, 6, 3), (1, 2, 3), np.uint8), "rgb8", at_ns + 4_000_000)


class Fuser:
    """Fuses nothing; fails at steps that it has not."""

    def __init__(self) -> None:
        self.may_go_on, self.is_at_work = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.fails = False

    def fuse_pair(self, pair: FramePair, controls: Controls, memory: Memory) -> FusedFrame:
        self.is_at_work.set()
        self.may_go_on.wait(10)
        if controls.steps == 7 or self.fails:
            raise BackendError("there is no such engine")
        images = pair.visible.image, pair.infrared.image, pair.visible.image
        return timed(FusedFrame(*images, controls=controls, latency_ns={"network": 5_000_000}), pair)


class Clock:
    now_ns = 10**9

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def rig():
    """A bridge, its fuser, its clock, and what it published."""
    published: list[Fused] = []
    fuser, clock = Fuser(), Clock()

    def check(controls: Controls) -> None:
        if controls.steps == 9:
            raise OptionError("the bundle has no graph of 9 steps")

    bridge = Bridge(fuser, published.append, now_ns=clock, check=check)
    bridge.start()
    yield SimpleNamespace(bridge=bridge, fuser=fuser, clock=clock, published=published)
    fuser.may_go_on.set()
    bridge.stop()


def wait_until(holds) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("encoding", "stored", "expected"),
    [
        ("mono8", np.array([[1, 2]], np.uint8), np.array([[1, 2]])),
        ("mono16", np.array([[7000, 7001]], "<u2"), np.array([[7000, 7001]])),
        ("bgr8", np.array([[[1, 2, 3]]], np.uint8), np.array([[[1, 2, 3]]])),
        ("rgba8", np.array([[[1, 2, 3, 255]]], np.uint8), np.array([[[1, 2, 3]]])),
    ],
)
def test_a_message_becomes_a_frame(encoding: str, stored: np.ndarray, expected: np.ndarray) -> None:
    frame = frame_of(message(stored, encoding, 3_000_000_007), 5, "infrared")
    np.testing.assert_array_equal(frame.image, expected)
    assert (frame.timestamp_ns, frame.clock, frame.sequence) == (3_000_000_007, "ros", 5)
    assert frame.color_order == ("BGR" if encoding in ("mono8", "mono16", "bgr8") else "RGB")


def test_rows_may_be_padded_and_bytes_swapped() -> None:
    rows = np.array([[1, 2, 0, 0], [3, 4, 0, 0]], np.uint8)
    padded = message(rows, "mono8", width=2)
    assert frame_of(padded, 0, "x").image.tolist() == [[1, 2], [3, 4]]
    swapped = message(np.array([[7000]], ">u2"), "16UC1", is_bigendian=1)
    assert frame_of(swapped, 0, "x").image.tolist() == [[7000]]


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(SourceUnreadableError, match="infrared has images of encoding 'bayer_rggb8'; needed one of"):
        frame_of(message(np.zeros((2, 2), np.uint8), "bayer_rggb8"), 0, "infrared")
    with pytest.raises(SourceUnreadableError, match="infrared has an image of 4 bytes; needed 9 rows of 2"):
        frame_of(message(np.zeros((2, 2), np.uint8), "mono8", height=9), 0, "infrared")


def test_an_image_goes_out_as_it_came_in() -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    out = SimpleNamespace(**image_fields(image), header=message(image, "rgb8").header)
    assert (out.encoding, out.step) == ("rgb8", 9)
    np.testing.assert_array_equal(frame_of(out, 0, "x").image, image)
    assert image_fields(image[:, :, 0])["encoding"] == "mono8"


def test_a_pair_is_fused_under_the_visibles_header_with_its_skew(rig) -> None:
    infrared, visible = both(500_000_000)
    rig.bridge.take(infrared, visible)
    wait_until(lambda: rig.published)
    (fused,) = rig.published
    assert fused.header is visible.header
    assert fused.frame.skew_ns == -4_000_000
    assert fused.frame.picture[0, 0].tolist() == [1, 2, 3]


def test_while_a_pair_is_fused_only_the_newest_waits(rig) -> None:
    rig.fuser.may_go_on.clear()
    rig.bridge.take(*both(0, level=0))
    rig.fuser.is_at_work.wait(10)
    for level in range(1, 6):
        rig.bridge.take(*both(level, level=level))
    rig.fuser.may_go_on.set()
    wait_until(lambda: len(rig.published) == 2)
    assert [int(fused.frame.infrared[0, 0]) for fused in rig.published] == [0, 5]
    assert rig.bridge.diagnostics()[2]["overtaken"] == "4"


def test_diagnostics_follow_what_happens(rig) -> None:
    assert rig.bridge.diagnostics()[:2] == (
        WARN, "no pair yet: both topics must have images within the slop of each other"
    )  # fmt: skip
    rig.bridge.take(*both(900_000_000))
    wait_until(lambda: rig.published)
    rig.clock.now_ns += 10**9
    level, text, values = rig.bridge.diagnostics()
    assert (level, text) == (OK, "fusing")
    assert (values["rate_hz"], values["fused"], values["skew_ms"]) == ("1.0", "1", "-4.0")
    assert values["infrared_age_ms"] == "1100.0"
    assert (values["network_p99_ms"], values["balance"]) == ("5.0", "0.5")
    rig.clock.now_ns += 4 * 10**9
    assert rig.bridge.diagnostics()[:2] == (ERROR, "no pair for 5 s: a camera is lost, or they drift")
    rig.fuser.fails = True
    rig.bridge.take(*both())
    wait_until(lambda: rig.bridge.diagnostics()[1] == "there is no such engine")
    rig.fuser.fails = False
    rig.bridge.take(*both())
    wait_until(lambda: rig.bridge.diagnostics()[0] == OK)


def test_parameters_turn_controls_all_or_none(rig) -> None:
    assert rig.bridge.set_parameters({"balance": 0.25, "steps": 2, "use_sim_time": True}) == ""
    assert rig.bridge.box.current == Controls(steps=2, balance=0.25)
    assert rig.bridge.set_parameters({"steps": 0, "deadline_ms": 0.0}) == ""
    assert rig.bridge.box.current == Controls(balance=0.25)
    assert "balance is 2.0; it must lie between 0 and 1" in rig.bridge.set_parameters({"balance": 2.0, "steps": 3})
    assert rig.bridge.set_parameters({"steps": 9}) == "the bundle has no graph of 9 steps"
    assert rig.bridge.box.current == Controls(balance=0.25)


def test_controls_that_fail_are_withdrawn(rig) -> None:
    rig.bridge.take(*both())
    wait_until(lambda: len(rig.published) == 1)
    rig.bridge.set_parameters({"steps": 7})
    rig.bridge.take(*both())
    wait_until(lambda: rig.bridge.box.refusal)
    rig.bridge.take(*both())
    wait_until(lambda: len(rig.published) == 2)
    assert rig.bridge.diagnostics()[:2] == (WARN, "controls were withdrawn: there is no such engine")


def test_every_control_is_a_parameter_with_its_range() -> None:
    ranges = {entry.name: parameter_of(entry) for entry in CONTROLS}
    assert ranges["steps"] == (0, 0, 10)
    assert ranges["balance"] == (0.5, 0.0, 1.0)
    assert ranges["deadline_ms"] == (0.0, 0.0, 60_000.0)
    assert all(isinstance(value, int) == entry.is_whole for entry in CONTROLS for value in ranges[entry.name])


class _Anything(types.ModuleType):
    """A module of ROS that has whatever is asked for; what is made remembers how it was made."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *given, **named: self.__dict__.update(named, given=given)})


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("message_filters", "rclpy", "rclpy.executors", "rclpy.node", "rclpy.parameter", "rclpy.qos", "launch")
    messages = ("diagnostic_msgs", "diagnostic_msgs.msg", "rcl_interfaces", "rcl_interfaces.msg")
    more = ("sensor_msgs", "sensor_msgs.msg", "launch.actions", "launch.substitutions", "launch_ros")
    for name in (*names, *messages, *more, "launch_ros.actions", "launch_ros.parameter_descriptions"):
        monkeypatch.setitem(sys.modules, name, _Anything(name))


def test_the_launch_file_passes_every_argument(ros) -> None:
    spec = importlib.util.spec_from_file_location("fuse_launch", ROOT / "launch" / "fuse.launch.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    *arguments, node = module.generate_launch_description().given[0]
    passed = {each.given[0] for _, each in node.remappings} | {
        value.given[0].given[0] for value in node.parameters[0].values()
    }
    assert passed == {argument.given[0] for argument in arguments}
    assert (node.package, node.executable) == ("cled_edge_ros", "fuse")


def test_the_node_is_python_that_ros_can_load(ros) -> None:
    from runtime.ros2.cled_edge_ros import node

    assert {"bundle", "backend", "calibration", "slop_s", "queue_size"} == node._SETTINGS.keys()
