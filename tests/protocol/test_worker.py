"""Leases, runs, receipts: told from the point of view of bob, who works for ann."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.decrees import Final
from protocol.decrees import digest_of as digest_of_decree
from protocol.effects import Effect, Send, StartRun, StopRun
from protocol.events import LeaveAsked
from protocol.limits import CONTENT_BYTES_MAX, DEFAULT_LIMITS, FRAME_BYTES_MAX, Limits
from protocol.messages import (
    Decided,
    Offer,
    OfferAccepted,
    OfferDeclined,
    Progress,
    Receipts,
    ReceiptsAck,
    Returned,
    Revoke,
    encode_message,
)
from protocol.profile import Policy
from protocol.records import Award, JobSpec, Receipt
from protocol.signing import Opened
from protocol.wire import Ballot, Needs, Range, Role, Task
from tests.protocol.lone import Lone, failed, finished, misbehaved, of_kind, one_of_kind, only, peer, sent
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import (
    MINUTE_MS,
    award,
    body,
    certificate,
    digest_of,
    holder,
    output_of,
    spec,
    split_award,
    stage,
)

JOB = spec()
AWARD = award(JOB)  # shards 0, 2 and 3
TASKS = [Task(index=0), Task(index=2), Task(index=3)]


def offer(given: Opened[Award] = AWARD, job: Opened[JobSpec] = JOB) -> Offer:
    return Offer(award=given.signed, spec=job.signed, sources=(peer("ann"),))


def decided(job: Opened[JobSpec] = JOB, by: tuple[str, ...] = ("ann", "cat")) -> Decided:
    """The job was cancelled, as these holders' votes say."""
    end = body(job, status="cancelled", entries=(), output=None)
    return Decided(job=job.digest, chain=(certificate(job, Final(body=digest_of_decree(end)), by=by),), body=end)


def runs_in(emitted: tuple[Effect, ...]) -> list[StartRun]:
    return of_kind(emitted, StartRun)


def receipts_in(lone: Lone, emitted: tuple[Effect, ...]) -> list[Receipt]:
    context = lone.peer._context
    return [
        context.open(signed, Receipt).record for _, message in sent(emitted, Receipts) for signed in message.receipts
    ]


# -- capacity -------------------------------------------------------------------------------------------------


def test_an_offer_is_accepted_and_its_first_task_started() -> None:
    lone = Lone("bob")
    emitted = lone.receive("ann", offer())
    (run,) = runs_in(emitted)
    assert emitted == (Send(peer("ann"), OfferAccepted(award=AWARD.digest)), run)
    assert (run.job, run.task, run.attempt, run.shards) == (JOB.digest, Task(index=0), 1, 4)
    assert (run.split, run.parts, run.sources) == (AWARD.record.split, (), (peer("ann"),))


def test_as_many_run_as_there_are_slots_and_the_next_when_one_ends() -> None:
    lone = Lone("bob", slots=2)
    first = runs_in(lone.receive("ann", offer()))
    assert [run.task for run in first] == TASKS[:2]
    emitted = lone.give(finished(first[1]))
    assert [run.task for run in runs_in(emitted)] == TASKS[2:]
    assert [receipt.task for receipt in receipts_in(lone, emitted)] == [TASKS[1]]


def test_memory_is_shared_out_and_one_task_always_fits() -> None:
    half = spec(stages=(stage(needs=Needs(memory_bytes=1 << 29)),))
    assert len(runs_in(Lone("bob", slots=8).receive("ann", offer(award(half), half)))) == 2
    whole = spec(stages=(stage(needs=Needs(memory_bytes=1 << 30)),))
    assert len(runs_in(Lone("bob", slots=8).receive("ann", offer(award(whole), whole)))) == 1


def test_memory_comes_free_when_a_run_ends_however_it_ends() -> None:
    whole = spec(stages=(stage(needs=Needs(memory_bytes=1 << 30)),))
    lone = Lone("bob", slots=8)
    (run,) = runs_in(lone.receive("ann", offer(award(whole), whole)))
    (run,) = runs_in(lone.give(failed(run, "exit code 1", counts=True)))
    (run,) = runs_in(lone.give(finished(run)))
    lone.give(finished(run))
    assert lone.peer._worker._memory_used == 0
    assert lone.peer.snapshot().leases == 0


def test_jobs_of_higher_priority_go_first() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    urgent = spec(priority=9, alias="urgent")
    assert runs_in(lone.receive("ann", offer(award(urgent), urgent))) == []
    assert runs_in(lone.give(finished(run)))[0].job == urgent.digest


# -- offers that are refused, and offers that are none --------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "fields", "profile", "reason"),
    [
        (spec(mesh="other"), {}, {}, "a job of another mesh"),
        (spec(not_after=START_WALL - 60_001), {}, {}, "out of its time by this node's clock"),
        (JOB, {"not_after": START_WALL - 60_001}, {}, "out of its time by this node's clock"),
        (JOB, {"issued_at": START_WALL + 60_001}, {}, "out of its time by this node's clock"),
        (JOB, {}, {"policy": Policy(accept_work=False)}, "this node takes no work"),
        (JOB, {}, {"policy": Policy(submitters=(peer("ann"),))}, "submitter denied by policy"),
        (JOB, {}, {"memory_bytes": 1 << 28}, "memory 0.25 < 0.5 GiB"),
    ],
)
def test_an_offer_is_declined_with_a_reason(
    job: Opened[JobSpec], fields: dict[str, Any], profile: dict[str, Any], reason: str
) -> None:
    lone, given = Lone("bob", **profile), award(job, **fields)
    assert lone.receive("ann", offer(given, job)) == (
        Send(peer("ann"), OfferDeclined(award=given.digest, reason=reason)),
    )


NO_OFFERS = {
    "to another worker": ("ann", offer(award(JOB, worker="cat"))),
    "by another than its steward": ("bob", offer()),
    "with another job's spec": ("ann", offer(AWARD, spec(alias="other"))),
    "by one that holds nothing of the job": ("eve", offer(award(JOB, steward="eve"))),
    "of a stage that is not there": ("ann", offer(award(JOB, stage=1))),
    "of shards that are not there": ("ann", offer(award(JOB, ranges=(Range(start=0, stop=5),)))),
    "of tasks in no order": ("ann", offer(award(JOB, ranges=(Range(start=2, stop=3), Range(start=0, stop=1))))),
    "a receipt instead of an award": ("ann", Offer(award=JOB.signed, spec=JOB.signed, sources=())),
}


@pytest.mark.parametrize(("sender", "message"), NO_OFFERS.values(), ids=NO_OFFERS)
def test_what_is_no_offer_is_an_offence_and_starts_nothing(sender: str, message: Offer) -> None:
    lone = Lone("bob")
    emitted = lone.receive(sender, message)
    assert misbehaved(emitted)
    assert runs_in(emitted) == []
    assert lone.peer.snapshot().leases == 0


def test_leases_are_bounded() -> None:
    lone = Lone("bob", limits=Limits(leases_per_peer_max=5))
    answers = [lone.receive("ann", offer(award(JOB, nonce=number, ranges=spans(number % 4)))) for number in range(9)]
    assert lone.peer.snapshot().leases <= 5
    assert all(sent(answer, OfferAccepted) or sent(answer, OfferDeclined) for answer in answers)


def spans(*indexes: int) -> tuple[Range, ...]:
    return tuple(Range(start=index, stop=index + 1) for index in indexes)


# -- once is enough -------------------------------------------------------------------------------------------


def test_the_same_offer_twice_is_accepted_twice_and_run_once() -> None:
    lone = Lone("bob", slots=8, memory_bytes=1 << 33)
    assert len(runs_in(lone.receive("ann", offer()))) == 3
    assert lone.receive("ann", offer()) == (Send(peer("ann"), OfferAccepted(award=AWARD.digest)),)


@pytest.mark.parametrize("end", ["failed", "broken", "revoked", "revoked in part"])
def test_a_late_copy_of_an_offer_starts_nothing_of_an_award_that_is_over(end: str) -> None:
    lone, given = Lone("bob"), award(JOB, ranges=spans(0))
    (run,) = runs_in(lone.receive("ann", offer(given)))
    if end.startswith("revoked"):
        ranges = spans(0) if end == "revoked in part" else ()
        lone.receive("ann", Revoke(award=given.digest, reason="", ranges=ranges))
    lone.give(failed(run, "exit code 1", counts=end == "failed"))
    assert lone.receive("ann", offer(given)) == ()
    assert lone.peer.snapshot().leases == 0


def test_a_task_that_runs_already_is_not_started_again_under_another_award() -> None:
    lone = Lone("bob", slots=8, memory_bytes=1 << 33)
    lone.receive("ann", offer())
    again = award(JOB, nonce=8, ranges=spans(0, 1))
    assert [run.task.index for run in runs_in(lone.receive("ann", offer(again)))] == [1]


def test_a_task_that_is_done_already_is_answered_with_its_receipt() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0)))))
    (done,) = receipts_in(lone, lone.give(finished(run)))
    lone.receive("ann", ReceiptsAck(receipts=(receipt_digest(lone),)))
    again = award(JOB, nonce=8, ranges=spans(0))
    emitted = lone.receive("ann", offer(again))
    assert runs_in(emitted) == []
    assert receipts_in(lone, emitted) == [done]


def receipt_digest(lone: Lone) -> bytes:
    (digest,) = lone.peer._worker._receipts._kept
    return digest


def test_over_other_inputs_it_is_another_piece_of_work() -> None:
    """The split ran again and made something else: what was done, or is being done, over the old parts is void."""
    other: dict[str, Any] = {"split": output_of("another split"), "nonce": 8}
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0)))))
    lone.give(finished(run))
    assert len(runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0), **other))))) == 1
    lone = Lone("bob", slots=8)
    lone.receive("ann", offer(award(JOB, ranges=spans(0))))
    assert len(runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0), **other))))) == 1


def test_a_failure_is_no_result_to_be_sent_again() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0)))))
    lone.give(failed(run, "exit code 1", counts=True))
    assert len(runs_in(lone.receive("ann", offer(award(JOB, nonce=8, ranges=spans(0)))))) == 1


# -- receipts -------------------------------------------------------------------------------------------------


def test_a_receipt_says_what_was_run_on_what_under_which_award() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    lone.wait(300)
    emitted = lone.give(finished(run))
    (receipt,) = receipts_in(lone, emitted)
    assert receipt == Receipt(
        job=JOB.digest,
        task=Task(index=0),
        award=AWARD.digest,
        attempt=1,
        worker=peer("bob"),
        success=True,
        output=output_of("shard 0"),
        input_hash=digest_of("input of shard 0"),
        upstream=(digest_of("receipt of the split"),),
        runtime="sandbox/namespace",
        transfer_ms=11,
        run_ms=268,
        latency_ms=300,
        started_at=START_WALL,
        issued_at=START_WALL + 300,
    )


def test_a_task_that_waited_for_a_slot_says_how_long() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    lone.wait(300)
    (run,) = runs_in(lone.give(finished(run)))
    lone.wait(200)
    receipt = receipts_in(lone, lone.give(finished(run)))[-1]
    assert (receipt.queued_ms, receipt.latency_ms) == (0, 200)


def test_a_receipt_is_sent_until_it_is_acknowledged_by_its_steward() -> None:
    lone = Lone("bob")
    (run, *_) = runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0)))))
    lone.give(finished(run))
    assert len(receipts_in(lone, lone.wait(10_000))) >= 7
    lone.receive("eve", ReceiptsAck(receipts=(receipt_digest(lone),)))
    assert receipts_in(lone, lone.wait(2_000)) != []
    lone.receive("ann", ReceiptsAck(receipts=(receipt_digest(lone),)))
    assert receipts_in(lone, lone.wait(60_000)) == []
    assert lone.peer.snapshot().tables["receipts"] == 1, "kept until the job has ended"
    lone.receive("ann", decided())
    assert lone.peer.snapshot().tables["receipts"] == 0


def test_a_small_output_goes_with_its_receipt_until_that_is_acknowledged() -> None:
    lone = Lone("bob")
    (run, *_) = runs_in(lone.receive("ann", offer(award(JOB, ranges=spans(0)))))
    assert only(lone.give(finished(run, content=b"few")), Receipts).contents == (b"few",)
    assert only(lone.wait(lone.limits.receipt_retry_ms), Receipts).contents == (b"few",)
    lone.receive("ann", ReceiptsAck(receipts=(receipt_digest(lone),)))
    again = only(lone.receive("ann", offer(award(JOB, ranges=spans(0), nonce=9))), Receipts)
    assert again.contents == (), "who has acknowledged it has a copy, or fetches one"


def test_small_outputs_of_many_receipts_fit_their_frames() -> None:
    lone = Lone("bob", slots=64, memory_bytes=1 << 37)
    job = spec(stages=(stage(shard_count=64, max_shards=64),))
    runs = runs_in(lone.receive("ann", offer(award(job, ranges=spans(*range(64)), shards=64), job)))
    for number, run in enumerate(runs):
        lone.give(finished(run, content=bytes([number]) * CONTENT_BYTES_MAX))
    messages = sent(lone.wait(lone.limits.receipt_retry_ms), Receipts)
    assert sorted(content[0] for _, message in messages for content in message.contents) == list(range(len(runs)))
    assert all(len(encode_message(message)) <= FRAME_BYTES_MAX for _, message in messages)


def test_receipts_are_kept_up_to_a_bound() -> None:
    lone = Lone("bob", limits=Limits(receipts_kept_max=3), slots=8, memory_bytes=1 << 33)
    many = award(JOB, ranges=(Range(start=0, stop=4),))
    for run in runs_in(lone.receive("ann", offer(many))):
        lone.give(finished(run))
    assert lone.peer.snapshot().tables["receipts"] == 3


def test_a_failure_of_the_task_is_signed_with_its_reason() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    (receipt,) = receipts_in(lone, lone.give(failed(run, "exit code 1: no stars", counts=True)))
    assert (receipt.success, receipt.output, receipt.error) == (False, None, "exit code 1: no stars")


def test_a_failure_of_this_machine_gives_the_award_back() -> None:
    lone = Lone("bob", slots=2)
    first, second = runs_in(lone.receive("ann", offer()))
    emitted = lone.give(failed(first, "no disk space", counts=False))
    assert emitted == (
        Send(peer("ann"), Returned(award=AWARD.digest, reason="no disk space")),
        StopRun(second.run),
    )
    assert receipts_in(lone, lone.give(failed(second, "stopped", counts=False))) == []
    assert (lone.peer.snapshot().leases, lone.peer.snapshot().runs) == (0, 0)


@pytest.mark.parametrize("shards", [0, 17])
def test_a_split_into_too_few_or_too_many_has_failed(shards: int) -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer(split_award(JOB))))
    assert run.task.role is Role.SPLIT
    (receipt,) = receipts_in(lone, lone.give(finished(run, shards=shards)))
    assert not receipt.success
    assert receipt.error == f"split into {shards} shards where 1 to 16 are allowed"


def test_an_end_of_an_unknown_run_changes_nothing() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    stranger = msgspec.structs.replace(run, run=run.run + 99)
    assert lone.give(finished(stranger)) == lone.give(failed(stranger, "?", counts=True)) == ()
    assert lone.give(failed(stranger, "?", counts=False)) == ()


# -- ends of leases -------------------------------------------------------------------------------------------


def test_a_worker_reports_progress_until_it_is_done() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    reports = sent(lone.wait(5_000), Progress)
    assert 4 <= len(reports) <= 7
    assert set(reports) == {(peer("ann"), Progress(award=AWARD.digest, running=(0,), left=3))}
    for _ in TASKS:
        emitted = lone.give(finished(run))
        run = next(iter(runs_in(emitted)), run)
    assert sent(lone.wait(5_000), Progress) == []


def test_what_has_not_begun_when_the_lease_runs_out_is_left_to_others() -> None:
    """What runs may still finish, and be first."""
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    lone.wait(MINUTE_MS)
    emitted = lone.give(finished(run))
    assert len(receipts_in(lone, emitted)) == 1
    assert runs_in(emitted) == []
    lone.wait(2_000)
    assert lone.peer.snapshot().leases == 0


def test_a_revoked_award_is_stopped_at_its_stewards_word_only() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    assert lone.receive("eve", Revoke(award=AWARD.digest, reason="")) == ()
    assert lone.receive("ann", Revoke(award=AWARD.digest, reason="")) == (StopRun(run.run),)
    assert lone.give(failed(run, "stopped", counts=False)) == ()
    assert (lone.peer.snapshot().leases, lone.peer.snapshot().runs) == (0, 0)


def test_a_job_that_has_ended_stops_and_is_not_begun_again() -> None:
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer()))
    assert StopRun(run.run) not in lone.receive("ann", decided(by=("ann",))), "no majority"
    assert StopRun(run.run) not in lone.receive("ann", decided(by=("ann", "eve"))), "eve is no holder"
    assert lone.receive("eve", decided()) == (StopRun(run.run),), "whoever says so, the votes prove it"
    assert receipts_in(lone, lone.give(finished(run))) == []
    late = award(JOB, nonce=8)
    assert only(lone.receive("ann", offer(late)), OfferDeclined).reason == "the job has ended"


def test_a_node_that_leaves_gives_everything_back() -> None:
    lone = Lone("bob")
    lone.receive("ann", offer())
    emitted = lone.give(LeaveAsked())
    assert only(emitted, Returned) == Returned(award=AWARD.digest, reason="the node is leaving")
    one_of_kind(emitted, StopRun)


def test_an_award_under_another_ballot_of_the_same_job_is_another_award() -> None:
    """A later steward: receipts go to whoever is steward then."""
    job = spec(holders=(holder("ann"), holder("cat"), holder("dan")))
    lone = Lone("bob")
    (run,) = runs_in(lone.receive("ann", offer(award(job, ranges=spans(0)), job)))
    lone.give(finished(run))
    taken_over = award(job, steward="cat", ballot=Ballot(epoch=1, peer=peer("cat")), ranges=spans(0))
    emitted = lone.receive("cat", offer(taken_over, job))
    assert [to for to, _ in sent(emitted, Receipts)] == [peer("cat")]


def test_limits_of_runs_hold_under_many_offers() -> None:
    lone = Lone("bob", slots=2)
    for number in range(50):
        other = spec(alias=f"job-{number}")
        lone.receive("ann", offer(award(other), other))
        assert lone.peer.snapshot().runs <= 2
    assert lone.peer.snapshot().leases <= DEFAULT_LIMITS.leases_per_peer_max
