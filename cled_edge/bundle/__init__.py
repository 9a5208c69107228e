"""A bundle: a folder with a manifest and graphs, verified, signed, inspected."""
