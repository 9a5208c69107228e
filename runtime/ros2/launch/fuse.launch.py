"""Start the node: `ros2 launch cled_edge_ros fuse.launch.py infrared:=/thermal/image visible:=/camera/image`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

_ARGUMENTS = {
    "infrared": ("/infrared/image_raw", "topic of the infrared images"),
    "visible": ("/visible/image_raw", "topic of the visible images"),
    "camera_info": ("/visible/camera_info", "topic of the visible camera's calibration"),
    "bundle": ("", "folder of an exported bundle; empty is the shipped one"),
    "backend": ("onnxruntime", "what fuses, such as tensorrt"),
    "calibration": ("", "file of cled-edge calibrate; empty if the images are registered"),
    "slop_s": ("0.1", "greatest time between both images of a pair"),
}


def generate_launch_description() -> LaunchDescription:
    """Return the node, its topics and its parameters."""
    given = {name: LaunchConfiguration(name) for name in _ARGUMENTS}
    node = Node(
        package="cled_edge_ros",
        executable="fuse",
        name="cled_edge",
        output="screen",
        respawn=True,
        respawn_delay=2.0,
        remappings=[
            ("infrared/image", given["infrared"]),
            ("visible/image", given["visible"]),
            ("visible/camera_info", given["camera_info"]),
        ],
        parameters=[
            {name: ParameterValue(given[name], value_type=str) for name in ("bundle", "backend", "calibration")}
            | {"slop_s": ParameterValue(given["slop_s"], value_type=float)}
        ],
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=text) for name, (value, text) in _ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, node])
