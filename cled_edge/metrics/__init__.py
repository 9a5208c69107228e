"""How good fused and restored images are."""
