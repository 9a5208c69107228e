"""How good fused and restored pictures are: metrics and the command that prints them."""
