"""Measurements: every number in a README comes from a JSON file that a program here wrote."""

from cled_edge.errors import name_extras

name_extras(__name__, "benchmarks,train")
