"""Write a checkpoint of a preset that nobody has trained, to export it and see what its graphs are and cost.

    python -m export.untrained edge runs/untrained/edge.safetensors

Its training record says `"weights": "untrained"`, and so do its bundle and the tables. Weights are random, also those
that start at 0 for training: a head that is 0 would hide what is before it, and verification would compare nothing.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from cled_edge.errors import one_line_errors
from cled_edge.network.checkpoint import save_checkpoint
from cled_edge.network.presets import preset
from cled_edge.network.sampler import CledFusion

_SPREAD = 0.05  # of parameters that start at 0


def untrained(name: str, seed: int) -> CledFusion:
    """Return the preset with random weights, none of them 0, in evaluation mode; OptionError for an unknown name."""
    config = preset(name)
    torch.manual_seed(seed)
    model = CledFusion(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, _SPREAD)
    return model.eval()


def main(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="nano, edge, T, S, B or L")],
    out: Annotated[Path, typer.Argument(help="safetensors file to write")],
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
) -> None:
    """Write PRESET with random weights to OUT."""
    model = untrained(name, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(model, {"weights": "untrained", "seed": seed}, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    with one_line_errors():
        typer.run(main)
