"""The configurations of both networks and the named presets, as data (no torch needed to read them)."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cled_edge.errors import OptionError

AttentionKind = Literal["none", "channel", "lineage"]
NormalisationKind = Literal["group", "lineage"]
MergeKind = Literal["concat", "channel", "spatial"]


@dataclass(frozen=True)
class UNetConfig:
    """Residual UNet of Eq. 14/15.

    widths: channels of each level, then of the middle; the last level keeps its resolution.
    unshuffle: pixel-unshuffle factor of the stem; 1 is the lineage's 7x7 convolution at full resolution.
    blocks: residual blocks per level, encoder and decoder alike.
    attention: `lineage` (linear attention, softmax in the middle), `channel` (pooled gate) or `none`.
    normalisation: `lineage` (weight-standardised convolutions, each followed by group normalisation) or `group` (one
        group normalisation a block; nothing left to fold, and it trains several times faster than none).
    affine_head: predict R = gain * x_in + offset instead of R itself. Low light and haze are affine in the input,
        and a narrow low-resolution stem alone cannot carry every pixel of a noise residual.
    """

    widths: tuple[int, ...]
    unshuffle: int = 1
    blocks: int = 2
    attention: AttentionKind = "lineage"
    normalisation: NormalisationKind = "lineage"
    affine_head: bool = False

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 2))


@dataclass(frozen=True)
class FusionConfig:
    """Degrade-fusion network of section 3.2: two four-level streams, cross-attention, decoder, refinement.

    widths, blocks, decoder_blocks, heads, windows, merges: one value per level, L1 (shallow) to L4 (deep). The paper
        puts a block into every level of the streams and into the refinement; it leaves the decoder's open.
    unshuffle: pixel-unshuffle factor of the stems; 1 is the paper's full resolution.
    windows: side of the spatial attention windows; keys reach windows // 4 further on each side.
    merges: how the streams meet: `channel` or `spatial` cross-attention before the 1x1 merge, or the merge alone.
    expansion: width of the gated feed-forward over that of its level.
    gated_head: the output is visible + gate * (infrared - visible luma) + correction, so that detail passes at full
        resolution and colour is kept by construction; otherwise the picture itself is predicted.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    windows: tuple[int, ...] = (8, 8, 8, 8)
    merges: tuple[MergeKind, ...] = ("channel", "channel", "channel", "channel")
    refinement_blocks: int = 1
    expansion: float = 2.66
    unshuffle: int = 1
    gated_head: bool = False

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this, so that every level is cut into whole windows."""
        return math.lcm(*(self.unshuffle * 2**level * window for level, window in enumerate(self.windows)))


@dataclass(frozen=True)
class ModelConfig:
    """Both networks of one model and what they were trained with."""

    name: str
    unet: UNetConfig
    fusion: FusionConfig
    schedule: str = "rddm09"
    default_steps: int = 3

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return math.lcm(self.unet.size_multiple, self.fusion.size_multiple)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Rebuild what `as_dict` returned; lists become tuples again."""

        def tupled(part: dict[str, Any]) -> dict[str, Any]:
            return {key: tuple(v) if isinstance(v, list) else v for key, v in part.items()}

        return cls(
            **{
                **values,
                "unet": UNetConfig(**tupled(values["unet"])),
                "fusion": FusionConfig(**tupled(values["fusion"])),
            }
        )


_PAPER_FUSION = FusionConfig(widths=(48, 96, 192, 384))


def _lineage(name: str, dim: int, multipliers: tuple[int, ...]) -> ModelConfig:
    widths = (dim, *(dim * m for m in multipliers))
    return ModelConfig(name, UNetConfig(widths), _PAPER_FUSION, schedule="diffuir")


PRESETS: dict[str, ModelConfig] = {
    preset.name: preset
    for preset in (
        # The lineage's four sizes (DiffUIR), with a fusion net of the size its blocks were published in.
        _lineage("T", 32, (1, 1, 1, 1)),
        _lineage("S", 32, (1, 2, 2, 4)),
        _lineage("B", 64, (1, 2, 2, 4)),
        _lineage("L", 64, (1, 2, 4, 8)),
        # Two CPU cores, live: everything at a quarter of the resolution or below.
        ModelConfig(
            "nano",
            UNetConfig(
                (32, 32, 64, 96), unshuffle=4, blocks=1, attention="channel", normalisation="group", affine_head=True
            ),
            FusionConfig(
                (16, 32, 48, 64),
                decoder_blocks=(0, 0, 0, 0),
                heads=(1, 2, 3, 4),
                windows=(4, 4, 4, 4),
                merges=("concat", "concat", "channel", "channel"),
                expansion=2.0,
                unshuffle=4,
                gated_head=True,
            ),
        ),
        # Jetson class: half resolution, tensor-core widths.
        ModelConfig(
            "edge",
            UNetConfig((32, 32, 64, 128), unshuffle=2, attention="channel", normalisation="group", affine_head=True),
            FusionConfig((32, 64, 96, 128), heads=(2, 4, 6, 8), windows=(8, 8, 8, 8), unshuffle=2, gated_head=True),
        ),
    )
}


def preset(name: str) -> ModelConfig:
    """Return the preset of that name; an unknown one is an OptionError."""
    if name not in PRESETS:
        raise OptionError(f"preset {name!r} is unknown; known: {', '.join(PRESETS)}")
    return PRESETS[name]
