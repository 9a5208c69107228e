"""How colcon installs the node: `colcon build --packages-select cled_edge_ros`."""

from setuptools import setup

setup(
    name="cled_edge_ros",
    version="0.1.0",
    packages=["cled_edge_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/cled_edge_ros"]),
        ("share/cled_edge_ros", ["package.xml"]),
        ("share/cled_edge_ros/launch", ["launch/fuse.launch.py"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    license="Apache-2.0",
    entry_points={"console_scripts": ["fuse = cled_edge_ros.node:main"]},
)
