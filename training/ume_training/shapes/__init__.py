"""Shapes: a procedural world of scenes, clips and pages with exact ground truth for T-CoTs."""
