"""How good fused and restored pictures are."""
