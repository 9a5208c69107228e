"""No output: `none:` takes frames and keeps none, for a run that is watched on its page alone, or only timed."""

from cled_edge.frame import FusedFrame
from cled_edge.output.sink import Output


class Nowhere(Output):
    """Counts frames, as every output does, and lets go of them."""

    def write(self, frame: FusedFrame) -> bool:  # noqa: ARG002
        """Take a frame."""
        return True
