"""Entry for tools that still call setup.py; every fact about the project is in pyproject.toml."""

from setuptools import setup

setup()
