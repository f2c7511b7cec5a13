#!/usr/bin/env python3
r"""Starts a training run on GKE: TPU slices as a JobSet, or the GPUs of one machine as a Job.

    launch/gke/submit.py --name gpt2 --chip v5e --topology 4x4 --image IMAGE \
        --data_bucket BUCKET --dry-run -- gpt2-jax train --config configs/gpt2_small.py \
        --config.data.path=/data/fineweb10B --workdir gs://BUCKET/gpt2
    launch/gke/submit.py --name gpt2 --chip h100 --image IMAGE --data_bucket BUCKET -- ...

It renders launch/gke/jobset.yaml or gpu_job.yaml and passes it to `kubectl apply`; with --dry-run,
it prints the manifest instead. The bucket with the token shards is mounted at /data. TPUs need the
JobSet controller in the cluster and a node pool of that topology; the service account accesses the
buckets by Workload Identity. The compiler flags of the chip come from launch/flags.sh inside the
image. It needs only the standard library.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import string
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from command_line import CommandLine, cannot_run, count, refuse

_HERE = Path(__file__).parent
# Chip -> (value of cloud.google.com/gke-tpu-accelerator, dimensions of a topology, chips per host
# in a slice of several hosts, most chips of a slice with one host), from GKE's table of TPU machine
# types (ct4p-hightpu-4t, ct5lp-hightpu-1t/4t/8t, ct5p-hightpu-4t, ct6e-standard-1t/4t/8t).
_TPUS = {
    "v4": ("tpu-v4-podslice", 3, 4, 4),
    "v5e": ("tpu-v5-lite-podslice", 2, 4, 8),
    "v5p": ("tpu-v5p-slice", 3, 4, 4),
    "v6e": ("tpu-v6e-slice", 2, 4, 8),
}
# Chip -> (value of cloud.google.com/gke-accelerator, GPUs per machine).
_GPUS = {"a100": ("nvidia-a100-80gb", 8), "h100": ("nvidia-h100-80gb", 8)}


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, applies or prints the manifest and returns the exit status."""
    args = _parse(argv)
    manifest = render(args)
    if args.dry_run:
        print(manifest, end="")
        return 0
    try:
        return subprocess.run(["kubectl", "apply", "-f", "-"], input=manifest, text=True).returncode
    except OSError as error:
        cannot_run("kubectl", error)


def render(args: argparse.Namespace) -> str:
    """Returns the manifest as YAML, with its values as JSON, which is valid YAML."""
    values = {
        "NAME": args.name,
        "IMAGE": args.image,
        "DATA_BUCKET": args.data_bucket,
        "MAX_RESTARTS": args.max_restarts,
        "GRACE": args.grace,
        "SERVICE_ACCOUNT": args.service_account,
        "COMMAND": ["launch/flags.sh", args.chip, *args.command],
    }
    if args.chip in _TPUS:
        accelerator, hosts, chips = _slice(args.chip, args.topology)
        values |= {"SLICES": args.slices, "HOSTS": hosts, "CHIPS": chips}
        selector = {
            "cloud.google.com/gke-tpu-accelerator": accelerator,
            "cloud.google.com/gke-tpu-topology": args.topology,
        }
    else:
        accelerator, values["CHIPS"] = _GPUS[args.chip]
        selector = {"cloud.google.com/gke-accelerator": accelerator}
    if args.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    values["NODE_SELECTOR"] = selector
    name = "jobset.yaml" if args.chip in _TPUS else "gpu_job.yaml"
    template = string.Template((_HERE / name).read_text(encoding="utf-8"))
    return template.substitute({key: json.dumps(value) for key, value in values.items()})


def _slice(chip: str, topology: str | None) -> tuple[str, int, int]:
    """Returns (accelerator, hosts, chips per host) of a slice."""
    accelerator, dimensions, chips_of_host, one_host = _TPUS[chip]
    example = "x".join(["4"] * dimensions)
    if topology is None:
        refuse(f"--topology is missing: name the slice of {chip}, such as {example}")
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (dimensions - 1), topology):
        refuse(f"--topology {topology}: {chip} has {dimensions} dimensions, such as {example}")
    chips = math.prod(map(int, topology.split("x")))
    if chips <= one_host:
        return accelerator, 1, chips
    if chips % chips_of_host:
        refuse(
            f"--topology {topology}: {chips} chips are not a multiple of {chips_of_host} per host"
        )
    return accelerator, chips // chips_of_host, chips_of_host


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandLine("launch/gke/submit.py", __doc__)
    parser.require("--name", "NAME", type=_name, help="name of the JobSet or Job")
    parser.require(
        "--chip", "CHIP", choices=[*_TPUS, *_GPUS], help="one of " + ", ".join([*_TPUS, *_GPUS])
    )
    parser.require("--image", "IMAGE", help="image built from launch/gke/Dockerfile")
    parser.require(
        "--data_bucket", "BUCKET", help="bucket with the token shards, mounted read-only at /data"
    )
    parser.add_argument(
        "--topology", metavar="4x4", help="chips of a TPU slice along each dimension"
    )
    parser.add_argument(
        "--slices", type=count, default=1, metavar="N", help="TPU slices of the run (default: 1)"
    )
    parser.add_argument("--spot", action="store_true", help="use Spot VMs")
    parser.add_argument(
        "--service_account",
        default="default",
        metavar="NAME",
        help="service account of the pods (default: default)",
    )
    parser.add_argument(
        "--max_restarts",
        type=count,
        default=100,
        metavar="N",
        help="restarts before giving up (default: 100)",
    )
    parser.add_argument(
        "--grace",
        type=count,
        default=300,
        metavar="SECONDS",
        help="time between SIGTERM and SIGKILL, enough for a step and a save (default: 300)",
    )
    args = parser.parse(argv)
    if args.chip in _GPUS and (args.topology or args.slices > 1):
        parser.error(f"--topology and --slices are for TPUs, not for {args.chip}")
    workdirs = [value for flag, value in itertools.pairwise(args.command) if flag == "--workdir"]
    workdirs += [word[10:] for word in args.command if word.startswith("--workdir=")]
    if local := [workdir for workdir in workdirs if not workdir.startswith("gs://")]:
        refuse(f"--workdir {local[0]}: the disk of a pod is lost with the pod: use gs://BUCKET/RUN")
    return args


def _name(text: str) -> str:
    # With "-slice-0-0" and random letters after it, a pod's name must stay a DNS label.
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"must be up to 40 lower-case letters, digits and dashes, a letter first, not {text!r}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
