"""What a restart costs: nothing that was acknowledged. Every story is told for many moments of the crash."""

from __future__ import annotations

import pytest

from protocol.errors import LocalProtocolError
from protocol.limits import Limits
from protocol.messages import Progress, Revoke, StatusReply
from protocol.wire import Role, Task
from tests.protocol.lone import Lone
from tests.protocol.mesh import Mesh

MOMENTS_S = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.28, 0.3, 0.32, 0.34, 0.36, 0.4, 0.5, 1.0]
"""From the instant of "accepted" until the job is long over."""


def mesh_of_four() -> Mesh:
    mesh = Mesh("ann", "bob", "cat", "dan")
    mesh.run_for(3)
    mesh.shards = 12
    return mesh


def essence(reply: StatusReply) -> object:
    """What is shown of finished tasks: it may only grow."""
    return {task.task: task.receipt for task in reply.tasks if task.receipt is not None}


@pytest.mark.parametrize("moment", MOMENTS_S)
def test_a_steward_that_restarts_goes_on_and_repeats_nothing_finished(moment: float) -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", alias="stars", shard_count=12)
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(moment)
    before = mesh.status("ann", spec, start=0)
    own = {run.task for peer, run in mesh.runs if peer == mesh.ids["ann"]}
    mesh.restart("ann")
    after = mesh.status("ann", spec, start=0)
    assert after.view.status in (before.view.status, "running")
    assert essence(after) == essence(before)
    mesh.run_for(40)
    done = mesh.status("bob", spec, start=0)
    assert (done.view.status, done.view.succeeded, done.view.total_shards) == ("success", 12, 12)
    assert essence(before).items() <= essence(done).items()  # type: ignore[attr-defined]
    runs = [run.task for peer, run in mesh.runs]
    repeated = {task for task in runs if runs.count(task) > 1}
    assert repeated <= own - set(essence(before)), "only what died with the steward's own runs starts again"  # type: ignore[call-overload]


@pytest.mark.parametrize("moment", MOMENTS_S)
def test_after_a_power_cut_the_job_goes_on(moment: float) -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", shard_count=12)
    mesh.submit("ann", spec)
    mesh.run_for(moment)
    finished = essence(mesh.status("ann", spec, start=0))
    names = list(mesh.ids)
    for name in names:
        mesh.kill(name)
    for name in names:
        mesh.add(name)
    mesh.run_for(60)
    done = mesh.status("dan", spec, start=0)
    assert (done.view.status, done.view.succeeded) == ("success", 12)
    assert finished.items() <= essence(done).items()  # type: ignore[attr-defined]


def test_a_worker_that_restarts_gives_its_leases_back_and_delivers_its_receipts() -> None:
    mesh = mesh_of_four()
    dan = mesh.ids["dan"]
    mesh.held_runs.add(dan)
    spec = mesh.spec("ann", shard_count=12)
    mesh.submit("ann", spec)
    mesh.run_for(0.1)
    held = {run.task for peer, run in mesh.runs if peer == dan}
    assert held
    mesh.held_runs.clear()
    mesh.restart("dan")
    mesh.run_for(3)
    reply = mesh.status("bob", spec, start=0)
    assert reply.view.status == "success"
    vain = [one for task in reply.tasks for one in task.tries if task.task in held and one.outcome != "success"]
    assert {one.worker for one in vain} == {dan}
    assert {one.reason for one in vain} <= {"the node was restarted", "the worker is gone", "another try was first"}


def test_a_steward_that_has_just_restarted_stops_nobody() -> None:
    """It does not look after the job yet, but knows the award that its worker speaks of."""
    mesh = mesh_of_four()
    mesh.run_ms = 5_000
    spec = mesh.spec("ann", shard_count=12)
    mesh.submit("ann", spec)
    while all(peer == mesh.ids["ann"] for peer, _ in mesh.runs):
        mesh.run_for(0.5)
    before = len(mesh.sent)
    mesh.restart("ann")
    mesh.run_for(1.5)
    assert not mesh.peers[mesh.ids["ann"]].snapshot().stewarding
    later = mesh.sent[before:]
    assert any(to == mesh.ids["ann"] and isinstance(message, Progress) for _, to, message in later)
    assert not [message for _, _, message in later if isinstance(message, Revoke)]


def test_a_receipt_signed_before_the_crash_is_delivered_after_it() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", shard_count=12)
    mesh.submit("ann", spec)
    mesh.run_for(0.1)
    steward = mesh.peers.pop(mesh.ids["ann"])  # it does not hear what is sent to it now, and loses it
    mesh.run_for(0.5)
    mesh.peers[mesh.ids["ann"]] = steward
    signed = [peer for peer, run in mesh.runs if run.task.role is Role.SHARD]
    if mesh.ids["bob"] in signed:
        mesh.restart("bob")
    runs = len(mesh.runs)
    mesh.run_for(30)
    assert mesh.status("cat", spec).view.status == "success"
    assert len(mesh.runs) >= runs


def test_what_was_accepted_is_answered_alike_after_a_restart() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann")
    accepted = mesh.submit("ann", spec)
    mesh.run_for(3)
    mesh.restart("ann")
    mesh.run_for(2)
    assert mesh.submit("ann", spec) == accepted
    assert len(mesh.runs) == 14, "it did not start anew"


def test_failures_are_remembered() -> None:
    mesh = mesh_of_four()
    mesh.fail_task[Task(index=2)] = "no stars"
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    mesh.run_for(5)
    assert mesh.status("ann", spec).view.error == "shard 2 failed: no stars"
    mesh.restart("ann")
    mesh.run_for(2)
    view = mesh.status("bob", spec).view
    assert (view.status, view.error) == ("failed", "shard 2 failed: no stars")


def test_a_cancelled_job_stays_cancelled() -> None:
    mesh = mesh_of_four()
    mesh.held_runs.update(mesh.peers)
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    mesh.run_for(1)
    mesh.cancel("cat", spec, "submitter")
    mesh.restart("ann")
    mesh.run_for(5)
    assert mesh.status("bob", spec).view.status == "cancelled"


def test_pointers_kept_for_others_are_still_there() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", alias="stars")
    mesh.submit("ann", spec)
    mesh.run_for(3)
    for name in ("bob", "cat", "dan"):
        mesh.restart(name)
    mesh.kill("ann")
    mesh.run_for(3)
    assert mesh.find("bob", "job", "stars")


def test_a_journal_does_not_outgrow_what_it_is_for() -> None:
    """A job that is over and past its time leaves no row behind; nor do a worker's receipts of a closed job."""
    mesh = Mesh("ann", "bob", limits=Limits(retention_ms=3_600_000))
    mesh.run_for(3)
    mesh.submit("ann", mesh.spec("ann"))
    mesh.run_for(5)
    assert {table for table, _ in mesh.journals[mesh.ids["bob"]]} <= {"incarnation", "pointer"}
    assert {table for table, _ in mesh.journals[mesh.ids["ann"]]} >= {"job", "register", "fact"}
    mesh.run_for(2 * 3_600)
    assert {table for table, _ in mesh.journals[mesh.ids["ann"]]} <= {
        "incarnation",
        "pointer",
        "placement",
        "tombstone",
    }


def test_an_incarnation_is_never_used_twice() -> None:
    mesh = Mesh("ann")
    seen = []
    for _ in range(3):
        seen.append(mesh.peers[mesh.ids["ann"]].snapshot().incarnation)
        mesh.restart("ann")
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    "row",
    [
        ("nonsense", b"", b""),
        ("job", b"j" * 32, b"\x00"),
        ("fact", b"s" * 36, b"\xa0"),
        ("register", b"r" * 32, b"\xa0"),
        ("lease", b"", b"\xff"),
    ],
)
def test_a_row_that_cannot_be_read_stops_the_start(row: tuple[str, bytes, bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="the journal holds"):
        Lone("ann").peer.restore([row])
