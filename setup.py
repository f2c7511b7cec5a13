"""Says which packages are installed; every other fact about the project is in pyproject.toml.

The configs of the repository are installed into the package, where `--config NAME` finds them.
pyproject.toml cannot list packages both by a pattern and by a folder.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gpt2_jax", "gpt2_jax.*"]), "gpt2_jax.configs"],
    package_dir={"gpt2_jax.configs": "configs"},
)
