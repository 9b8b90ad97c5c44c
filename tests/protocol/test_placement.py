"""Where a job's tasks run, and at what price: each directive, from the spec to what is shown of the job."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import StartRun
from protocol.messages import Announce, Bid, Offer, OfferDeclined, StatusReply, TaskView
from protocol.records import Award
from protocol.wire import Needs, Placement, Role, Task
from tests.protocol.lone import Lone, of_kind, only
from tests.protocol.mesh import Mesh, holders_of
from tests.protocol.samples import announcement, award, capability, spec, stage

NAMES = ("ann", "bob", "cat", "dan")
REGIONS: dict[str, Any] = {
    name: {"labels": {"region": region}}
    for name, region in (("ann", "eu"), ("bob", "eu"), ("cat", "us"), ("dan", "us"), ("eve", "us"))
}


def mesh_of(*names: str, shards: int = 12, **profiles: dict[str, Any]) -> Mesh:
    mesh = Mesh(*(names or NAMES), **(REGIONS | profiles))
    mesh.shards = shards
    mesh.run_for(3)
    return mesh


def done(mesh: Mesh, needs: Needs, seconds: float = 8, **fields: Any) -> StatusReply:
    """A job of ann's with these needs, after some time."""
    job = mesh.spec("ann", needs=needs, shard_count=mesh.shards, **fields)
    assert mesh.submit("ann", job).accepted
    mesh.run_for(seconds)
    reply = mesh.status("bob", job, start=0)
    assert isinstance(reply, StatusReply)
    return reply


def at(**fields: Any) -> Needs:
    return Needs(placement=Placement(**fields))


def workers(mesh: Mesh) -> set[str]:
    return {mesh.name_of(peer) for peer, _ in mesh.runs}


def shards_of(mesh: Mesh, reply: StatusReply) -> dict[str, int]:
    """How many shards each peer did."""
    counts: dict[str, int] = {}
    for task in reply.tasks:
        if task.task.role is Role.SHARD:
            name = mesh.name_of(task.tries[-1].worker)
            counts[name] = counts.get(name, 0) + 1
    return counts


def reasons_of(mesh: Mesh, reply: StatusReply) -> dict[str, str]:
    return {mesh.name_of(one.peer): one.reason for one in reply.view.refusals} if reply.view else {}


def shard(reply: StatusReply, index: int = 0) -> TaskView:
    return next(task for task in reply.tasks if task.task == Task(index=index))


# -- where ----------------------------------------------------------------------------------------------------


def test_all_tasks_of_a_job_run_in_its_region() -> None:
    mesh = mesh_of()
    assert done(mesh, at(labels={"region": "us"})).view.status == "success"  # type: ignore[union-attr]
    assert workers(mesh) == {"cat", "dan"}


def test_a_label_that_nobody_has_is_what_keeps_a_job_waiting_and_each_peer_says_so() -> None:
    mesh = mesh_of()
    reply = done(mesh, at(labels={"region": "us", "gpu-kind": "a100"}))
    assert reasons_of(mesh, reply) == {
        "ann": "region us wanted, eu here",
        "bob": "region us wanted, eu here",
        "cat": "gpu-kind a100 wanted, none here",
        "dan": "gpu-kind a100 wanted, none here",
    }
    mesh.add("eve", labels={"region": "us", "gpu-kind": "a100"})
    mesh.run_for(5)
    assert workers(mesh) == {"eve"}


def test_a_job_runs_at_the_only_places_that_it_names_and_at_none_that_it_avoids() -> None:
    mesh = mesh_of()
    done(mesh, at(only=(mesh.ids["bob"], "region=us"), avoid=(mesh.ids["dan"],)))
    assert workers(mesh) == {"bob", "cat"}


def test_a_job_whose_places_are_all_avoided_waits() -> None:
    mesh = mesh_of()
    reply = done(mesh, at(only=(mesh.ids["bob"],), avoid=("region=eu",)))
    assert reasons_of(mesh, reply)["bob"] == "the job avoids region=eu"
    assert reasons_of(mesh, reply)["cat"] == "not among the only places of the job"
    assert workers(mesh) == set()


def test_a_peer_that_bids_where_it_may_not_is_not_believed() -> None:
    """Its own record says where it is, whatever it bids."""
    mesh = mesh_of("ann", "bob")
    job = mesh.spec("ann", needs=at(labels={"region": "us"}))
    mesh.submit("ann", job)
    mesh.run_for(1)
    steward = mesh.peers[mesh.ids["ann"]]._steward
    kept = steward.find(job.digest)
    assert kept is not None
    assert kept.announcement is not None
    bid = Bid(
        announcement=kept.announcement.digest,
        job=job.digest,
        stage=0,
        slots=8,
        start_in_ms=0,
        task_ms=1,
        capability=mesh.peers[mesh.ids["bob"]]._membership.own.signed,
    )
    steward.recruiting.on_bid(mesh.ids["bob"], bid)
    assert kept.candidates == {}
    assert kept.refusals[mesh.ids["bob"]] == "region us wanted, eu here"


def test_a_job_runs_at_the_level_of_isolation_that_it_asks_for_and_at_no_other() -> None:
    mesh = mesh_of(cat={"isolation": ("landlock",)}, dan={"isolation": ("namespace", "container")})
    done(mesh, Needs(isolation="landlock"))
    assert workers(mesh) == {"cat"}


def test_a_task_is_tried_as_often_as_its_job_says() -> None:
    mesh = mesh_of(shards=4)
    mesh.fail_task[Task(index=2)] = "no stars"
    reply = done(mesh, Needs(), attempts=2, allow_failures=1)
    assert reply.view is not None
    assert (reply.view.status, reply.view.succeeded, reply.view.failed) == ("success", 3, 1)
    assert [one.outcome for one in shard(reply, 2).tries] == ["failed", "failed"]


# -- where rather ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [True, False])
def test_a_job_runs_near_its_input_if_it_wants_to(near: bool) -> None:
    """Who has the input is busy for two seconds; the others are free."""
    mesh = mesh_of(shards=1)
    job = mesh.spec("ann", needs=at(near_input=near), split="", merge="", shard_count=0)
    holders = holders_of(job)
    for peer in mesh.peers:
        worker = mesh.peers[peer]._worker
        busy_ms = 2_000 if peer in holders else 0
        worker.start_in_ms = lambda priority, busy_ms=busy_ms: busy_ms  # type: ignore[method-assign]
    mesh.submit("ann", job)
    mesh.run_for(3)
    ((peer, _),) = mesh.runs
    assert (peer in holders) == near
    why = shard(mesh.status("cat", job, start=0)).tries[0].why
    assert why == ("near: it has the input, 2 of 4 bidders have not" if near else "")


def test_shards_are_spread_evenly_however_fast_some_peers_are() -> None:
    mesh = mesh_of(bob={"slots": 8}, shards=12)
    reply = done(mesh, at(spread="peers"))
    assert shards_of(mesh, reply) == {"ann": 3, "bob": 3, "cat": 3, "dan": 3}
    whys = {one.why for task in reply.tasks for one in task.tries if task.task.role is Role.SHARD}
    assert "spread: 3 of at most 3 shards" in whys
    assert all(why.startswith("spread: ") for why in whys)


def test_without_that_they_are_not() -> None:
    mesh = mesh_of(bob={"slots": 8}, shards=40)
    mesh.run_ms = 300
    assert shards_of(mesh, done(mesh, Needs()))["bob"] > 20


def test_shards_are_spread_over_the_values_of_a_label() -> None:
    mesh = mesh_of(*NAMES, "eve", cat={"labels": {}}, shards=12)
    counts = shards_of(mesh, done(mesh, at(spread="region")))
    assert counts["ann"] + counts["bob"] == counts["cat"] == counts["dan"] + counts["eve"] == 4, "none is a value"


def test_spreading_waits_for_nobody_who_takes_nothing() -> None:
    mesh = mesh_of()
    mesh.withheld = lambda sender, to, message: isinstance(message, Offer) and to == mesh.ids["dan"]
    reply = done(mesh, at(spread="peers"), seconds=20)
    assert reply.view is not None
    assert reply.view.status == "success"


# -- at what price --------------------------------------------------------------------------------------------


def test_who_wants_more_than_is_paid_is_not_taken() -> None:
    mesh = mesh_of(ann={"price": 300_000}, bob={"price": 500_000}, cat={"price": 200_000}, dan={"price": 200_001})
    reply = done(mesh, Needs(max_price=200_000))
    assert workers(mesh) == {"cat"}
    assert {one.why for task in reply.tasks for one in task.tries} == {"price: 0.2 of at most 0.2"}
    awards = [mesh.reader.open(signed, Award).record for signed in reply.awards]
    assert {one.price for one in awards} == {200_000}


def test_a_job_that_pays_too_little_is_told_by_how_much() -> None:
    mesh = mesh_of(ann={"price": 300_000}, bob={"price": 500_000}, cat={"price": 200_000}, dan={"price": 200_001})
    reply = done(mesh, Needs(max_price=100_000))
    assert reasons_of(mesh, reply)["bob"] == "price 0.5 > 0.1"


@pytest.mark.parametrize("cheaper", ["ann", "bob"])
def test_of_two_that_are_as_fast_the_cheaper_one_is_taken(cheaper: str) -> None:
    mesh = mesh_of("ann", "bob", **{name: {"price": 100 + (name != cheaper)} for name in ("ann", "bob")}, shards=1)
    done(mesh, Needs(), split="", merge="")
    assert workers(mesh) == {cheaper}


def test_a_worker_declines_an_award_below_its_price() -> None:
    lone = Lone("bob", price=300_000)
    job = spec(stages=(stage(),))
    given = award(job, price=200_000)
    declined = only(lone.receive("ann", Offer(award=given.signed, spec=job.signed, sources=())), OfferDeclined)
    assert declined.reason == "price 0.2 < 0.3"
    paid = award(job, price=300_000)
    assert of_kind(lone.receive("ann", Offer(award=paid.signed, spec=job.signed, sources=())), StartRun)


# -- when -----------------------------------------------------------------------------------------------------


def test_a_busy_worker_bids_an_earlier_start_to_what_is_more_urgent() -> None:
    lone = Lone("bob", slots=1)
    job = spec(priority=4)
    lone.receive("ann", Offer(award=award(job).signed, spec=job.signed, sources=()))

    def start_of(priority: int) -> int:
        message = Announce(
            announcement=announcement(priority=priority).signed, steward=capability("ann").signed, hops=0
        )
        return only(lone.receive("ann", message), Bid).start_in_ms

    assert start_of(5) < start_of(4) == start_of(3)


def test_what_waits_at_a_worker_starts_in_the_order_of_its_urgency() -> None:
    mesh = mesh_of("ann", shards=6)
    mesh.run_ms = 200
    jobs = [
        mesh.spec("ann", alias=f"p{priority}", fields={"priority": priority}, split="", merge="", shard_count=0)
        for priority in (5, 2, 9)
    ]
    for job in jobs:
        mesh.submit("ann", job)
    mesh.run_for(5)
    order = [run.alias for _, run in mesh.runs]
    assert order == ["p5", "p9", "p2"], "what runs already is not interrupted"


def test_no_task_begins_that_cannot_be_done_by_the_deadline() -> None:
    mesh = mesh_of(shards=40)
    mesh.run_ms = 1_000
    reply = done(mesh, Needs(), seconds=10, fields={"deadline_ms": 5_000})
    assert reply.view is not None
    assert reply.view.status == "failed"
    finished = reply.view.succeeded
    assert 0 < finished < 40
    assert reply.view.error == f"the job's deadline of 5 s has passed with {finished} of 40 shards done"
    begun = [task for _, task, ended in mesh.work if not ended]
    ended = [task for _, task, ended in mesh.work if ended]
    assert len(begun) == len(ended), "what was begun was done"


def test_no_lease_outlasts_the_deadline() -> None:
    mesh = mesh_of()
    mesh.run_ms = 10_000
    job = mesh.spec("ann", fields={"deadline_ms": 20_000}, timeout_ms=60_000)
    mesh.submit("ann", job)
    mesh.run_for(1)
    kept = mesh.peers[mesh.ids["ann"]]._steward.find(job.digest)
    assert kept is not None
    (lease_ms,) = [given.award.record.lease_ms for given in kept.given.values()]
    assert lease_ms <= 20_000 + mesh.limits.deadline_margin_ms
