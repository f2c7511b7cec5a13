"""Says which packages are installed; every other fact about the project is in pyproject.toml.

The configs of the repository are installed into the package, where `--config NAME` finds them, and
so is the batch script with which `gpt2-jax sweep --engine slurm` submits jobs.
pyproject.toml cannot list packages both by a pattern and by a folder.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["gpt2_jax", "gpt2_jax.*"]),
        "gpt2_jax.configs",
        "gpt2_jax.slurm",
    ],
    package_dir={"gpt2_jax.configs": "configs", "gpt2_jax.slurm": "launch/slurm"},
    package_data={"gpt2_jax.slurm": ["train.sbatch"]},
)
