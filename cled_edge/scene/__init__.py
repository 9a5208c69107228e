"""The rendered night street: a pair of cameras for a demo, a measurement or a test that has no data."""
