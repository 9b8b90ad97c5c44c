"""Losing machines in the middle of a job."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

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


SUMS = """
import json, os, pathlib, time
from PIL import Image
folder = pathlib.Path(os.environ["MESH_INPUT"])
task = json.loads((folder / "input.json").read_text())
time.sleep(0.5)
sums = [sum(Image.open(folder / tile["path"]).convert("L").tobytes()) for tile in task["tiles"]]
pathlib.Path(os.environ["MESH_OUTPUT"], "output.json").write_text(json.dumps(sums))
"""


def test_what_a_killed_worker_had_split_is_not_lost_with_it(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "mesh" / "node0").mkdir(parents=True)
    (tmp_path / "mesh" / "node0" / "node.toml").write_text("[policy]\naccept_work = false\n")
    mesh = own_mesh(3, slots=2)
    steward = mesh.nodes[0]
    image = Image.radial_gradient("L").resize((128, 128))
    image.save(workshop.folder / "image.png")
    workshop.model(SUMS, multi_node={"enabled": True, "split_mode": "tile", "tile_size": 32})
    path = workshop.folder / "tiles.json"
    path.write_text(json.dumps({"model": "./model", "input": {"image_url": "image.png"}, "shard_count": 16}))
    job = workshop.submit(steward, path)
    splitters: list[str] = []

    def first_shard_is_done() -> bool:
        tasks = details_of(steward, job)["tasks"]
        splitters[:] = [task["tries"][-1]["node_id"] for task in tasks if task["role"] == "split" and task["tries"]]
        return any(task["role"] == "shard" and task["status"] == "success" for task in tasks)

    assert wait_for(first_shard_is_done, 60)
    victim = next(node for node in mesh.nodes if node.node_id == splitters[0])
    assert victim is not steward
    victim.kill()
    done = ended(steward, job, within_s=120)
    assert (done.status, done.succeeded) == ("success", 16)
    assert sum(json.loads(output_of(steward, job))) == sum(image.tobytes())


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
