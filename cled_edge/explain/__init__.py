"""What the network did to a pair: every step of the loop, what each took away, and where the fused pixel came from."""

from cled_edge.explain.explanation import Explanation
from cled_edge.explain.recorder import explain

__all__ = ["Explanation", "explain"]
