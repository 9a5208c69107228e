"""Two-stage training of CLED-Fusion: restoration, then fusion. Programs to run, never installed."""

from cled_edge.errors import name_extras

name_extras(__name__, "train")
