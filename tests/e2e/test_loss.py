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
from tests.e2e.conftest import Workshop, details_of, ended, infra, output_of, squares


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


def test_a_killed_steward_is_succeeded_and_its_job_ends(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, tmp_path: Path
) -> None:
    """It never comes back: a witness looks after the job, repeats nothing finished, and all of it can be proved."""
    mesh = own_mesh(4)
    steward, *others = mesh.nodes
    job = workshop.submit(steward, workshop.job(16, seconds=1.0))
    assert wait_for(lambda: details_of(others[0], job)["succeeded"] >= 3, 60)
    before = details_of(others[0], job)
    steward.kill()
    for node in others:
        done = ended(node, job, within_s=120)
        assert (done.status, done.succeeded, done.failed, done.total_shards) == ("success", 16, 0, 16)
        assert done.steward != steward.node_id
        assert json.loads(output_of(node, job)) == squares(16)
    details = details_of(others[1], job)
    assert {one["signed"] for one in before["receipts"]} <= {one["signed"] for one in details["receipts"]}
    (tmp_path / "details.json").write_text(json.dumps(details))
    assert infra("verify", tmp_path / "details.json", "--json").json()["ok"]
    assert [one["full_id"] for one in infra("jobs", "--json", "--api", others[2].api).json()] == [job]
    text = infra("job", "--id", job, "--details", "--api", others[2].api)
    assert f"took over  {done.steward} since ballot 0." in text.out, text


def test_a_job_whose_witnesses_are_gone_is_provisional_until_one_is_back(
    own_mesh: Callable[..., DevMesh], workshop: Workshop
) -> None:
    mesh = own_mesh(3)
    steward, *witnesses = mesh.nodes
    job = workshop.submit(steward, workshop.job(4, seconds=1.0))
    for node in witnesses:
        node.kill()

    def is_provisional() -> bool:
        with steward.client() as client:
            return client.job(job).provisional is not None

    assert wait_for(is_provisional, 90)
    with steward.client() as client:
        found = client.job(job)
        assert (found.status, found.output_hash) == ("running", None)
        assert client.cancel(job, timeout_s=1).status == "requested"
    mesh.restart(witnesses[0])
    assert ended(steward, job).status in ("success", "cancelled")


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
