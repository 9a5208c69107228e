"""Named evidence of degradations: what formulas measure, and how likely each kind is by these measures."""
