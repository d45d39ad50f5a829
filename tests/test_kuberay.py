"""The example for Kubernetes: who gets the token, and what its Job makes of exit codes."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCUMENTS = Path(__file__).parents[1] / "docs" / "cluster" / "kuberay.yaml"


def of_kind(kind: str) -> Any:
    return next(one["spec"] for one in yaml.safe_load_all(DOCUMENTS.read_text()) if one["kind"] == kind)


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (2, True), (75, True), (130, True), (143, True)])
def test_the_job_begins_again_until_the_study_is_done(code: int, again: bool, tmp_path: Path) -> None:
    job = of_kind("Job")
    container = job["template"]["spec"]["containers"][0]
    for name, ends in {"ray": 0, "harness": code}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nexit {ends}\n")
        program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([*container["command"], *container["args"]], env={"PATH": path}, check=False)
    assert (done.returncode != 0) == again and 0 < job["backoffLimit"] <= 100


def test_each_part_of_the_cluster_has_the_token_and_trials_fill_its_pods() -> None:
    cluster, job = of_kind("RayCluster"), of_kind("Job")["template"]["spec"]["containers"][0]
    workers = cluster["workerGroupSpecs"][0]
    pods = [group["template"]["spec"]["containers"][0] for group in (cluster["headGroupSpec"], workers)]
    for part in (cluster["autoscalerOptions"], *pods, job):
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= {variable["name"] for variable in part["env"]}
    assert f"--concurrency {workers['maxReplicas']} --gpus-per-trial 1" in job["args"][0]
