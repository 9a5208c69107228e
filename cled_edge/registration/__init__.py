"""Where pixels of one camera lie in the other: found once, kept in `calibration.yaml`, applied on the robot."""
