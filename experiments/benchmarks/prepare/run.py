"""Measures the speed and memory of `gpt2-jax prepare`, and what a SIGKILL costs.

    GPT2_JAX_DATA=FOLDER python experiments/benchmarks/prepare/run.py --megabytes 1000

Makes text of that size from the paragraphs of FOLDER's *.txt files in random order, as one file
and as files of 64 KB, in a temporary folder. Then, with psutil installed, it measures:

1. the wall clock of `prepare --tokenizer gpt2 --workers CORES` (including start-up, digests and
   shards) and of `bare.py` on the same text, in turn, and their ratio;
2. the largest sum of PSS over the processes of `prepare`, sampled every 0.2 s;
3. five runs that are killed with SIGKILL (the whole process group) at seeded moments and restarted,
   whose shards must be identical to those of an uninterrupted run;
4. whether 1, 2 and 4 workers and, if it is installed, Ray write the same shards.

It prints the result and writes it to results/<megabytes>mb.json.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

_HERE = Path(__file__).parent
_FILE_BYTES = 1 << 16
_SEED = 20
_KILLS = 5


def paragraphs() -> list[str]:
    """Returns every paragraph of the texts in the folder GPT2_JAX_DATA."""
    folder = Path(os.environ["GPT2_JAX_DATA"])
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))]
    return [part + "\n\n" for text in texts for part in text.split("\n\n") if part.strip()]


def write_text(folder: Path, size: int) -> dict[str, Path]:
    """Writes text of about `size` bytes, as one file and as many."""
    rng = random.Random(_SEED)
    source = paragraphs()
    paths = {"one file": folder / "one.txt", "many files": folder / "many"}
    paths["many files"].mkdir()
    written = number = 0
    with open(paths["one file"], "wb") as one:
        while written < size:
            text = "".join(rng.choices(source, k=400)).encode()
            one.write(text)
            written += len(text)
            for start in range(0, len(text), _FILE_BYTES):
                name = paths["many files"] / f"{number // 1000:04d}" / f"{number:07d}.txt"
                name.parent.mkdir(exist_ok=True)
                piece = text[start : start + _FILE_BYTES].decode("utf-8", "ignore")
                name.write_text(piece, "utf-8", newline="")
                number += 1
    return paths


def command(text: Path, out: Path, *words: str) -> list[str]:
    """Returns the command line of `gpt2-jax prepare`."""
    prepare = [sys.executable, "-m", "gpt2_jax", "prepare", "--input", str(text)]
    return [*prepare, "--out", str(out), *words]


def run(words: list[str]) -> tuple[float, float]:
    """Returns (seconds, largest sum of PSS in MB) of a process and its children."""
    began = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree_pss(process.pid))
        time.sleep(0.2)
    seconds = time.monotonic() - began
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}: {errors}")
    return seconds, peak / 1e6


def _tree_pss(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:  # the process has just ended
        pass
    return total


def sums(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def compare(text: Path, folder: Path, cores: int, rounds: int) -> tuple[dict[str, Any], Path]:
    """Runs `bare.py` and `prepare` in turn; returns the result and the last folder of shards."""
    bare, ours, peaks = [], [], []
    out = folder / f"out_{text.stem}"
    for _ in range(rounds):
        bare.append(run([sys.executable, str(_HERE / "bare.py"), str(text), str(cores)])[0])
        shutil.rmtree(out, ignore_errors=True)
        seconds, peak = run(command(text, out, "--workers", str(cores)))
        ours.append(seconds)
        peaks.append(peak)
    size = _size(text)
    result = {
        "megabytes": size / 1e6,
        "bare_tiktoken_seconds": bare,
        "prepare_seconds": ours,
        "prepare_megabytes_per_second": size / 1e6 / statistics.median(ours),
        "ratio": statistics.median(bare) / statistics.median(ours),
        "peak_pss_megabytes": max(peaks),
    }
    return result, out


def _size(path: Path) -> int:
    files = path.rglob("*.txt") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def kill_and_resume(text: Path, out: Path, whole: Path, cores: int, seconds: float) -> dict:
    """Kills a run at seeded moments and resumes it; returns whether its shards are identical."""
    rng = random.Random(_SEED)
    words = command(text, out, "--workers", str(cores))
    moments, parts, began = [], [], time.monotonic()
    for _ in range(_KILLS):
        # A resumed run has less to do, so the moments are in the first quarter of a complete run.
        moments.append(rng.uniform(0.02, 0.25) * seconds)
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments[-1])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        parts.append(len(list(out.parent.glob(f".{out.name}.preparing/parts/*.json"))))
        if out.exists():
            raise SystemExit("a run ended before it was killed: use more --megabytes")
    run(words)
    return {
        "killed_after_seconds": moments,
        "parts_done_after_each": parts,
        "seconds_in_all": time.monotonic() - began,
        "identical": sums(out) == sums(whole),
    }


def equal_engines(text: Path, folder: Path) -> dict[str, Any]:
    """Returns the sha256 of the first val shard of every engine, and whether all files agree."""
    ways = {f"{count} workers": ("--workers", str(count)) for count in (1, 2, 4)}
    if importlib.util.find_spec("ray"):
        ways["ray"] = ("--engine", "ray", "--workers", "2")
    digests = {}
    for number, (name, words) in enumerate(ways.items()):
        run(command(text, folder / f"way{number}", *words))
        digests[name] = sums(folder / f"way{number}")
    first = next(iter(digests.values()))
    return {
        "megabytes": _size(text) / 1e6,
        "val_sha256": {name: each["val_000000.bin"] for name, each in digests.items()},
        "identical": all(each == first for each in digests.values()),
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--equality_megabytes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="parent of the temporary folder")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {
        "command": f"python experiments/benchmarks/prepare/run.py --megabytes {args.megabytes} "
        f"--rounds {args.rounds} --equality_megabytes {args.equality_megabytes}",
        "date": datetime.date.today().isoformat(),
        "cores": cores,
        "load_before": os.getloadavg(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("tiktoken", "numpy")},
        },
    }
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        for name, text in write_text(folder, args.megabytes * 10**6).items():
            result[name], out = compare(text, folder, cores, args.rounds)
            seconds = statistics.median(result[name]["prepare_seconds"])
            killed = folder / f"killed_{text.stem}"
            result[name]["kills"] = kill_and_resume(text, killed, out, cores, seconds)
            shutil.rmtree(out)
            shutil.rmtree(killed)
            print(json.dumps({name: result[name]}, indent=1), file=sys.stderr, flush=True)
        (folder / "small").mkdir()
        small = write_text(folder / "small", args.equality_megabytes * 10**6)["one file"]
        result["engines"] = equal_engines(small, folder / "small")
    result["load_after"] = os.getloadavg()
    print(json.dumps(result, indent=1))
    (_HERE / "results").mkdir(exist_ok=True)
    path = _HERE / "results" / f"{args.megabytes}mb.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
