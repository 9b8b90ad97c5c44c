"""What a stranger runs first."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import infra

KEYS = {
    *("peers", "job_id", "total_shards", "succeeded", "failed", "merge_status", "output_hash"),
    *("per_node", "features", "features_unsplit", "seconds"),
}


def check_demo(folder: Path, *words: str) -> None:
    folder.chmod(0o755)
    found = infra("demo", "--json", *words, timeout_s=300, TMPDIR=str(folder)).json()
    assert found.keys() >= KEYS
    assert (found["peers"], found["total_shards"], found["succeeded"], found["failed"]) == (4, 16, 16, 0)
    assert found["merge_status"] == "success"
    assert found["features"] == found["features_unsplit"] > 500
    assert sum(1 for done in found["per_node"].values() if done["shards"]) >= 3
    assert sum(done["shards"] for done in found["per_node"].values()) == 16
    assert all(check["holds"] for check in found["checks"])
    assert not list(folder.iterdir()), "the demo left something behind"
    assert str(folder) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout


def test_the_demo_holds_in_the_sandbox(tmp_path: Path) -> None:
    check_demo(tmp_path)


@pytest.mark.docker
def test_the_demo_holds_in_containers(engine: None, tmp_path: Path) -> None:
    check_demo(tmp_path, "--runtime", "docker")
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "label=mesh.node"], capture_output=True, text=True, check=True
    )
    assert not left.stdout
