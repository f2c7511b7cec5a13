"""Arrays to disk and back: this project's checkpoints and other people's formats."""
