"""Mix two checkpoints: a share of the weights of FIRST, the rest of SECOND, each network by itself.

    python -m training.mix runs/new/model.safetensors training/weights/nano.safetensors runs/mixed.safetensors \
        --unet 0.85 --fusion 0

takes 0.85 of the restoration that a run has learnt, the rest of what it began from. Shares of 1 and 0 put the fusion
network of SECOND behind the UNet of FIRST. What a short run at a low rate became mixes with its beginning; what a long
run at a high rate became does not: half of each restores nothing. Measure what comes out. If FIRST has no network of
doubt, as after a run, that of SECOND stays, to be fitted again.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from cled_edge.errors import CheckpointError, one_line_errors
from cled_edge.files import make_folder
from cled_edge.network.checkpoint import load_checkpoint, save_checkpoint
from training.origin import with_doubt

Share = Annotated[float, typer.Option(min=0, max=1, help="of FIRST's weights in this network")]


def main(
    first: Annotated[Path, typer.Argument(help="model.safetensors")],
    second: Annotated[Path, typer.Argument(help="another of the same preset")],
    out: Annotated[Path, typer.Argument(help="checkpoint to write")],
    unet: Share = 1.0,
    fusion: Share = 1.0,
) -> None:
    """Write OUT, with the records of both: SECOND's, from which FIRST may have begun, then FIRST's and the mixture."""
    model, record = load_checkpoint(first)
    other, other_record = load_checkpoint(second)
    if model.doubt is None and other.doubt is not None:
        model = with_doubt(model, other.doubt)
    if model.config != other.config:
        raise CheckpointError(
            f"{first} is a {model.config.name!r} and {second} a {other.config.name!r}, or their shapes differ; "
            "mix two of the same"
        )
    for network, rest, share in ((model.unet, other.unet, unet), (model.fusion, other.fusion, fusion)):
        weights = rest.state_dict()
        for name, own in network.state_dict().items():
            if own.is_floating_point():
                own.copy_(torch.lerp(weights[name].float(), own.float(), share))
    before = _records(other_record)
    make_folder(out.parent)
    *earlier, last = [*before, *(entry for entry in _records(record) if entry not in before)]
    shares = {"unet": unet, "fusion": fusion}
    mixed = [*_listed(last.get("mixed", [])), shares]  # it may have been a mixture before
    save_checkpoint(model, {**last, "mixed": mixed, "earlier": earlier}, out)


def _records(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was trained, the last one last."""
    return [*record.get("earlier", []), {name: value for name, value in record.items() if name != "earlier"}]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
