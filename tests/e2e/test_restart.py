"""A node that was killed comes back with everything it had acknowledged, and the mesh goes on."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meshnode.client.errors import ClientError
from meshnode.devmesh import DevMesh, DevNode, wait_for
from tests.e2e.conftest import Workshop, details_of, ended, infra, output_of, squares

SHARDS = 16

Details = dict[str, Any]


def finished(details: Details) -> dict[str, Any]:
    """The tasks that have succeeded, by name, with all that was tried."""
    return {task["job_id"]: task["tries"] for task in details["tasks"] if task["status"] == "success"}


def receipts(details: Details) -> dict[str, list[str]]:
    """The signed receipts of each task."""
    found: dict[str, list[str]] = {}
    for receipt in details["receipts"]:
        found.setdefault(receipt["job_id"], []).append(receipt["signed"])
    return found


def in_the_middle(node: DevNode, job: str) -> Details:
    """The job's details when some of its shards are done, and others run."""
    seen: list[Details] = []

    def some_are_done() -> bool:
        seen.append(details_of(node, job))
        return seen[-1]["succeeded"] >= 3 and seen[-1]["running"] > 0

    assert wait_for(some_are_done, 60), seen[-1]
    assert seen[-1]["succeeded"] < SHARDS
    return seen[-1]


def check_nothing_was_lost(node: DevNode, job: str, before: Details, tmp_path: Path) -> None:
    """The job ended well, what had been done was not done again, and all of it can be proved and fetched."""
    done = ended(node, job, within_s=120)
    assert (done.status, done.succeeded, done.failed, done.total_shards) == ("success", SHARDS, 0, SHARDS)
    details = details_of(node, job)
    after = finished(details)
    for name, tries in finished(before).items():  # an output that only the dead node had may have been begun anew
        assert after[name][: len(tries)] == tries
        assert {tried["outcome"] for tried in after[name][len(tries) :]} <= {"revoked"}
    assert {name: receipts(details)[name] for name in receipts(before)} == receipts(before)
    (tmp_path / "details.json").write_text(json.dumps(details))
    assert infra("verify", tmp_path / "details.json", "--json").json()["ok"]
    target = tmp_path / "output.json"
    fetched = infra("output", "--job", job, "-o", target, "--api", node.api)
    assert fetched.code == 0, fetched
    assert json.loads(target.read_bytes()) == squares(SHARDS)


def test_a_killed_steward_goes_on_when_it_is_back(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, tmp_path: Path
) -> None:
    mesh = own_mesh(4)
    steward = mesh.nodes[0]
    job = workshop.submit(steward, workshop.job(SHARDS, seconds=1.0))
    before = in_the_middle(steward, job)
    assert before["steward"] == steward.node_id
    steward.kill()
    mesh.restart(steward)
    check_nothing_was_lost(mesh.nodes[2], job, before, tmp_path)


def test_accepted_is_kept_even_if_nothing_else_was_done(own_mesh: Callable[..., DevMesh], workshop: Workshop) -> None:
    mesh = own_mesh(2)
    steward, other = mesh.nodes
    job = workshop.submit(steward, workshop.job(4))
    steward.kill()
    mesh.restart(steward)
    assert ended(other, job).status == "success"
    assert json.loads(output_of(other, job)) == squares(4)


def test_a_power_cut_costs_what_was_running_and_nothing_else(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, tmp_path: Path
) -> None:
    mesh = own_mesh(4)
    job = workshop.submit(mesh.nodes[0], workshop.job(SHARDS, seconds=1.0))
    before = in_the_middle(mesh.nodes[1], job)
    for node in mesh.nodes:
        node.process.kill()
    for node in mesh.nodes:
        node.process.wait()
    mesh.restart(*mesh.nodes)
    check_nothing_was_lost(mesh.nodes[3], job, before, tmp_path)


def a_steward_and_its_worker(own_mesh: Callable[..., DevMesh], tmp_path: Path) -> DevMesh:
    (tmp_path / "mesh" / "node0").mkdir(parents=True)
    (tmp_path / "mesh" / "node0" / "node.toml").write_text("[policy]\naccept_work = false\n")
    return own_mesh(2, slots=2)


def runs_of(node: DevNode) -> int:
    with node.client() as client:
        return client.node()["runs"]


def test_a_killed_worker_hands_in_what_it_had_signed(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, tmp_path: Path
) -> None:
    mesh = a_steward_and_its_worker(own_mesh, tmp_path)
    steward, worker = mesh.nodes
    job = workshop.submit(steward, workshop.job(2, seconds=1.0))
    assert wait_for(lambda: details_of(worker, job)["running"] == 2, 60)
    steward.kill()  # so that nobody hears of the end of the tasks
    assert wait_for(lambda: runs_of(worker) == 0, 60)
    worker.kill()
    killed_at = datetime.now(UTC)
    mesh.restart(steward, worker)
    done = ended(worker, job)
    assert (done.status, done.succeeded) == ("success", 2)
    assert json.loads(output_of(steward, job)) == squares(2)
    shards = [receipt for receipt in details_of(steward, job)["receipts"] if receipt["shard_index"] is not None]
    assert len(shards) == 2
    assert all(datetime.fromisoformat(receipt["started_at"]) < killed_at for receipt in shards), "they were run again"


def test_a_killed_worker_runs_again_what_died_with_it(
    own_mesh: Callable[..., DevMesh], workshop: Workshop, tmp_path: Path
) -> None:
    mesh = a_steward_and_its_worker(own_mesh, tmp_path)
    steward, worker = mesh.nodes
    job = workshop.submit(steward, workshop.job(SHARDS, seconds=1.0))
    before = in_the_middle(steward, job)
    worker.kill()
    mesh.restart(worker)
    check_nothing_was_lost(steward, job, before, tmp_path)
    tries = [tried for task in details_of(steward, job)["tasks"] for tried in task["tries"]]
    # revoked: a receipt signed just before the kill is delivered after the task was already given out again
    assert {tried["outcome"] for tried in tries} <= {"success", "lost", "revoked"}
    assert any(tried["outcome"] != "success" for tried in tries), "nothing was running when it was killed"


def test_finished_jobs_are_there_after_all_nodes_were_restarted(
    own_mesh: Callable[..., DevMesh], workshop: Workshop
) -> None:
    mesh = own_mesh(3)
    job = workshop.submit(mesh.nodes[0], workshop.job(4))
    assert ended(mesh.nodes[1], job).status == "success"
    details, output, listed = seen_from(mesh.nodes[2], job)
    addresses = [node.address for node in mesh.nodes]
    mesh.close()
    again = own_mesh(3)
    assert [node.address for node in again.nodes] == addresses
    for node in again.nodes:
        assert seen_from(node, job) == (details, output, listed)


def seen_from(node: DevNode, job: str) -> tuple[Details, bytes, list[str]]:
    with node.client() as client:
        listed = [shown.full_id for shown in client.jobs()]
    return details_of(node, job), output_of(node, job), listed


def test_a_node_whose_disk_fails_ends_with_one_sentence_and_comes_back(
    own_mesh: Callable[..., DevMesh], workshop: Workshop
) -> None:
    mesh = own_mesh(2)
    failing, other = mesh.nodes
    job = workshop.submit(failing, workshop.job(4))
    assert ended(other, job).status == "success"
    longest = (failing.home / "journal.sqlite3-wal").stat().st_size
    resource.prlimit(failing.pid, resource.RLIMIT_FSIZE, (longest, longest))  # no file may grow any further
    with pytest.raises(ClientError):
        workshop.submit(failing, workshop.job(4))
    assert failing.process.wait(30) != 0
    assert "journal.sqlite3: the disk cannot be read or written" in failing.stderr()
    assert "Traceback" not in failing.stderr()
    mesh.restart(failing)
    assert ended(failing, job).status == "success"
    assert json.loads(output_of(failing, job)) == squares(4)
