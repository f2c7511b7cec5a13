"""Says which GPUs this machine has, without JAX, which would start them."""

from __future__ import annotations

import re
from pathlib import Path

from gpt2_jax.parallel.chips import Chip, chip_for


def local_gpu(proc: Path) -> Chip | None:
    """Returns the chip of this machine's NVIDIA GPUs, or None without any that is known.

    Args:
      proc: the folder in which the driver of Linux describes them (/proc).
    """
    for path in sorted(proc.glob("driver/nvidia/gpus/*/information")):
        try:
            text = path.read_text("utf-8", errors="replace")
        except OSError:
            continue
        if model := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE):
            return chip_for(model[1])
    return None
