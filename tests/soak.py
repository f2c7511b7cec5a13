"""Runs killed with SIGKILL at seeded moments, also while saving, end like one that was not.

    python -m tests.soak --seed 0 --runs 40

Each run is started again until it is done. Then its parameters, optimizer state and losses, and the
digest of every row of every batch, must equal those of the uninterrupted run to the bit.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.recorded import recorded
from tests.runs import NO_SAMPLE, arrays, fill_lab, identical, losses, start

_STEPS, _EVERY = 20, 3
_FLAGS = (NO_SAMPLE, f"--config.checkpoint.every={_EVERY}", "--config.checkpoint.keep=2")


def begin(folder: Path) -> None:
    """Makes the config and the data of all runs, and the uninterrupted run."""
    fill_lab(folder)
    _, errors, status = _start(folder, "whole", None, random.Random(0))
    assert status == 0, errors


def soak(lab: Path, seed: int) -> collections.Counter[str]:
    """Kills a run and starts it again until it is done; returns how often it was killed at what.

    Raises:
      AssertionError: if it does not end like the uninterrupted run.
    """
    draw, name = random.Random(seed), f"killed-{seed}"
    kills: collections.Counter[str] = collections.Counter()
    while True:
        moments = ["start", "step", "save", "save", "commit"]
        moment = draw.choice(moments if not kills else [*moments, None, None])
        killed_at, errors, status = _start(lab, name, moment, draw)
        if status == 0:
            break
        assert status == -9, f"seed {seed}: status {status}: {errors}"
        kills[killed_at] += 1
    whole, workdir = lab / "whole", lab / name
    assert identical(arrays(workdir), arrays(whole)), f"seed {seed}: other arrays"
    assert losses(workdir) == losses(whole), f"seed {seed}: other losses"
    batches, expected = recorded(lab / f"{name}-rows"), recorded(lab / "whole-rows")
    same = {step: expected.get(step) for step in batches}
    assert batches == same and set(range(_STEPS)) <= set(batches), f"seed {seed}: other batches"
    left = [path.name for path in (workdir / "checkpoints").iterdir()]
    assert sorted(left) == ["18", "20"], f"seed {seed}: {left}"
    shutil.rmtree(workdir)
    return kills


def _start(
    lab: Path, name: str, moment: str | None, draw: random.Random
) -> tuple[str, str, int | None]:
    """Starts the run and kills it at that moment; returns (activity, errors, exit status)."""
    workdir, rows = lab / name, lab / f"{name}-rows"
    rows.mkdir(exist_ok=True)
    began = time.time()
    process = start(
        lab, workdir, *_FLAGS, devices=1, env={"RECORD_FOLDER": str(rows)}, module="tests.recorded"
    )
    if moment == "start":
        _sleep_or_end(process, draw.uniform(0, 6))
    elif moment == "step":
        count = draw.randrange(1, _STEPS)
        _wait(process, lambda: _lines(workdir / "metrics.jsonl") >= count)
        _sleep_or_end(process, draw.uniform(0, 0.03))
    elif moment == "save":
        step = draw.randrange(_EVERY, _STEPS + 1, _EVERY)
        _wait(process, lambda: _is_saving(workdir, began, step))
        _sleep_or_end(process, draw.choice([0.0, draw.uniform(0, 0.1)]))
    elif moment == "commit":  # the step has its name, and older ones are being removed
        step = draw.randrange(_EVERY, _STEPS + 1, _EVERY)
        _wait(process, (workdir / "checkpoints" / str(step)).exists)
        _sleep_or_end(process, draw.choice([0.0, draw.uniform(0, 0.03)]))
    doing = "saving" if _is_saving(workdir, began) else moment
    if moment is not None:
        process.kill()
    _, errors = process.communicate(timeout=300)
    return str(doing), errors, process.returncode


def _wait(process, condition) -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def _sleep_or_end(process, seconds: float) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.0005)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _is_saving(workdir: Path, began: float, from_step: int = 0) -> bool:
    """Returns whether a process that began at that time has a half-written checkpoint."""
    for path in workdir.glob("checkpoints/*.orbax-checkpoint-tmp"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > began and int(path.name.partition(".")[0]) >= from_step:
                return True
    return False


def main() -> int:
    """Soaks the requested number of runs, and prints what they were killed at."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first run (default 0)")
    parser.add_argument("--runs", type=int, default=40, help="how many (default 40)")
    args = parser.parse_args()
    began, kills = time.monotonic(), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder)
        begin(lab)
        for seed in range(args.seed, args.seed + args.runs):
            found = soak(lab, seed)
            kills += found
            print(f"seed {seed}: killed {dict(found)}, then identical", flush=True)
    seconds = time.monotonic() - began
    print(f"{args.runs} runs, {kills.total()} kills {dict(kills)}, all identical, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
