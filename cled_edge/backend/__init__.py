"""Inference backends: each runs the graphs of a bundle. Their SDKs are imported when one is made, not before."""
