"""Models as other programs store them, and `load`, the one way to open any model."""
