"""The tail of a job: what is slow or late is run a second time, and the first receipt counts."""

from __future__ import annotations

from protocol.effects import StartRun, StopRun
from protocol.messages import Offer, Progress, Revoke, StatusReply
from protocol.wire import Range, Role, Task
from tests.protocol.lone import Lone, of_kind, peer, sent
from tests.protocol.mesh import Mesh
from tests.protocol.samples import award, failed_receipt, spec
from tests.protocol.test_steward import Story

LATE = Task(index=0)
NAMES = ("ann", "bob", "cat", "dan")


def mesh_of(shards: int, run_ms: int = 400) -> Mesh:
    mesh = Mesh(*NAMES)
    mesh.shards, mesh.run_ms = shards, run_ms
    mesh.run_for(3)
    return mesh


def after(mesh: Mesh, seconds: float) -> StatusReply:
    job = mesh.spec("ann", shard_count=mesh.shards)
    assert mesh.submit("ann", job).accepted
    mesh.run_for(seconds)
    reply = mesh.status("bob", job, start=0)
    assert isinstance(reply, StatusReply)
    assert reply.view is not None
    return reply


def whys(reply: StatusReply) -> list[str]:
    return [one.why for task in reply.tasks for one in task.tries if one.why]


def test_a_slow_peer_does_not_hold_up_the_end() -> None:
    mesh = mesh_of(shards=12)
    mesh.slowness[mesh.ids["dan"]] = 20
    reply = after(mesh, 4)
    assert reply.view is not None
    assert reply.view.status == "success", "dan alone would take eight seconds for one shard"
    (why,) = whys(reply)
    assert why.startswith("second try; the first is late: ")
    (late,) = [task for task in reply.tasks if len(task.tries) > 1]
    assert [one.outcome for one in late.tries] == ["revoked", "success"]
    assert late.tries[0].worker == mesh.ids["dan"]
    assert (mesh.ids["dan"], late.task, True) not in mesh.work, "the loser was stopped"


def test_where_all_are_as_fast_nothing_is_run_twice() -> None:
    mesh = mesh_of(shards=13)
    reply = after(mesh, 6)
    assert reply.view is not None
    assert reply.view.status == "success"
    assert len(mesh.runs) == 13 + 2
    assert whys(reply) == []


def test_before_anything_was_measured_nothing_is_run_twice() -> None:
    """Long tasks and idle peers: nobody can say yet that anything is late."""
    mesh = mesh_of(shards=2, run_ms=20_000)
    reply = after(mesh, 35)
    assert [task.task.role for task in reply.tasks if task.status == "success"] == [Role.SPLIT]
    assert whys(reply) == []
    assert len(mesh.runs) == 1 + 2


def test_a_slow_peer_gets_few_tasks_and_none_at_the_end() -> None:
    mesh = mesh_of(shards=60, run_ms=100)
    mesh.slowness[mesh.ids["dan"]] = 8
    reply = after(mesh, 8)
    assert reply.view is not None
    assert reply.view.status == "success"
    done = [who for who, task, ended in mesh.work if ended and task.role is Role.SHARD]
    assert 1 <= done.count(mesh.ids["dan"]) <= 4
    tail = [who for who, task, ended in mesh.work if not ended and task.role is Role.SHARD][-8:]
    assert mesh.ids["dan"] not in tail


# -- the steward, step by step --------------------------------------------------------------------------------


def story_of_a_late_shard() -> Story:
    """Bob has done his shards, at 50 ms each; cat is at work on one."""
    story = Story("bob", "cat", shards=2)
    story.finish(*story.take())
    awards = dict(story.take() for _ in range(2))
    story.awards = awards  # type: ignore[attr-defined]
    story.finish("bob", awards["bob"])
    story.receive("cat", Progress(award=awards["cat"].digest, running=(0,), left=1))
    return story


def wait_for_the_second_try(story: Story) -> None:
    while not story.open:
        story.wait(500)
        cats = story.awards["cat"]  # type: ignore[attr-defined]
        story.receive("cat", Progress(award=cats.digest, running=(0,), left=1))


def test_the_first_receipt_counts_and_the_other_worker_is_told() -> None:
    story = story_of_a_late_shard()
    wait_for_the_second_try(story)
    (name, again) = story.open[0]
    assert (name, again.record.ranges, again.record.attempt) == ("bob", (Range(start=0, stop=1),), 2)
    assert story.outcomes(LATE)[0] == ("running", "")
    emitted = story.finish(*story.take())
    cats = story.awards["cat"]  # type: ignore[attr-defined]
    assert (peer("cat"), Revoke(award=cats.digest, reason="another try was first")) in sent(emitted, Revoke)
    assert story.outcomes(LATE) == [("revoked", "another try was first"), ("success", "")]


def test_there_are_no_more_than_two_tries_at_once() -> None:
    story = story_of_a_late_shard()
    wait_for_the_second_try(story)
    story.wait(1_000)
    assert len(story.outcomes(LATE)) == 2


def test_a_failure_of_one_try_counts_and_the_other_goes_on() -> None:
    story = story_of_a_late_shard()
    wait_for_the_second_try(story)
    name, again = story.take()
    cats = story.awards["cat"]  # type: ignore[attr-defined]
    story.deliver("cat", failed_receipt(cats, "exit code 1", worker="cat", task=LATE))
    assert story.outcomes(LATE) == [("failed", "exit code 1"), ("running", "")]
    state = story.lone.peer._steward.find(story.job.digest).plan.shards[0]  # type: ignore[union-attr]
    assert state.failures == 1
    story.finish(name, again)
    assert story.outcomes(LATE)[1] == ("success", "")


# -- the worker -----------------------------------------------------------------------------------------------


def test_a_worker_stops_the_task_that_is_named_and_goes_on_with_the_others() -> None:
    lone = Lone("bob", slots=2)
    job = spec()
    given = award(job)  # shards 0, 2 and 3
    started = of_kind(lone.receive("ann", Offer(award=given.signed, spec=job.signed, sources=())), StartRun)
    assert [run.task.index for run in started] == [0, 2]
    revoke = Revoke(award=given.digest, reason="another try was first", ranges=(Range(start=2, stop=4),))
    effects = lone.receive("ann", revoke)
    assert of_kind(effects, StopRun) == [StopRun(started[1].run)]
    worker = lone.peer._worker
    (lease,) = worker._leases.values()
    assert ([task.index for task in lease.running], list(lease.waiting)) == ([0], [])
    assert lone.receive("cat", Revoke(award=given.digest, reason="?", ranges=(Range(start=0, stop=1),))) == ()
    lone.receive("ann", Revoke(award=given.digest, reason="?", ranges=(Range(start=0, stop=1),)))
    assert worker.lease_count == 0
