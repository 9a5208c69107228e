"""What `fuse --evidence` says while it runs: a line a second of what the inputs show."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cled_edge.progress import print_line

if TYPE_CHECKING:
    from cled_edge.evidence.live_line import EvidenceLine
    from cled_edge.evidence.told import Evidence
    from cled_edge.frame import FusedFrame


class Watch:
    """A `Monitor` of `fuse_pairs` that looks for evidence. told: what the network says of a frame, `Fuser.kinds`."""

    def __init__(self, line: "EvidenceLine", told: "Callable[[FusedFrame], Evidence | None]") -> None:
        self.line, self.told = line, told

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Need no state of the run."""

    def show(self, frame: "FusedFrame") -> None:
        """Look at the inputs of a frame, if a second has gone by since the last one."""
        from cled_edge.image import grey_from_any, rgb_from_any  # noqa: PLC0415

        pair = frame.pair
        if pair is not None and not pair.degraded:
            self.line.see(
                lambda: (
                    grey_from_any(pair.infrared.image, pair.infrared.color_order),
                    rgb_from_any(pair.visible.image, pair.visible.color_order),
                ),
                lambda: self.told(frame),
            )


def evidence_line(console: Console) -> "EvidenceLine":
    """Return what looks at a pair a second and prints a line on the console."""
    from cled_edge.evidence.live_line import EvidenceLine  # noqa: PLC0415

    return EvidenceLine(lambda line: print_line(console, f"evidence: {line}"))
