"""Losing machines in the middle of a job."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import Workshop, details_of, ended, output_of, squares


def test_a_killed_worker_costs_time_and_nothing_else(own_mesh: Callable[..., DevMesh], workshop: Workshop) -> None:
    mesh = own_mesh(4)
    steward = mesh.nodes[0]
    job = workshop.submit(steward, workshop.job(16, seconds=1.0))
    victims: list[str] = []

    def runs_elsewhere() -> bool:
        """Some shard is done, so it is the middle, and some other node than the steward runs one."""
        tasks = [task for task in details_of(steward, job)["tasks"] if task["role"] == "shard"]
        victims[:] = [
            tried["node_id"]
            for task in tasks
            for tried in task["tries"]
            if tried["outcome"] == "running" and tried["node_id"] != steward.node_id
        ]
        return bool(victims) and any(task["status"] == "success" for task in tasks)

    assert wait_for(runs_elsewhere, 60)
    victim = next(node for node in mesh.nodes if node.node_id == victims[0])
    victim.kill()
    witness = next(node for node in mesh.nodes[1:] if node is not victim)
    done = ended(witness, job, within_s=120)
    assert (done.status, done.succeeded, done.failed, done.total_shards) == ("success", 16, 0, 16)
    assert json.loads(output_of(witness, job)) == squares(16)
    lost = [
        tried
        for task in details_of(witness, job)["tasks"]
        for tried in task["tries"]
        if tried["outcome"] in ("lost", "expired")
    ]
    assert lost
    assert {tried["node_id"] for tried in lost} == {victim.node_id}


def processes_of(job: str) -> list[Path]:
    """The processes that run tasks of a job."""
    name = f"MESH_JOB_ID={job[:4]}-{job[4:8]}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if name in (process / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_task_does_not_outlive_its_node(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, number: signal.Signals
) -> None:
    (node,) = own_mesh(1).nodes
    job = workshop.submit(node, workshop.job(2, seconds=300))
    assert wait_for(lambda: bool(processes_of(job)), 30)
    node.process.send_signal(number)
    node.process.wait(20)
    assert wait_for(lambda: not processes_of(job), 10), processes_of(job)


def test_a_node_comes_back_as_the_same_peer(own_mesh: Callable[..., DevMesh]) -> None:
    mesh = own_mesh(2)
    before = {node.node_id for node in mesh.nodes}
    mesh.close()
    again = own_mesh(2)
    assert {node.node_id for node in again.nodes} == before


def test_no_node_outlives_the_mesh_that_started_it(own_mesh: Callable[..., DevMesh]) -> None:
    mesh = own_mesh(2)
    node = mesh.nodes[1]
    assert node.process.stdin is not None
    node.process.stdin.close()  # what the kernel does when the starter is killed
    assert wait_for(lambda: not node.running, 10)
    assert node.process.returncode == 0
