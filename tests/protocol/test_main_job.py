"""The main job told as stories of a few peers: split, run, merge, and what happens when something goes wrong."""

from __future__ import annotations

from protocol import events
from protocol.messages import StatusReply
from protocol.records import Receipt
from protocol.wire import Needs, Role, Task
from tests.protocol.mesh import Mesh, holders_of, output_of


def mesh_of_four() -> Mesh:
    mesh = Mesh("ann", "bob", "cat", "dan")
    mesh.run_for(3)
    return mesh


def test_a_job_is_split_run_and_merged() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", alias="stars")
    answer = mesh.submit("ann", spec)
    assert answer.accepted
    assert answer.copies == 2
    assert answer.pointers >= 3
    assert answer.notes == ()
    mesh.run_for(3)
    reply = mesh.status("dan", spec, start=0)
    assert isinstance(reply, StatusReply)
    view = reply.view
    assert view is not None
    assert (view.status, view.merge_status) == ("success", "success")
    assert (view.total_shards, view.succeeded, view.failed) == (4, 4, 0)
    assert view.output == output_of(Task(role=Role.MERGE))
    assert [task.status for task in reply.tasks] == ["success"] * 6
    assert len({run.task for _, run in mesh.runs}) == len(mesh.runs) == 6, "every task ran once"


def test_any_peer_finds_the_job_by_id_and_alias() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", alias="stars")
    mesh.submit("ann", spec)
    short = spec.digest.hex()[:4] + "-" + spec.digest.hex()[4:8]
    for name in ("ann", "bob", "cat", "dan"):
        for text in (short, spec.digest.hex(), "stars", short[:6]):
            found = mesh.find(name, "job", text)
            assert len(found) == 1, (name, text)
    assert mesh.find("bob", "job", "no-such-job") == ()


def test_the_same_bytes_are_the_same_job_wherever_they_are_handed_in() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann")
    assert mesh.submit("bob", spec).accepted
    assert mesh.submit("ann", spec).accepted
    assert mesh.submit("cat", spec).accepted
    mesh.run_for(3)
    assert len(mesh.runs) == 6


def test_a_job_that_nobody_can_run_says_why_and_runs_when_a_peer_can() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", needs=Needs(memory_bytes=64 << 30))
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(1)
    view = mesh.status("bob", spec).view
    assert view.status == "queued"
    assert view.waiting
    reasons = {one.peer: one.reason for one in view.refusals}
    assert reasons == dict.fromkeys(mesh.peers, "memory 1 < 64 GiB")
    mesh.add("eve", memory_bytes=128 << 30)
    mesh.run_for(5)
    assert mesh.status("bob", spec).view.status == "success"
    assert {peer for peer, _ in mesh.runs} == {mesh.ids["eve"]}


def test_a_killed_worker_costs_what_it_was_running_and_no_more() -> None:
    mesh = mesh_of_four()
    dan = mesh.ids["dan"]
    mesh.held_runs.add(dan)
    mesh.shards = 16
    spec = mesh.spec("ann", shard_count=16)
    mesh.submit("ann", spec)
    mesh.run_for(0.1)
    lost = {run.task for peer, run in mesh.runs if peer == dan}
    assert lost, "dan was given something"
    mesh.kill("dan")
    mesh.run_for(10)
    reply = mesh.status("bob", spec, start=0)
    assert (reply.view.status, reply.view.succeeded) == ("success", 16)
    vain = {task.task for task in reply.tasks for one in task.tries if one.outcome in ("lost", "revoked")}
    assert lost <= vain, "given up with its worker, or overtaken by another that had time"
    runs = [run.task for peer, run in mesh.runs if peer != dan]
    assert len(runs) == len(set(runs)) == 18, "what the others did was not repeated"


def test_a_silent_worker_loses_its_lease() -> None:
    mesh = mesh_of_four()
    dan = mesh.ids["dan"]
    mesh.held_runs.add(dan)
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    mesh.run_for(0.6)
    del mesh.peers[dan]  # as SIGSTOP does: no connection breaks, nothing is said
    mesh.run_for(20)
    assert mesh.status("bob", spec).view.status == "success"


def test_a_winner_that_does_nothing_is_noticed_long_before_the_deadline() -> None:
    """It answers, says that it is at work, and runs nothing: only missing progress gives it away."""
    mesh = mesh_of_four()
    idler = mesh.ids["dan"]
    mesh.idlers.add(idler)
    spec = mesh.spec("ann", shard_count=12)
    mesh.shards = 12
    mesh.submit("ann", spec)
    mesh.run_for(30)  # longest if the split is its
    reply = mesh.status("bob", spec, start=0)
    assert (reply.view.status, reply.view.succeeded) == ("success", 12)
    reasons = {one.reason for task in reply.tasks for one in task.tries if one.worker == idler}
    assert reasons
    assert reasons <= {"another try was first", "its worker does nothing about it"}


def test_a_winner_that_does_nothing_loses_what_nobody_else_has_measured() -> None:
    mesh = Mesh("ann", "bob", bob={"price": 1})
    mesh.idlers.add(mesh.ids["ann"])  # the cheaper one
    mesh.run_for(3)
    spec = mesh.spec("bob", split="", merge="", shard_count=0)
    mesh.submit("bob", spec)
    mesh.run_for(30)
    reply = mesh.status("bob", spec, start=0)
    assert (reply.view.status, reply.view.succeeded) == ("success", 1)
    assert [one.reason for one in reply.tasks[0].tries] == ["its worker does nothing about it", ""]


def test_a_task_that_fails_four_times_fails_the_job_with_its_reason() -> None:
    mesh = mesh_of_four()
    mesh.fail_task[Task(index=2)] = "exit code 1: no stars"
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    mesh.run_for(5)
    reply = mesh.status("bob", spec, start=0)
    assert reply.view.status == "failed"
    assert reply.view.merge_status == "failed"
    assert reply.view.error == "shard 2 failed: exit code 1: no stars"
    tries = next(task.tries for task in reply.tasks if task.task == Task(index=2))
    assert [one.outcome for one in tries] == ["failed"] * 4
    assert [one.attempt for one in tries] == [1, 2, 3, 4]


def test_allowed_failures_leave_the_job_a_success() -> None:
    mesh = mesh_of_four()
    mesh.fail_task[Task(index=2)] = "no stars"
    spec = mesh.spec("ann", allow_failures=1)
    mesh.submit("ann", spec)
    mesh.run_for(5)
    view = mesh.status("ann", spec).view
    assert (view.status, view.succeeded, view.failed) == ("success", 3, 1)
    merge = next(run for _, run in mesh.runs if run.task.role is Role.MERGE)
    assert [part.output is None for part in merge.parts] == [False, False, True, False]


def test_a_split_into_too_many_shards_fails() -> None:
    mesh = mesh_of_four()
    mesh.shards = 9
    spec = mesh.spec("ann", max_shards=8)
    mesh.submit("ann", spec)
    mesh.run_for(3)
    view = mesh.status("ann", spec).view
    assert view.status == "failed"
    assert "9 shards where 1 to 8" in view.error


def test_a_cancelled_job_stops_everywhere() -> None:
    mesh = mesh_of_four()
    mesh.held_runs.update(mesh.peers)
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    mesh.run_for(1)
    answer = mesh.cancel("cat", spec, "submitter")
    assert answer.status == "cancelled"
    mesh.run_for(1)
    assert mesh.status("bob", spec).view.status == "cancelled"
    assert all(peer.snapshot().leases == peer.snapshot().runs == 0 for peer in mesh.peers.values())


def test_only_the_submitter_can_cancel() -> None:
    mesh = mesh_of_four()
    mesh.held_runs.update(mesh.peers)
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    assert mesh.cancel("cat", spec, "somebody else").status == "unknown"
    assert mesh.status("bob", spec).view.status in ("queued", "running")


def test_a_job_of_one_shard_needs_neither_split_nor_merge() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann", split="", merge="")
    mesh.submit("ann", spec)
    mesh.run_for(2)
    view = mesh.status("bob", spec).view
    assert (view.status, view.merge_status, view.total_shards) == ("success", "none", 1)
    assert view.output == output_of(Task(index=0))


def test_a_mesh_of_one_runs_the_job_and_says_what_it_cannot_promise() -> None:
    mesh = Mesh("ann")
    mesh.run_for(1)
    spec = mesh.spec("ann")
    answer = mesh.submit("ann", spec)
    assert (answer.accepted, answer.copies, answer.pointers) == (True, 1, 1)
    assert answer.notes == ("1 of 2 copies of the files could be made",)
    mesh.run_for(3)
    assert mesh.status("ann", spec).view.status == "success"


def test_receipts_are_signed_by_those_who_did_the_work() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann")
    mesh.submit("ann", spec)
    mesh.run_for(3)
    ran = {run.task: peer for peer, run in mesh.runs}
    reply = mesh.status("bob", spec, start=0)
    for task in reply.tasks:
        receipt = mesh.reader.open(task.receipt, Receipt).record
        assert receipt.worker == ran[task.task]
        assert receipt.job == spec.digest


def test_work_reaches_at_least_three_of_four_peers() -> None:
    mesh = mesh_of_four()
    mesh.shards = 16
    mesh.submit("ann", mesh.spec("ann", shard_count=16))
    mesh.run_for(3)
    assert len({peer for peer, run in mesh.runs if run.task.role is Role.SHARD}) >= 3


def test_lost_outputs_are_made_again() -> None:
    """A worker dies right after its receipt, before the steward could copy its output."""
    mesh = mesh_of_four()
    mesh.withhold_copies = True
    mesh.submit("ann", spec := mesh.spec("ann"))
    mesh.run_for(0.5)
    workers = {peer for peer, run in mesh.runs if run.task.role is not Role.SPLIT and peer != mesh.ids["ann"]}
    assert workers
    for name in [name for name, peer in mesh.ids.items() if peer in workers][:1]:
        mesh.kill(name)
    mesh.withhold_copies = False
    mesh.run_for(20)
    assert mesh.status("ann", spec).view.status == "success"


def test_a_job_whose_steward_is_gone_already_is_taken_in_by_another_holder() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann")
    mesh.kill("ann")
    assert mesh.ask(
        "dan", lambda number: events.JobSubmitted(number, spec.signed, (mesh.ids["dan"],)), seconds=70
    ).accepted
    mesh.run_for(10)
    assert mesh.status("dan", spec).view.status == "success"


def test_a_job_none_of_whose_holders_is_there_is_refused_with_a_reason() -> None:
    mesh = mesh_of_four()
    spec = mesh.spec("ann")
    (outsider,) = set(mesh.ids.values()) - set(holders_of(spec))
    for name, peer in list(mesh.ids.items()):
        if peer != outsider:
            mesh.kill(name)
        else:
            left = name
    answer = mesh.ask(left, lambda number: events.JobSubmitted(number, spec.signed, (outsider,)), seconds=70)
    assert not answer.accepted
    assert "no majority of the job's holders answers" in answer.reason
