"""Rules about what peers know: of each other, of their clocks, of who is gone, of where jobs are. Each can fail."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from protocol.codec import encode
from protocol.decrees import Final
from protocol.durable import Table
from protocol.effects import FetchBlobs, Proposal, Record, Reply, Send
from protocol.events import BlobsFetched, MessageReceived
from protocol.messages import Accept, Leads, Offer, Promise, ShuffleReply, TaskView, TryView
from protocol.records import Capability, JobPointer
from protocol.rendezvous import job_key, nearest
from protocol.signing import Opened, sign
from protocol.wire import Ballot, Holder, Link, Output, Role, Task
from simulations import final
from simulations.faults import FaultRates
from simulations.machines import Machine
from simulations.view_rules import ViewRules
from simulations.workload import Job
from tests.simulations.fakes import do, peer_of, run_ms
from tests.simulations.test_checkers import Story, broken, restart


@pytest.fixture
def story() -> Story:
    return Story()


def record_of(story: Story, machine: Machine, **fields: Any) -> Opened[Capability]:
    wall = machine.wall(story.world.agenda.now)
    given: dict[str, Any] = {
        "peer": machine.peer_id,
        "mesh": "simulated",
        "incarnation": 1,
        "revision": 1,
        "store": machine.store,
        "cpu_milli": 1,
        "memory_bytes": 1,
        "issued_at": wall,
        "not_after": wall + story.world.options.limits.capability_lifetime_ms,
    }
    return sign(Capability(**(given | fields)), machine.signer)


def knows(story: Story, **fields: Any) -> None:
    """The worker knows the other one by such a record."""
    peer_of(story.worker).view.known = (record_of(story, story.other, **fields).record,)


# -- views


def test_a_record_in_its_time_is_rightly_known(story: Story) -> None:
    run_ms(story.world, 100_000)
    knows(story)
    story.world.checkers.views.check(story.worker)


def test_a_record_that_is_good_for_too_long_is_caught(story: Story) -> None:
    knows(story, not_after=1 << 50)
    with broken("views", "good for too long"):
        story.world.checkers.views.check(story.worker)


def test_a_record_of_the_future_is_caught_unless_the_clock_was_wrong(story: Story) -> None:
    wall = story.worker.wall(story.world.agenda.now)
    knows(story, issued_at=wall + 600_000, not_after=wall + 660_000)
    with broken("views", "of the future"):
        story.world.checkers.views.check(story.worker)
    story.worker.clock_was_wrong = True
    story.world.checkers.views.check(story.worker)


def test_a_record_that_has_expired_is_not_known_for_long_but_of_neighbours(story: Story) -> None:
    run_ms(story.world, 100_000)
    wall = story.worker.wall(story.world.agenda.now)
    knows(story, issued_at=wall - 80_000, not_after=wall - 1)
    story.world.checkers.views.check(story.worker)
    run_ms(story.world, 9_000)
    story.world.checkers.views.check(story.worker)
    run_ms(story.world, 9_000)
    peer_of(story.worker).view.neighbours = (story.other.peer_id,)
    story.world.checkers.views.check(story.worker)
    peer_of(story.worker).view.neighbours = ()
    story.world.checkers.views.check(story.worker)
    run_ms(story.world, 11_000)
    with broken("views", "goes on knowing peer 2 by an expired record"):
        story.world.checkers.views.check(story.worker)


@pytest.mark.parametrize("faults", [FaultRates(), FaultRates(pause_per_s=0.1)], ids=["prompt", "late"])
def test_where_machines_may_be_late_that_is_asked_at_the_end_only(story: Story, faults: FaultRates) -> None:
    options = replace(story.world.options, faults=faults)
    story.world.options = options
    rules = ViewRules(story.world)
    run_ms(story.world, 100_000)
    wall = story.worker.wall(story.world.agenda.now)
    knows(story, issued_at=wall - 80_000, not_after=wall - 1)
    rules.check(story.worker)
    run_ms(story.world, 11_000)
    if faults == FaultRates():
        with broken("views", "expired record"):
            rules.check(story.worker)
    else:
        rules.check(story.worker)
    rules = ViewRules(story.world)
    rules.check(story.worker, at_the_end=True)
    run_ms(story.world, 11_000)
    with broken("views", "expired record"):
        rules.check(story.worker, at_the_end=True)


def test_a_record_is_not_replaced_by_an_older_one_of_the_same_store(story: Story) -> None:
    check = story.world.checkers.views.check
    for revision in (3, 4, 4):
        knows(story, revision=revision)
        check(story.worker)
    knows(story, revision=2, store=bytes(16))
    check(story.worker)
    knows(story, revision=4)
    check(story.worker)
    knows(story, revision=3)
    with broken("views", "an older record of peer 2"):
        check(story.worker)


# -- a lost counter


def hears_of_itself(story: Story, seen: tuple[int, int], own: tuple[int, int]) -> None:
    worker = story.worker
    peer_of(worker).view.capability = record_of(story, worker, incarnation=own[0], revision=own[1]).record
    told = record_of(story, worker, incarnation=seen[0], revision=seen[1])
    message = ShuffleReply(records=(told.signed,), epoch=1, sketch=())
    story.world.feed(worker, MessageReceived(story.other.peer_id, message))


def test_who_has_lost_its_counter_goes_past_what_it_hears_of_itself(story: Story) -> None:
    hears_of_itself(story, (7, 1), (1, 3))
    story.world.machines.crash(story.worker)
    story.world.machines.forget(story.worker)
    story.world.machines.start(story.worker)
    hears_of_itself(story, (7, 1), (8, 1))
    hears_of_itself(story, (1, 3), (1, 3))
    with broken("incarnations", "does not pass it"):
        hears_of_itself(story, (7, 1), (1, 3))


# -- clocks


def job_row(story: Story) -> Record:
    return Record(Table.JOB, story.spec.digest, b"row")


def test_who_knows_its_clock_to_be_wrong_becomes_no_holder(story: Story) -> None:
    view = peer_of(story.worker).view
    view.clock_offset_ms = 61_000
    do(story.world, story.worker, job_row(story))
    story.worker.clock_was_wrong = True
    with broken("clocks", "becomes a job's holder"):
        do(story.world, story.worker, job_row(story))
    for offset in (59_000, None):
        view.clock_offset_ms = offset
        do(story.world, story.worker, job_row(story))


def test_who_knows_its_clock_to_be_wrong_says_so_when_it_is_asked_to_look_after_a_job(story: Story) -> None:
    worker = story.worker
    worker.clock_was_wrong, peer_of(worker).view.clock_offset_ms = True, -3_000_000
    for note in ("this node's clock is 3000 s ahead", "the mesh has fewer than three peers"):
        proposal = Proposal("simulated", worker.peer_id, (), worker.wall(0), (note,))
        if "clock" in note:
            do(story.world, worker, Reply(1, proposal))
        else:
            with broken("clocks", "hides that its clock is wrong"):
                do(story.world, worker, Reply(1, proposal))


# -- who may propose


def job_of_three(story: Story) -> Job:
    submitter, world = story.world.signer(), story.world
    holders = tuple(Holder(peer=one.peer_id, store=one.store) for one in world.machines.all)
    spec = sign(replace(story.spec.record, holders=holders, submitter=submitter.peer_id), submitter)
    job = Job(spec, story.steward, 2, world.library.expected(spec.record))
    world.workload.jobs[job.digest] = job
    return job


def proposes(story: Story, job: Job, machine: Machine, epoch: int) -> None:
    ballot = Ballot(epoch=epoch, peer=machine.peer_id)
    accept = Accept(job=job.digest, ballot=ballot, decree=Final(body=bytes(32)))
    do(story.world, machine, Send(story.other.peer_id, accept))


def test_whoever_proposes_was_promised_by_a_majority_or_owns_the_first_ballot(story: Story) -> None:
    job = job_of_three(story)
    proposes(story, job, story.steward, 0)
    with broken("register", "no majority has promised"):
        proposes(story, job, story.worker, 1)
    ballot = Ballot(epoch=2, peer=story.worker.peer_id)
    promise = Promise(job=job.digest, ballot=ballot, store=story.other.store, wall_ms=0)
    do(story.world, story.other, Send(story.worker.peer_id, promise))
    proposes(story, job, story.worker, 2)


def test_the_first_ballot_belongs_to_the_named_steward_alone(story: Story) -> None:
    with broken("register", "no majority has promised"):
        proposes(story, job_of_three(story), story.worker, 0)


# -- what is given out


def gives_out(story: Story) -> None:
    award = story.awards[Role.SHARD].signed
    do(story.world, story.steward, Send(story.worker.peer_id, Offer(award=award, spec=story.spec.signed, sources=())))


def has_copy(story: Story, output: Output) -> None:
    do(story.world, story.steward, FetchBlobs(1, (Link(cid=output.cid, size=output.size),), (), 1 << 50))
    story.world.feed(story.steward, BlobsFetched(1))


def test_nothing_is_given_out_of_a_cancelled_job(story: Story) -> None:
    gives_out(story)
    story.record.facts.cancelled = True
    with broken("repeats", "which is cancelled"):
        gives_out(story)


# -- losses


def waits(story: Story, outcome: str = "running") -> None:
    """The steward shows a task that it has given to the worker, whom it knows or not."""
    award = story.awards[Role.SHARD]
    steward = peer_of(story.steward)
    steward.stewarding = (story.spec.digest,)
    attempt = TryView(worker=story.worker.peer_id, attempt=1, award=award.digest, outcome=outcome)
    story.says(tasks=(TaskView(task=Task(), status="running", tries=(attempt,)),))
    do(
        story.world,
        story.steward,
        Send(story.worker.peer_id, Offer(award=award.signed, spec=story.spec.signed, sources=())),
    )


def test_a_steward_does_not_wait_for_who_is_gone(story: Story) -> None:
    waits(story)
    peer_of(story.steward).gone.add(story.worker.peer_id)
    with broken("losses", "shard 0 by a worker that it knows is gone"):
        story.world.checkers.losses.check(story.steward)
    peer_of(story.steward).gone.clear()
    story.world.checkers.losses.check(story.steward)


def test_unless_it_has_taken_the_job_up_again_and_asks_once_more(story: Story) -> None:
    waits(story)
    peer_of(story.steward).gone.add(story.worker.peer_id)
    do(story.world, story.steward, Send(story.worker.peer_id, Leads(job=story.spec.digest)))
    with broken("losses", "shard 0 by a worker that it knows is gone"):
        story.world.checkers.losses.check(story.steward)
    award = story.awards[Role.SHARD].digest
    do(story.world, story.steward, Send(story.worker.peer_id, Leads(job=story.spec.digest, awards=(award,))))
    story.world.checkers.losses.check(story.steward)
    limits = story.world.options.limits
    run_ms(story.world, limits.progress_timeout_ms + 3 * limits.progress_interval_ms + 1)
    waits(story)  # of a lease that has not ended
    with broken("losses", "shard 0 by a worker that it knows is gone"):
        story.world.checkers.losses.check(story.steward)


def test_nor_after_the_end_of_its_lease(story: Story) -> None:
    waits(story)
    run_ms(story.world, 7_000)
    story.world.checkers.losses.check(story.steward)
    run_ms(story.world, 2_000)
    with broken("losses", "shard 0 after the end of its lease"):
        story.world.checkers.losses.check(story.steward)


def test_nor_is_a_try_that_has_ended_waited_for_or_one_of_an_earlier_steward(story: Story) -> None:
    waits(story, "lost")
    story.world.checkers.losses.check(story.steward)
    waits(story)
    restart(story, story.steward, story.view(status="running", completed_at=0))
    story.world.checkers.losses.check(story.steward)


# -- pointers


def pointer(story: Story, **fields: Any) -> Opened[JobPointer]:
    record, steward = story.spec.record, story.steward
    given: dict[str, Any] = {
        "job": story.spec.digest,
        "submitter": record.submitter,
        "alias": "",
        "holders": record.holders,
        "steward": steward.peer_id,
        "issued_at": steward.wall(0),
        "not_after": 1 << 50,
    }
    return sign(JobPointer(**(given | fields)), steward.signer)


def keeps(story: Story, machine: Machine, table: Table, **fields: Any) -> None:
    placed = pointer(story, **fields)
    key = placed.digest if table == Table.PLACEMENT else b"name"
    do(story.world, machine, Record(table, key, encode(placed.signed)))


def test_a_pointer_lies_with_those_responsible_of_whom_its_owner_knows(story: Story) -> None:
    rules = story.world.checkers.pointers
    keeps(story, story.steward, Table.PLACEMENT)
    assert rules.missing() == set()
    peer_of(story.steward).view.known = tuple(record_of(story, one).record for one in (story.worker, story.other))
    missing = rules.missing()
    assert {one.keeper for one in missing} == {story.worker.index, story.other.index}
    keeps(story, story.worker, Table.POINTER)
    with broken("pointers", "peer 2 does not keep the pointer of peer 0"):
        rules.check(missing)
    keeps(story, story.other, Table.POINTER, issued_at=0)
    with broken("pointers", "peer 2 does not keep"):
        rules.check(missing)
    keeps(story, story.other, Table.POINTER)
    rules.check(missing)


def test_who_is_further_from_the_key_need_not_keep_it(story: Story) -> None:
    options = story.world.options
    story.world.options = replace(options, limits=replace(options.limits, pointer_copies=1))
    keeps(story, story.steward, Table.PLACEMENT)
    others = (story.worker, story.other)
    peer_of(story.steward).view.known = tuple(record_of(story, one).record for one in others)
    (peer,) = nearest(job_key(story.spec.digest), [one.peer_id for one in others], 1)
    assert {one.keeper for one in story.world.checkers.pointers.missing()} == {story.world.machines[peer].index}


@pytest.mark.parametrize("trouble", ["wrong clock", "dead"])
def test_nor_who_cannot_be_given_it(story: Story, trouble: str) -> None:
    keeps(story, story.steward, Table.PLACEMENT)
    peer_of(story.steward).view.known = (record_of(story, story.worker).record,)
    if trouble == "dead":
        story.world.machines.crash(story.worker)
    else:
        story.worker.clock_was_wrong = True
    assert story.world.checkers.pointers.missing() == set()


def test_nor_anybody_in_a_mesh_larger_than_a_view(story: Story) -> None:
    keeps(story, story.steward, Table.PLACEMENT)
    peer_of(story.steward).view.known = (record_of(story, story.worker).record,)
    assert story.world.checkers.pointers.missing()
    narrow = replace(story.world.options.limits, active_view_enough=0, active_view_max=1, passive_view_max=2)
    story.world.options = replace(story.world.options, limits=narrow)
    assert story.world.checkers.pointers.missing() == set()


@pytest.mark.parametrize(("kept", "good"), [(1, True), (0, False)])
def test_a_restarted_peer_has_the_pointers_of_its_journal(story: Story, kept: int, good: bool) -> None:
    keeps(story, story.worker, Table.POINTER)
    peer_of(story.worker).view.tables = {"pointers": kept}
    if good:
        story.world.checkers.pointers.started(story.worker)
    else:
        with broken("durability", "forgotten pointers: 0 of 1"):
            story.world.checkers.pointers.started(story.worker)


# -- the end


def test_a_worker_that_does_not_learn_of_the_end_is_caught(story: Story) -> None:
    story.world.workload.jobs[story.spec.digest].accepted_at = 0
    do(story.world, story.worker, Record(Table.WORK, story.spec.digest, b"row"))
    final.check_workers(story.world)
    story.ends()
    with broken("liveness", "worker 1 .* does not know that it has ended"):
        final.check_workers(story.world)
    do(story.world, story.worker, Record(Table.WORK, story.spec.digest, None))
    final.check_workers(story.world)


def test_an_end_names_keepers_that_have_the_output(story: Story) -> None:
    with broken("ending", "peer 1 as keeper, which has nothing"):
        story.ends(keepers=(story.worker.peer_id,))
    story.worker.disk.add(story.job.expected_output.cid)
    story.ends(keepers=(story.worker.peer_id,))


def test_a_holder_that_does_not_keep_the_output_is_caught(story: Story) -> None:
    story.job.accepted_at = 0
    story.worker.disk.add(story.job.expected_output.cid)
    told = story.ends(keepers=(story.worker.peer_id,))
    story.record.final = told.body
    story.worker.disk.clear()
    final.check_outputs(story.world)
    story.worker.disk.add(story.job.expected_output.cid)
    with broken("liveness", "holder 0 of .* does not keep its output"):
        final.check_outputs(story.world)
    story.steward.disk.add(story.job.expected_output.cid)
    final.check_outputs(story.world)
