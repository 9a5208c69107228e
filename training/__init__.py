"""Two-stage training of CLED-Fusion: restoration, then fusion. Programs to run, never installed."""
