"""Tasks beyond language modelling."""
