"""A recipe of a few iterations on a few images."""

RECIPE = """
preset = "one-pass"
seed = 3

[data]
pairs = ["set"]

[restore]
iterations = {iterations}
batch = 2
crop = 32
learning_rate = 1e-3
warmup = 1
held_out_crops = 1

[fuse]
iterations = 2
batch = 1
crop = 128
learning_rate = 1e-3
"""
