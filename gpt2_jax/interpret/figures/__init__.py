"""Draws what a model did with a text as figures for a paper, with matplotlib (extra `plots`)."""
