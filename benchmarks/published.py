"""Numbers of others, to stand beside ours: Tables 1, 3 and 4 of the paper, and fusion networks measured by us.

The paper's pictures are not those of `benchmarks.quality`, and its metrics are those of the profile `paper`.
"""

from typing import NamedTuple


class Scores(NamedTuple):
    """A row of the paper's tables: bits, then sums over both sources; nabf is the one that should be low."""

    mi: float
    vif: float
    qabf: float
    nabf: float
    ssim: float


class Strict(NamedTuple):
    """VIF, Q^AB/F and SSIM as sums over both sources, profile `strict`."""

    vif: float
    qabf: float
    ssim: float


class Peer(NamedTuple):
    """The best VIF and the best Q^AB/F of learned fusions and a Laplacian pyramid, on held-back pairs of a set."""

    vif: float
    qabf: float


FOLDERS = ("pairs/m3fd", "pairs/llvip")  # what Tables 1 and 4 are of

# Table 1, on test pictures of M3FD and LLVIP; which ones the paper does not say.
TABLE_1: dict[str, dict[str, Scores]] = {
    "Dif-Fusion": {
        "pairs/m3fd": Scores(2.947, 0.531, 0.412, 0.040, 0.659),
        "pairs/llvip": Scores(3.329, 0.757, 0.343, 0.045, 0.542),
    },
    "VDMUFusion": {
        "pairs/m3fd": Scores(2.633, 0.569, 0.309, 0.003, 0.891),
        "pairs/llvip": Scores(2.794, 0.748, 0.340, 0.001, 0.763),
    },
    "CCF": {
        "pairs/m3fd": Scores(2.714, 0.493, 0.253, 0.003, 0.777),
        "pairs/llvip": Scores(2.916, 0.779, 0.344, 0.009, 0.694),
    },
    "Text-DiFuse": {
        "pairs/m3fd": Scores(2.376, 0.265, 0.205, 0.047, 0.277),
        "pairs/llvip": Scores(2.146, 0.769, 0.303, 0.046, 0.393),
    },
    "GIFNet": {
        "pairs/m3fd": Scores(2.547, 0.613, 0.462, 0.087, 0.880),
        "pairs/llvip": Scores(2.329, 0.804, 0.403, 0.066, 0.720),
    },
    "CLED-Fusion": {
        "pairs/m3fd": Scores(4.012, 0.730, 0.493, 0.006, 0.903),
        "pairs/llvip": Scores(2.597, 1.076, 0.347, 0.082, 0.448),
    },
}

# Table 3, on slices of the Harvard whole-brain atlas of all three kinds; which ones the paper does not say.
TABLE_3: dict[str, Scores] = {
    "Dif-Fusion": Scores(2.600, 0.513, 0.598, 0.008, 0.604),
    "VDMUFusion": Scores(3.291, 0.653, 0.458, 0.009, 1.086),
    "CCF": Scores(2.731, 0.563, 0.625, 0.004, 0.635),
    "Text-DiFuse": Scores(2.843, 0.579, 0.205, 0.018, 0.534),
    "GIFNet": Scores(2.581, 0.413, 0.345, 0.030, 0.443),
    "CLED-Fusion": Scores(3.924, 0.939, 0.739, 0.002, 1.260),
}

# Table 4, on the pictures of Table 1.
TABLE_4: dict[str, dict[str, Scores]] = {
    "without the intensity (Eq. 16)": {
        "pairs/m3fd": Scores(0.459, 0.057, 0.102, 0.000, 0.004),
        "pairs/llvip": Scores(0.255, 0.126, 0.127, 0.021, 0.002),
    },
    "without the gradient (Eq. 17)": {
        "pairs/m3fd": Scores(3.420, 0.663, 0.451, 0.014, 0.803),
        "pairs/llvip": Scores(2.683, 1.325, 0.317, 0.151, 0.412),
    },
    "without the color (Eq. 18)": {
        "pairs/m3fd": Scores(3.324, 0.670, 0.455, 0.007, 0.856),
        "pairs/llvip": Scores(2.666, 1.242, 0.353, 0.102, 0.463),
    },
    "one stage": {
        "pairs/m3fd": Scores(3.720, 0.715, 0.436, 0.030, 0.850),
        "pairs/llvip": Scores(1.733, 0.960, 0.120, 0.346, 0.079),
    },
    "CLED-Fusion": TABLE_1["CLED-Fusion"],
}

# Clean inputs, profile `strict`: the best of SeAFusion, DATFuse, IFCNN, LUT-Fuse, SAGE, SDNet, MMDRFuse and a Laplacian
# pyramid, each with its authors' weights, on pairs that are held back from this project.
BEST_PEERS: dict[str, Peer] = {
    "pairs/msrs": Peer(0.974, 0.669),
    "pairs/roadscene": Peer(0.672, 0.594),
    "pairs/m3fd": Peer(0.836, 0.653),
    "pairs/llvip": Peer(0.889, 0.603),
    "pairs/tno": Peer(0.703, 0.537),
}

# Nine single degradations of 45 held-back pairs of MSRS, day and night, against the clean sources.
DEGRADED_PEERS: dict[str, Strict] = {
    "max of the clean pair": Strict(1.049, 0.712, 1.413),
    "max": Strict(0.687, 0.470, 1.094),
    "SeAFusion, the best peer": Strict(0.605, 0.439, 1.058),
}
