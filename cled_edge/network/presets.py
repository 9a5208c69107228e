"""The configurations of both networks and the named presets, as data (no torch needed to read them)."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cled_edge.errors import OptionError

UNetForm = Literal["lineage", "patch", "experts"]
MergeKind = Literal["concat", "channel", "spatial"]
RefinementKind = Literal["transformer", "convolution"]
FusionForm = Literal["paper", "light"]
# The kinds of degradation that a checkpoint tells apart if its configuration names none. So this never changes: a new
# kind stands in the configuration of the models that were trained on it.
KINDS = ("haze", "rain", "blur", "overexposure", "low_light", "noise", "low_contrast", "stripes")


@dataclass(frozen=True)
class UNetConfig:
    """Residual UNet of Eq. 14/15.

    form: `lineage` (DiffUIR's network, at full resolution), `patch` (ours, see cled_edge/network/unet.py) or `experts`
        (our loop of light steps, see cled_edge/network/experts.py).
    widths: channels of each level. The lineage counts its middle as one; its last level keeps its resolution.
    unshuffle: side of the patches that become channels; 1 in the lineage.
    encoder_blocks, decoder_blocks: residual blocks of each level; the last one has both on the way down and up.
    inner: channels between the two convolutions of each expert; none but in `experts`, which has one or two.
    """

    form: UNetForm
    widths: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    unshuffle: int = 1
    inner: tuple[int, ...] = ()

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        halvings = len(self.widths) - (2 if self.form == "lineage" else 1)
        return int(self.unshuffle * 2**halvings)


@dataclass(frozen=True)
class FusionConfig:
    """Degrade-fusion network of section 3.2: two four-level streams, cross-attention, decoder, refinement.

    widths, blocks, decoder_blocks, heads, windows, merges: one value per level, L1 (shallow) to L4 (deep). The paper
        puts a block into every level of the streams and into the refinement; it leaves the decoder's open.
    unshuffle: side of the patches that become channels at the stems; 1 is the paper's full resolution.
    windows: side of the spatial attention windows, a multiple of 4, or 0 for TSAB alone; keys reach windows // 4
        further on each side.
    merges: how the streams meet: `channel` or `spatial` cross-attention before the 1x1 merge, or the merge alone.
    refinement: blocks after the decoder, at L1: the paper's, or residual pairs of 3x3 convolutions.
    expansion: width of the gated feed-forward over that of its level.
    mix: the network corrects a rule that mixes the sources at full resolution (the target of Eq. 16); otherwise it
        draws the image itself.
    detail: features that `mix` also draws from the lumas of both images, or 0. The patches' factor^2 pixels each get
        three numbers of what the finest level holds, which, narrower than that, cannot say them one by one.
    form: `paper` is all of the above. `light` is cled_edge/network/light_fusion.py. There widths are of both streams
        together, and of L1 after the merge; blocks are residual pairs of convolutions, none in L1; detail is the inner
        width of the refinement, whose blocks are such pairs. It always mixes. The decoder's blocks, heads, windows,
        merges and the kind of refinement have no part in it.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    windows: tuple[int, ...] = (8, 8, 8, 8)
    merges: tuple[MergeKind, ...] = ("channel", "channel", "channel", "channel")
    refinement: RefinementKind = "transformer"
    refinement_blocks: int = 1
    expansion: float = 2.66
    unshuffle: int = 1
    mix: bool = False
    detail: int = 0
    form: FusionForm = "paper"

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))


@dataclass(frozen=True)
class DoubtConfig:
    """Network that says how far an estimate may be off, and draws samples, cled_edge/network/doubt.py.

    widths: channels at patches of 4, 8 and 16 pixels.
    """

    widths: tuple[int, int, int] = (32, 48, 64)

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 32


@dataclass(frozen=True)
class ModelConfig:
    """Both networks of one model and what they were trained with.

    kinds: the degradations that the UNet tells apart while it is trained, in the order of its logits. They change
        nothing else: no graph and no restored image depends on them.
    doubt: None is a model without such a network. It is fitted last, and changes nothing of the others.
    tints_grey: whether it tells an infrared image by its being grey, so that a grey visible one needs a tint.
    """

    name: str
    unet: UNetConfig
    fusion: FusionConfig
    schedule: str = "rddm09"
    default_steps: int = 3
    kinds: tuple[str, ...] = KINDS
    doubt: DoubtConfig | None = None
    tints_grey: bool = False

    def __post_init__(self) -> None:
        """Refuse a kind named twice, and two patch sizes: the loop hands patches from one network to the other."""
        twice = next((kind for kind in self.kinds if self.kinds.count(kind) > 1), None)
        if twice is not None:
            raise OptionError(f"{self.name}: kinds has {twice!r} twice; each kind needs one place; remove one")
        if self.unet.unshuffle != self.fusion.unshuffle:
            raise OptionError(
                f"{self.name}: the UNet cuts patches of {self.unet.unshuffle} pixels, the fusion net of "
                f"{self.fusion.unshuffle}; they must be the same"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return math.lcm(*(part.size_multiple for part in (self.unet, self.fusion, self.doubt) if part))

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
                **tupled(values),
                "unet": UNetConfig(**tupled(values["unet"])),
                "fusion": FusionConfig(**tupled(values["fusion"])),
                "doubt": DoubtConfig(**tupled(values["doubt"])) if values.get("doubt") else None,
            }
        )


_PAPER_FUSION = FusionConfig(widths=(48, 96, 192, 384))


def _lineage(name: str, dim: int, multipliers: tuple[int, ...]) -> ModelConfig:
    widths = (dim, *(dim * m for m in multipliers))
    blocks = (2,) * (len(widths) - 1)
    return ModelConfig(name, UNetConfig("lineage", widths, blocks, blocks), _PAPER_FUSION, schedule="diffuir")


_ONE_PASS = UNetConfig("patch", (48, 48, 64, 96), encoder_blocks=(0, 1, 1, 2), decoder_blocks=(1, 1, 0, 0), unshuffle=4)
_ONE_PASS_FUSION = FusionConfig(
    (16, 24, 32, 48),
    blocks=(0, 1, 1, 1),
    decoder_blocks=(0, 0, 0, 0),
    heads=(1, 1, 1, 2),
    windows=(0, 0, 8, 4),
    merges=("concat", "concat", "channel", "channel"),
    refinement="convolution",
    expansion=2.0,
    unshuffle=4,
    mix=True,
    detail=32,
)
PRESETS: dict[str, ModelConfig] = {
    preset.name: preset
    for preset in (
        # The lineage's four sizes (DiffUIR), with a fusion net of the size its blocks were published in.
        _lineage("T", 32, (1, 1, 1, 1)),
        _lineage("S", 32, (1, 2, 2, 4)),
        _lineage("B", 64, (1, 2, 2, 4)),
        _lineage("L", 64, (1, 2, 4, 8)),
        # Two CPU cores, live. What was tried is in benchmarks/candidates.toml at the tag studies-2026-11.
        ModelConfig(
            "one-pass",
            _ONE_PASS,
            _ONE_PASS_FUSION,
            default_steps=1,
        ),
        # The same network as the second step of a loop of light steps; a fusion net of a sixth of the nodes.
        ModelConfig(
            "nano",
            replace(_ONE_PASS, form="experts", inner=(48,)),
            FusionConfig(
                (32, 64, 96, 96),
                blocks=(0, 0, 1, 0),
                refinement_blocks=2,
                expansion=2.0,
                unshuffle=4,
                mix=True,
                detail=32,
                form="light",
            ),
            schedule="rddm09-noiseless",
            default_steps=2,
            tints_grey=True,
        ),
        # Jetson class: half the patch side, tensor-core widths, attention in every level.
        ModelConfig(
            "edge",
            UNetConfig(
                "patch", (48, 96, 128, 160), encoder_blocks=(1, 1, 1, 2), decoder_blocks=(1, 1, 1, 0), unshuffle=2
            ),
            FusionConfig(
                (32, 48, 64, 96),
                blocks=(0, 1, 1, 1),
                decoder_blocks=(0, 1, 1, 1),
                heads=(1, 3, 4, 6),
                windows=(0, 8, 8, 8),
                refinement="convolution",
                expansion=2.0,
                unshuffle=2,
                mix=True,
            ),
            default_steps=1,
        ),
    )
}


def preset(name: str) -> ModelConfig:
    """Return the preset of that name; an unknown one is an OptionError."""
    if name not in PRESETS:
        raise OptionError(f"preset {name!r} is unknown; known: {', '.join(PRESETS)}")
    return PRESETS[name]
