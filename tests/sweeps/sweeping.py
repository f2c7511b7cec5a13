"""What tests of sweeps share: a base config, and a command that pretends to train."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from gpt2_jax.sweeps import Sweep
from gpt2_jax.sweeps.engines.engine import Log
from gpt2_jax.sweeps.engines.local import LocalEngine
from gpt2_jax.sweeps.engines.slots import Slot
from gpt2_jax.sweeps.folder import SweepFolder
from gpt2_jax.sweeps.runner import SweepEnd, run_sweep
from gpt2_jax.sweeps.stages import Stages
from tests.cli.refusals import CONFIG

ROOT = str(Path(__file__).parents[2])
TOKENS = 8 * 32  # of a step of CONFIG

ATTEMPTS = [
    ([0], "done"),
    ([75, 75, 75, 0], "done"),  # stopped by something else: as often as it takes
    ([76], "diverged"),  # a result
    ([2], "failed"),
    ([1], "failed"),
    ([77, 0], "done"),
    ([78, 0], "done"),
    ([77, 77], "failed"),
    ([78, 78], "failed"),
    ([77, 78], "failed"),  # not twice in a row, whichever it is
    ([77, 76], "diverged"),
    ([-9, 0], "done"),
    ([-9, -9], "failed"),
    ([-9, 78], "failed"),
    ([-14, 0], "done"),
    ([-14, -14], "failed"),
    ([75, 78, 75, 0], "done"),
    ([77, 75, -9, 75, 77, 0], "done"),
]
"""The exit statuses of a point's attempts, negative for a signal, and the state that it ends in."""

# Trains in ten steps of a hundredth of a second, each of which is saved. Its exit statuses are in
# the file beside it, by seed and attempt: a run without an entry succeeds.
_FAKE = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
values = dict(word[9:].split("=") for word in words if word.startswith("--config."))
workdir = pathlib.Path(words[words.index("--workdir") + 1])
seed = values["train.seed"]
workdir.mkdir(parents=True, exist_ok=True)
with open(workdir / "starts", "a") as file:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(json.dumps([time.time(), cores, gpus]), file=file)
attempt = len((workdir / "starts").read_text().splitlines()) - 1
plan = json.loads((pathlib.Path(__file__).parent / "plan.json").read_text())
statuses = plan.get(seed, [])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
done = workdir / "step"
step = int(done.read_text()) if done.exists() and done.read_text() else 0
while step < 10:
    time.sleep(plan.get("seconds", 0.0))
    step += 1
    with open(workdir / "next", "w") as file:
        file.write(str(step))
    os.replace(workdir / "next", done)
    if stopped:
        sys.exit(75)
note = {"environment": {"device": plan.get("device", "1 x cpu")}}
note |= {"compiled": [] if attempt else ["step"], "loaded": ["step"] if attempt else []}
pathlib.Path(os.environ["GPT2_JAX_RUN_INFO"]).write_text(json.dumps(note))
status = statuses[attempt] if attempt < len(statuses) else 0
loss = float(values.get("schedule.learning_rate", 0.5)) + int(seed) / 1000
lines = [json.dumps({"step": 1, "loss": 1.0}), json.dumps({"step": 2, "eval/loss": loss})]
(workdir / "metrics.jsonl").write_text("".join(line + "\\n" for line in lines))
print("some progress")
if status:
    print("error: the reason for", status, flush=True)
if status < 0:
    os.kill(os.getpid(), -status)
(workdir / "ended").write_text(str(time.time()))
sys.exit(status)
"""


class House:
    """A folder with a base config, data and a command that pretends to train."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        (folder / "tiny.py").write_text(CONFIG)
        (folder / "data").mkdir()
        (folder / "fake.py").write_text(_FAKE)
        self.train = (sys.executable, "-I", "-S", str(folder / "fake.py"))
        self.plan()
        self.log: list[str] = []

    def plan(
        self, statuses: dict[int, list[int]] | None = None, seconds: float = 0.0, device: str = "a"
    ) -> None:
        """Sets the exit statuses of the attempts by seed, the seconds of a step and the device."""
        values: dict[str, Any] = {str(seed): each for seed, each in (statuses or {}).items()}
        (self.folder / "plan.json").write_text(
            json.dumps(values | {"seconds": seconds, "device": device})
        )

    def stages(self, *args: Any, **settings: Any) -> Stages:
        """Returns a checked sweep on the base config."""
        return Stages(Sweep("tiny.py", *args, **settings))

    def run(self, stages: Stages, slots: list[Slot] | None = None) -> dict[str, int]:
        """Runs a sweep with the command that pretends to train."""
        return self.end(stages, slots).counts

    def end(self, stages: Stages, slots: list[Slot] | None = None) -> SweepEnd:
        """Returns all that is known at the end of a sweep that is run."""

        def make(folder: SweepFolder, base: str, log: Log) -> LocalEngine:
            return LocalEngine(folder, base, slots or [Slot()], train=self.train, log=log)

        return run_sweep(stages, "sweep.py", self.out, make, log=self.log.append)

    def table(self) -> list[dict[str, str]]:
        """Returns the lines of results.csv."""
        with open(self.out / "results.csv", newline="") as file:
            return list(csv.DictReader(file))

    def read(self, name: str, file: str) -> Any:
        """Returns a JSON file of a point."""
        return json.loads((self.out / "points" / name / file).read_text())

    def starts(self, name: str) -> list[list[Any]]:
        """Returns [time, cores, GPUs] of each start of a point."""
        text = (self.out / "points" / name / "run" / "starts").read_text()
        return [json.loads(line) for line in text.splitlines()]
