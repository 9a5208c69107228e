"""The ROS 2 node of cled-edge, and its logic, which needs no ROS."""
