"""The networks. Torch lives in this package and nowhere else of cled_edge; nothing on the robot imports it."""
