"""Validates launch/gke's manifests against the schemas; `make check` runs it.

They are what launch/gke/submit.py renders, and launch/gke/serving.yaml as it is.

Kubernetes' own kinds by kubernetes-validate, strictly; a JobSet by the types that Kubeflow
generates from JobSet's own definitions, and each Job in it as a Job.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

_GKE = Path(__file__).parents[2] / "launch" / "gke"
_SUBMIT, _SERVING = _GKE / "submit.py", _GKE / "serving.yaml"
_KUBERNETES = ("1.31", "1.37")  # the oldest that GKE still has, and the newest there is a schema of
_NAMED = ("--name", "run", "--image", "image:1", "--data_bucket", "texts")
_CASES = (
    ("--chip", "v4", "--topology", "2x2x4"),
    ("--chip", "v5e", "--topology", "16x16", "--slices", "2", "--spot"),
    ("--chip", "v6e", "--topology", "2x4"),
    ("--chip", "a100", "--spot"),
    ("--chip", "h100", "--service_account", "trainer"),
)


def main() -> None:
    """Renders every case and raises the validator's error for the first that is not valid."""
    for case in _CASES:
        words = [*case, *_NAMED, "--dry-run", "--", "gpt2-jax", "a: b"]
        done = subprocess.run(
            [sys.executable, _SUBMIT, *words], check=True, capture_output=True, text=True
        )
        for job in _jobs(yaml.safe_load(done.stdout)):
            _validate(job)
    for part in yaml.safe_load_all(_SERVING.read_text(encoding="utf-8")):
        _validate(part)
    print(f"{len(_CASES) + 1} manifests are valid for Kubernetes {' and '.join(_KUBERNETES)}")


def _validate(manifest: dict) -> None:
    for version in _KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


def _jobs(manifest: dict) -> list[dict]:
    if manifest["kind"] == "Job":
        return [manifest]
    jsonschema.validate(manifest, _jobset_schema())
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
    return [head | job["template"] for job in manifest["spec"]["replicatedJobs"]]


def _jobset_schema() -> dict:
    """Returns a JSON Schema of JobSet that refuses unknown fields, as Kubernetes does."""
    schema = JobsetV1alpha2JobSet.model_json_schema(by_alias=True)
    for definition in (schema, *schema["$defs"].values()):
        if "actual_instance" in definition.get("properties", {}):  # a quantity, or a port by name
            definition.clear()
            definition["type"] = ["number", "string"]
        elif "properties" in definition:
            definition["additionalProperties"] = False
    return schema


if __name__ == "__main__":
    main()
