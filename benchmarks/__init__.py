"""Measurements: every number in a README comes from a JSON file that a program here wrote."""
