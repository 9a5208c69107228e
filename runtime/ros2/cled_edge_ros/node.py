"""The node: topics, parameters and diagnostics of ROS 2 around a `Bridge`. One source for Humble, Jazzy and Lyrical."""

from pathlib import Path
from typing import Any

import message_filters
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from cled_edge import Fuser
from cled_edge.contract import CONTROLS
from cled_edge.registration.calibration import read_calibration
from cled_edge.registration.warp import Registrar

from .bridge import Bridge, Fused, image_fields, parameter_of

DIAGNOSTICS_S = 1.0


class FuseNode(Node):
    """Fuses `infrared/image` and `visible/image` into `fused/image`, in the frame of the visible camera."""

    def __init__(self) -> None:
        super().__init__("cled_edge")
        text = {name: self.declare_parameter(name, value).value for name, value in _SETTINGS.items()}
        fuser = Fuser.load(text["bundle"] or None, backend=str(text["backend"]))
        registrar = Registrar(read_calibration(Path(str(text["calibration"])))) if text["calibration"] else None
        self._info: CameraInfo | None = None
        self._images = {
            name: self.create_publisher(Image, topic, qos_profile_sensor_data)
            for name, topic in (
                ("picture", "fused/image"),
                ("infrared", "infrared/restored"),
                ("visible", "visible/restored"),
            )
        }
        self._info_out = self.create_publisher(CameraInfo, "fused/camera_info", qos_profile_sensor_data)
        self._told = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.bridge = Bridge(
            fuser, self._publish, now_ns=lambda: self.get_clock().now().nanoseconds, registrar=registrar,
            check=fuser.refuse_unfit,
            entries=fuser.controls,
        )  # fmt: skip
        self._declare_controls()
        self.create_subscription(CameraInfo, "visible/camera_info", self._keep_info, qos_profile_sensor_data)
        both = [
            message_filters.Subscriber(self, Image, topic, qos_profile=qos_profile_sensor_data)
            for topic in ("infrared/image", "visible/image")
        ]
        slop_s, queue_size = float(str(text["slop_s"])), int(str(text["queue_size"]))
        self._pairs = message_filters.ApproximateTimeSynchronizer(both, queue_size, slop_s)
        self._pairs.registerCallback(self.bridge.take)
        self.create_timer(DIAGNOSTICS_S, self._diagnose)
        self.bridge.start()

    def _declare_controls(self) -> None:
        for entry in self.bridge.box.entries:
            value, low, high = parameter_of(entry)
            described = ParameterDescriptor(
                description=f"{entry.meaning}; 0 is not set" if not value else entry.meaning
            )
            if entry.is_whole:
                described.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
            else:
                described.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
            self.declare_parameter(entry.name, value, described)
        self.add_on_set_parameters_callback(self._turn)
        names = [entry.name for entry in CONTROLS]
        self._turn([self.get_parameter(name) for name in names])  # what a launch file gave

    def _turn(self, parameters: list[Parameter]) -> SetParametersResult:
        reason = self.bridge.set_parameters({each.name: each.value for each in parameters})
        return SetParametersResult(successful=not reason, reason=reason)

    def _keep_info(self, info: CameraInfo) -> None:
        self._info = info

    def _publish(self, fused: Fused) -> None:
        for name, publisher in self._images.items():
            if name == "picture" or publisher.get_subscription_count():
                image = getattr(fused.frame, name)
                publisher.publish(Image(header=fused.header, **image_fields(image, fused.frame.color_order)))
        if self._info is not None:
            info = self._info
            info.header = fused.header
            self._info_out.publish(info)

    def _diagnose(self) -> None:
        level, message, values = self.bridge.diagnostics()
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        status = DiagnosticStatus(
            level=bytes([level]), name="cled_edge: fusion", message=message, hardware_id="cled_edge", values=pairs
        )
        told = DiagnosticArray(status=[status])
        told.header.stamp = self.get_clock().now().to_msg()
        self._told.publish(told)


_SETTINGS: dict[str, Any] = {
    "bundle": "",
    "backend": "onnxruntime",
    "calibration": "",
    "slop_s": 0.1,
    "queue_size": 10,
}


def main() -> None:
    """Run the node until ROS shuts down."""
    rclpy.init()
    node = FuseNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.bridge.stop()
        node.destroy_node()
        rclpy.try_shutdown()
