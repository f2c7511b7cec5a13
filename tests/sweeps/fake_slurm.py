"""Commands named sbatch and squeue that run the tasks of array jobs on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

# Runs the tasks in turn, as in the real script: a status that a restart can help runs one again.
# The queue is a folder with a file for each task that has not ended. Every second answer of squeue
# lacks all of them while there is a file `forgets`, to which each answer adds a byte.
_SBATCH = """
import json, os, subprocess, sys
from pathlib import Path
queue = Path(__file__).parent / "queue"
words = sys.argv[1:]
if (queue.parent / "refuses").exists():
    sys.exit("sbatch: error: invalid partition specified: gpu")
at = next(i for i, word in enumerate(words) if word.endswith("train.sbatch"))
options = dict(word.partition("=")[::2] for word in words[:at])
last = int(options["--array"].partition("%")[0].removeprefix("0-"))
tasks = [f"{options['--job-name']}|{index}" for index in range(last + 1)]
for task in tasks:
    (queue / task).write_text("PENDING")
with open(queue.parent / "submitted", "a") as file:
    print(json.dumps(words[:at]), file=file)
print("7;cluster", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(null, number)
while (queue.parent / "held").exists() and any((queue / task).exists() for task in tasks):
    subprocess.run(["sleep", "0.05"])
for index, task in enumerate(tasks):
    if not (queue / task).exists():  # cancelled
        continue
    (queue / task).write_text("RUNNING")
    status = 75
    while status in (75, 77, 134, 137, 143):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(index)}
        status = subprocess.run(words[at + 1:], env=environment).returncode
    (queue / task).unlink()
"""
_SQUEUE = """
import sys
from pathlib import Path
if (Path(__file__).parent / "silent").exists():
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
forgets = Path(__file__).parent / "forgets"
if forgets.exists():
    forgets.write_text(forgets.read_text() + ".")
    if forgets.stat().st_size % 2 == 0:
        sys.exit()
names = next(w for w in sys.argv if w.startswith("--name=")).removeprefix("--name=").split(",")
for path in (Path(__file__).parent / "queue").iterdir():
    if path.name.partition("|")[0] in names:
        print(f"{path.name}|{path.read_text()}")
"""


def install(folder: Path) -> None:
    """Writes the commands into a folder, which is to be put on the PATH."""
    (folder / "queue").mkdir(parents=True)
    for name, code in (("sbatch", _SBATCH), ("squeue", _SQUEUE)):
        (folder / name).write_text(f"#!{sys.executable} -IS\n{code}")
        (folder / name).chmod(0o755)
