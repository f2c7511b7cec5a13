"""Reads and writes models in every supported format; `load.load` opens any of them."""
