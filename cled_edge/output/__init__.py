"""Where fused frames go."""
