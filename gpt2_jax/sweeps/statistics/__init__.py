"""Statistics of sweeps: tests of differences, what a number of seeds can show, and verdicts."""
