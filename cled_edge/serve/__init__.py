"""A page for robots without a screen: live images, controls and charts over HTTP, with metrics and health."""
