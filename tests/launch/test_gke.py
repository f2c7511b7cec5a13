"""Tests the manifests; check_manifests.py, in `make check`, tests that they are valid."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpt2_jax.cli import serve
from gpt2_jax.cli.verb import parse
from gpt2_jax.serve.security import HEALTH
from tests.launch.in_process import launch

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "launch" / "gke" / "submit.py"
_GOLDEN = Path(__file__).parent / "golden"
_NAMED = ("--name", "gpt2", "--image", "registry/gpt2:1", "--data_bucket", "texts")
_RUN = ("--", "gpt2-jax", "train", "--workdir", "gs://bucket/a: run")


def submit(*words):
    return launch("gke/submit.py", *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jobset", ("--chip", "v5e", "--topology", "4x4", "--slices", "2", "--spot")),
        (
            "gpu_job",
            (
                "--chip",
                "h100",
            ),
        ),
    ],
)
def test_the_manifest_is_the_one_on_record(name, words):
    done = submit(*_NAMED, *words, "--dry-run", *_RUN)
    assert done.returncode == 0, done.stderr
    golden = _GOLDEN / f"gke_{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()


@pytest.mark.parametrize(
    ("chip", "topology", "hosts", "chips"),
    [
        ("v4", "2x2x4", 4, 4),
        ("v5e", "1x1", 1, 1),
        ("v5e", "2x4", 1, 8),
        ("v5e", "4x4", 4, 4),
        ("v5e", "16x16", 64, 4),
        ("v5p", "2x2x1", 1, 4),
        ("v6e", "8x16", 32, 4),
    ],
)
def test_a_slice_has_the_hosts_of_its_topology(chip, topology, hosts, chips):
    text = submit(*_NAMED, "--chip", chip, "--topology", topology, "--dry-run", *_RUN).stdout
    assert re.findall(r"completions: (\d+)", text) == [str(hosts)]
    assert re.findall(r"google.com/tpu: (\d+)", text) == [str(chips)] * 2


def test_without_dry_run_kubectl_is_given_the_manifest(tmp_path):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@"\ncat >{tmp_path}/given\nexit 3\n')
    kubectl.chmod(0o755)
    words = (*_NAMED, "--chip", "h100")
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), *words, *_RUN],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/bin:/usr/bin"},
    )
    assert (done.returncode, done.stdout) == (3, "apply -f -\n")
    assert (tmp_path / "given").read_text() == submit(*words, "--dry-run", *_RUN).stdout


def test_the_image_has_what_the_manifest_runs():
    dockerfile = (_SCRIPT.parent / "Dockerfile").read_text()
    assert "COPY launch launch" in dockerfile and "USER train" in dockerfile
    copied = re.findall(r"^COPY ([^\n]+) \S+$", dockerfile, re.MULTILINE)
    allowed = (_SCRIPT.parent / "Dockerfile.dockerignore").read_text().splitlines()
    for words in copied:
        for word in words.split():
            assert (_ROOT / word).exists() and f"!{word.partition('/')[0]}" in allowed, word


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*_NAMED, *_RUN), "--chip"),
        ((*_NAMED, "--chip", "v7", *_RUN), "v7"),
        ((*_NAMED, "--chip", "v5e", *_RUN), "--topology is missing"),
        ((*_NAMED, "--chip", "v5e", "--topology", "2x2x4", *_RUN), "2 dimensions"),
        ((*_NAMED, "--chip", "v5e", "--topology", "3x5", *_RUN), "15 chips"),
        ((*_NAMED, "--chip", "h100", "--topology", "4x4", *_RUN), "for TPUs"),
        ((*_NAMED, "--chip", "h100"), "the command is missing: put it after --"),
        ((*_NAMED, "--chip", "h100", "--grace", "0", *_RUN), "--grace: must be an integer"),
        (
            (*_NAMED, "--chip", "h100", "--", "run", "--workdir", "/tmp/a"),
            "--workdir /tmp/a: the disk of a pod",
        ),
        (
            (*_NAMED, "--chip", "h100", "--", "run", "--workdir=runs/a"),
            "--workdir runs/a: the disk of a pod",
        ),
        (
            ("--name", "GPT_2", "--image", "i", "--data_bucket", "b", "--chip", "h100", *_RUN),
            "GPT_2",
        ),
    ],
)
def test_wrong_input_is_one_line(words, message):
    done = submit(*words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_server_of_the_manifest_is_the_one_that_its_probes_and_service_ask():
    text = (_SCRIPT.parent / "serving.yaml").read_text()
    deployment, service = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["command"][:2] == ["gpt2-jax", "serve"]
    args = parse("serve", serve, container["command"][2:])
    serve._check(args)

    (port,) = container["ports"]
    assert args.host == "0.0.0.0" and port["containerPort"] == args.port
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": HEALTH, "port": port["name"]}
    name = service["metadata"]["name"]
    assert args.allowed_host == [name, f"{name}.default.svc.cluster.local"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]

    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > float(pause) + args.grace + 5
    (volume,), (mount,) = pod["spec"]["volumes"], container["volumeMounts"]
    (item,) = volume["secret"]["items"]
    assert volume["name"] == mount["name"]
    assert args.api_key_file == f"{mount['mountPath']}/{item['path']}"
    dockerfile = (_SCRIPT.parent / "Dockerfile").read_text()
    assert f"--uid {container['securityContext']['runAsUser']} train" in dockerfile
