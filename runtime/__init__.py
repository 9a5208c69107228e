"""Programs that run on the robot, each a short example of the API. The code they use is in cled_edge."""
