"""Tokens a second and seconds an answer, as ratios within one run."""
