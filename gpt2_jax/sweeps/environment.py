"""Says which version of this project runs a sweep; its runs say what else they run on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_GIT_S = 20


def project_version() -> dict[str, str]:
    """Returns {"gpt2_jax": its version and, in a checkout, the commit and whether it changed}."""
    # The package is loaded; it names modules for type checkers that sweeps must not import.
    text = str(sys.modules["gpt2_jax"].__version__)
    checkout = Path(__file__).parents[2]
    if (checkout / ".git").exists():
        commit = _git(checkout, "rev-parse", "--short=12", "HEAD")
        if commit:
            changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
            text += f", commit {commit}" + (" with changes" if changed else "")
    return {"gpt2_jax": text}


def _git(folder: Path, *words: str) -> str:
    """Returns what git prints, or nothing if it fails, is missing or takes too long."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
