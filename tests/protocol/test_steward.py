"""Awards, receipts and ends, told from the point of view of ann, who takes no work herself."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from protocol.allotting import turn_of
from protocol.candidate import Candidate
from protocol.effects import Effect, FetchBlobs, Reply
from protocol.events import BlobsFailed, BlobsFetched, CancelAsked, StatusAsked
from protocol.lease import tasks_in
from protocol.limits import DEFAULT_LIMITS, RECEIPT_BYTES_MAX, Limits
from protocol.messages import (
    Announce,
    Bid,
    CancelReply,
    Decided,
    Disconnect,
    Offer,
    OfferAccepted,
    OfferDeclined,
    Progress,
    Receipts,
    ReceiptsAck,
    Refusal,
    Returned,
    Revoke,
    StatusReply,
    StatusRequest,
    UnknownJob,
)
from protocol.profile import Policy
from protocol.records import Announcement, Award, JobSpec, Receipt
from protocol.signing import Opened, Signed, signing_input
from protocol.wire import Needs, Role, Task
from tests.protocol.hostile import tables
from tests.protocol.lone import Lone, fetched_all, misbehaved, of_kind, only, peer, sent, taken_in
from tests.protocol.mesh import signer
from tests.protocol.samples import (
    cancel,
    capability,
    digest_of,
    failed_receipt,
    holder,
    output_of,
    receipt,
    spec,
    stage,
)


def alone(**fields: Any) -> Opened[JobSpec]:
    """A job that nobody but ann holds: she decides by herself."""
    return spec(holders=(holder("ann"),), **fields)


class Story:
    """A job of ann's; the test plays the workers."""

    def __init__(
        self,
        *workers: str,
        limits: Limits = DEFAULT_LIMITS,
        job: Opened[JobSpec] | None = None,
        slots: int = 1,
        shards: int = 4,
        **fields: Any,
    ) -> None:
        self.job = job or alone(stages=(stage(**fields),))
        self.lone = Lone("ann", limits=limits, policy=Policy(accept_work=False))
        self.lone.living = workers
        taken_in(self.lone, self.job)
        self.shards = shards
        self.open: list[tuple[str, Opened[Award]]] = []
        self.emitted: tuple[Effect, ...] = ()
        for name in workers:
            self.saw(self.lone.meet(name))
            self.bid(name, slots=slots)

    def saw(self, emitted: tuple[Effect, ...]) -> tuple[Effect, ...]:
        """Remember the offers among some effects."""
        names = {peer(name): name for name in ("bob", "cat", "dan")}
        for to, offer in sent(emitted, Offer):
            self.open.append((names[to], self.lone.peer._context.open(offer.award, Award)))
        self.emitted = emitted
        return emitted

    def receive(self, name: str, message: Any) -> tuple[Effect, ...]:
        return self.saw(self.lone.receive(name, message))

    def wait(self, milliseconds: int) -> tuple[Effect, ...]:
        return self.saw(self.lone.wait(milliseconds))

    def bid(self, name: str, **fields: Any) -> tuple[Effect, ...]:
        announcement = only(self.emitted, Announce) if sent(self.emitted, Announce) else None
        digest = (
            announcement.announcement.digest
            if announcement is not None
            else self.lone.peer._steward.find(self.job.digest).announcement.digest  # type: ignore[union-attr]
        )
        values: dict[str, Any] = {
            "slots": 1,
            "start_in_ms": 0,
            "task_ms": 0,
            "capability": capability(name).signed,
        } | fields
        return self.receive(name, Bid(announcement=digest, job=self.job.digest, stage=0, **values))

    def take(self) -> tuple[str, Opened[Award]]:
        """The award that was offered longest ago, accepted."""
        name, award = self.open.pop(0)
        self.receive(name, OfferAccepted(award=award.digest))
        return name, award

    def deliver(self, name: str, *receipts: Opened[Receipt]) -> tuple[Effect, ...]:
        return self.receive(name, Receipts(job=self.job.digest, receipts=tuple(one.signed for one in receipts)))

    def lose_copy(self, fetch: FetchBlobs) -> None:
        """A pinned output cannot be had, as often as the steward tries; what is offered from then on is open."""
        for _ in range(self.lone.limits.copy_tries - 1):
            self.lone.give(BlobsFailed(fetch.fetch, "nobody has it"))
            (fetch,) = of_kind(self.wait(self.lone.limits.copy_retry_ms * 3 // 2), FetchBlobs)
        self.open.clear()
        self.saw(self.lone.give(BlobsFailed(fetch.fetch, "nobody has it")))
        while not self.open:
            self.wait(500)  # until a worker that let its offer run out is asked again

    def finish(self, name: str, award: Opened[Award]) -> tuple[Effect, ...]:
        """The worker does all of an award; copies of its outputs arrive at once."""
        done = [
            receipt(
                award,
                worker=name,
                task=task,
                output=output_of(f"{task.role} {task.index}"),
                shards=self.shards if task.role is Role.SPLIT else 0,
                upstream=(),
            )
            for task in tasks_in(award.record)
        ]
        emitted = self.deliver(name, *done)
        return emitted + self.saw(fetched_all(self.lone, emitted))

    def status(self) -> StatusReply:
        emitted = self.lone.give(StatusAsked(9, self.job.digest, self.lone.me, 0))
        (reply,) = of_kind(emitted, Reply)
        assert isinstance(reply.answer, StatusReply)
        return reply.answer

    def outcomes(self, task: Task) -> list[tuple[str, str]]:
        return [(one.outcome, one.reason) for view in self.status().tasks if view.task == task for one in view.tries]


SPLIT, MERGE = Task(role=Role.SPLIT), Task(role=Role.MERGE)


# -- the good way ---------------------------------------------------------------------------------------------


def test_who_bids_is_offered_the_split_and_then_a_share_of_the_shards() -> None:
    story = Story("bob", "cat")
    name, award = story.take()
    assert (name, award.record.role, award.record.shards) == ("bob", Role.SPLIT, 0)
    story.finish(name, award)
    offers = [
        (name, award.record.role, [(span.start, span.stop) for span in award.record.ranges])
        for name, award in story.open
    ]
    assert len(offers) >= 2
    assert {name for name, _, _ in offers} == {"bob", "cat"}
    assert offers[0][1:] == (Role.SHARD, [(0, 1)])
    given = story.open[0][1].record
    assert (given.shards, given.split) == (4, output_of("split 0"))


def test_a_whole_job() -> None:
    story = Story("bob")
    while story.open:
        story.finish(*story.take())
    view = story.status().view
    assert view is not None
    assert (view.status, view.merge_status, view.total_shards, view.succeeded) == ("success", "success", 4, 4)
    assert view.output == output_of("merge 0")
    ((to, decided),) = sent(story.emitted, Decided)
    assert (to, decided.job) == (peer("bob"), story.job.digest)
    assert decided.body is not None
    assert decided.body.output == view.output, "its worker is told how it ended"


def test_every_receipt_is_acknowledged_also_one_that_comes_again() -> None:
    story = Story("bob")
    name, award = story.take()
    one = receipt(award, worker=name)
    for _ in range(2):
        emitted = story.deliver(name, one)
        assert sent(emitted, ReceiptsAck) == [(peer("bob"), ReceiptsAck(receipts=(one.digest,)))]
    assert len(story.status().tasks) == 6
    assert story.outcomes(SPLIT) == [("success", "")]


def test_receipts_of_a_job_that_has_ended_are_answered_with_how_it_did() -> None:
    story = Story("bob")
    while story.open:
        name, award = story.take()
        story.finish(name, award)
    decided = only(story.deliver(name, receipt(award, worker=name)), Decided)
    assert decided.body is not None
    assert decided.body.status == "success"
    assert len(decided.chain) == 1


def test_receipts_of_an_unknown_job_are_said_to_be_so() -> None:
    story = Story("bob")
    unknown = digest_of("unknown")
    assert only(story.receive("bob", Receipts(job=unknown, receipts=())), UnknownJob) == UnknownJob(job=unknown)


# -- inadmissible receipts ------------------------------------------------------------------------------------


def counts_of(story: Story) -> tuple[int, int, int]:
    view = story.status().view
    assert view is not None
    return (view.total_shards, view.succeeded, view.failed)


def story_with_shards() -> tuple[Story, str, Opened[Award]]:
    story = Story("bob")
    story.finish(*story.take())
    name, award = story.take()
    assert counts_of(story) == (4, 0, 0)
    return story, name, award


def test_a_receipt_of_another_worker_does_not_count() -> None:
    """Cat signs for what bob was given."""
    story, _, award = story_with_shards()
    assert misbehaved(story.deliver("cat", receipt(award, worker="cat")))
    assert counts_of(story) == (4, 0, 0)


def test_a_receipt_of_a_task_that_is_not_in_the_award_does_not_count() -> None:
    story, name, award = story_with_shards()
    for task in (Task(index=3), MERGE, Task(stage=1, index=0)):
        assert misbehaved(story.deliver(name, receipt(award, worker=name, task=task)))
    assert counts_of(story) == (4, 0, 0)


def test_a_receipt_under_an_award_that_was_never_given_does_not_count() -> None:
    story, name, award = story_with_shards()
    story.deliver(name, receipt(award, worker=name, award=digest_of("no award")))
    assert counts_of(story) == (4, 0, 0)


def test_a_receipt_of_another_job_does_not_count() -> None:
    story, name, award = story_with_shards()
    story.deliver(name, receipt(award, worker=name, job=digest_of("another job")))
    assert counts_of(story) == (4, 0, 0)


def test_a_failure_that_is_replayed_counts_once() -> None:
    story, name, award = story_with_shards()
    failure = failed_receipt(award, "exit code 1", worker=name)
    for _ in range(10):
        story.deliver(name, failure)
    assert story.outcomes(failure.record.task)[0] == ("failed", "exit code 1")
    assert counts_of(story) == (4, 0, 0), "attempts are left"


def test_a_try_that_failed_does_not_succeed_later() -> None:
    story, name, award = story_with_shards()
    story.deliver(name, failed_receipt(award, "exit code 1", worker=name))
    story.deliver(name, receipt(award, worker=name))
    assert story.outcomes(Task(index=0))[0] == ("failed", "exit code 1")
    assert counts_of(story) == (4, 0, 0)


def test_a_success_without_an_output_is_a_failure() -> None:
    story, name, award = story_with_shards()
    story.deliver(name, receipt(award, worker=name, output=None))
    assert story.outcomes(Task(index=0))[0] == ("failed", "a success without an output")


def test_a_receipt_over_a_split_that_no_longer_counts_is_void() -> None:
    story = Story("bob", "cat", slots=8)
    name, award = story.take()
    (fetch,) = of_kind(story.deliver(name, receipt(award, worker=name, output=output_of("old split"))), FetchBlobs)
    worker, over_the_old = story.take()
    story.lose_copy(fetch)
    story.finish(*story.take())
    story.finish(worker, over_the_old)
    assert counts_of(story) == (4, 0, 0)


def test_who_forges_a_receipt_commits_an_offence() -> None:
    story, name, award = story_with_shards()
    good = receipt(award, worker=name)
    stolen = failed_receipt(award, "x", worker=name).signed
    forged = type(stolen)(payload=good.signed.payload, signature=stolen.signature)
    assert misbehaved(story.receive(name, Receipts(job=story.job.digest, receipts=(forged,))))
    assert counts_of(story) == (4, 0, 0)


# -- tries that end without a receipt -------------------------------------------------------------------------


def test_an_offer_that_is_not_answered_goes_to_the_next() -> None:
    story = Story("bob", "cat")
    first = story.open.pop(0)
    emitted = story.wait(story.lone.limits.offer_timeout_ms)
    assert (peer("bob"), Revoke(award=first[1].digest, reason="no answer in time")) in sent(emitted, Revoke)
    assert [name for name, _ in story.open] == ["cat"]
    assert story.outcomes(SPLIT)[0] == ("lost", "the offer was not answered")


def test_one_that_declines_is_passed_over_for_a_while_and_costs_no_try() -> None:
    story = Story("bob")
    _, award = story.open.pop(0)
    story.receive("bob", OfferDeclined(award=award.digest, reason="out of disk"))
    assert story.outcomes(SPLIT) == [("declined", "out of disk")]
    assert story.open == []
    story.wait(story.lone.limits.worker_pause_ms + 1_000)
    assert [name for name, _ in story.open] == ["bob"]


def test_a_worker_that_falls_silent_loses_its_lease() -> None:
    story = Story("bob")
    story.take()
    story.wait(story.lone.limits.progress_timeout_ms + 2_000)
    assert story.outcomes(SPLIT)[0] == ("lost", "nothing heard of it")


def test_a_worker_that_reports_keeps_its_lease_until_it_runs_out() -> None:
    story = Story("bob")
    _, award = story.take()
    for _ in range(55):
        story.wait(1_000)
        story.receive("bob", Progress(award=award.digest, running=(0,), left=1))
    assert story.outcomes(SPLIT) == [("running", "")]
    for _ in range(8):
        story.wait(1_000)
        story.receive("bob", Progress(award=award.digest, running=(0,), left=1))
    assert story.outcomes(SPLIT)[0] == ("expired", "the lease ran out")


def test_progress_under_no_open_award_is_answered_by_revoking_it() -> None:
    story = Story("bob")
    progress = Progress(award=digest_of("no award"), running=(), left=1)
    assert only(story.receive("bob", progress), Revoke).award == digest_of("no award")


def test_what_is_given_back_starts_elsewhere() -> None:
    story = Story("bob", "cat")
    name, award = story.take()
    story.receive(name, Returned(award=award.digest, reason="no disk space"))
    assert story.outcomes(SPLIT)[0] == ("lost", "no disk space")
    assert [other for other, _ in story.open] == ["cat"]


@pytest.mark.parametrize("kind", [OfferAccepted, OfferDeclined, Returned])
def test_nobody_answers_for_another(kind: Any) -> None:
    story = Story("bob")
    _, award = story.open[0]
    fields = {} if kind is OfferAccepted else {"reason": "?"}
    story.receive("cat", kind(award=award.digest, **fields))
    assert story.outcomes(SPLIT) == [("offered", "")]


def test_a_worker_that_leaves_is_replaced_at_once() -> None:
    story = Story("bob", "cat")
    story.take()
    story.receive("bob", Disconnect(leaving=True))
    assert story.outcomes(SPLIT)[0] == ("lost", "the worker is gone")
    assert [name for name, _ in story.open] == ["cat"]


def test_an_expired_lease_does_not_stop_the_first_worker_from_being_first() -> None:
    story = Story("bob", "cat")
    name, award = story.take()
    while not story.open:
        story.wait(500)  # until it is lost, and given to the other
    other, again = story.open[-1]
    story.receive(other, OfferAccepted(award=again.digest))
    emitted = story.deliver(name, receipt(award, worker=name))
    assert (peer(other), Revoke(award=again.digest, reason="another try was first")) in sent(emitted, Revoke)
    assert story.outcomes(SPLIT)[0] == ("success", "")


# -- bids -----------------------------------------------------------------------------------------------------


def test_the_warm_and_early_are_preferred() -> None:
    story = Story("bob", "cat")
    story.finish(*story.take())
    job = story.lone.peer._steward.find(story.job.digest)
    assert job is not None
    slow, fast = job.candidates[peer("bob")], job.candidates[peer("cat")]
    split = job.plan.split
    assert split is not None

    def expected_ms(candidate: Candidate) -> int:
        turn = turn_of(job, candidate, split, 1, story.lone.now, DEFAULT_LIMITS)
        return min(turn.free_ms) + turn.task_ms + turn.fetch_ms

    cold = expected_ms(fast)
    fast.bid = type(fast.bid)(
        announcement=fast.bid.announcement,
        job=fast.bid.job,
        stage=0,
        slots=1,
        start_in_ms=0,
        task_ms=10,
        warm=True,
        has_inputs=True,
        capability=fast.bid.capability,
    )
    assert expected_ms(fast) < cold
    assert expected_ms(fast) < expected_ms(slow)


def test_a_bidder_that_counts_as_gone_is_not_gone() -> None:
    story = Story("bob")
    story.lone.peer._views.depart(peer("bob"))
    story.bid("bob")
    assert not story.lone.peer.believes_gone(peer("bob"))


def test_but_who_bids_with_a_record_of_another_time_gets_nothing() -> None:
    """It would stay among the gone: nobody would notice when it dies with the award that it is given."""
    story = Story()
    story.lone.meet("bob")
    old = capability("bob", issued_at=0, not_after=60_000)
    story.bid("bob", capability=old.signed)
    assert not story.open
    job = story.lone.peer._steward.find(story.job.digest)
    assert job is not None
    assert job.refusals[peer("bob")].startswith("a record expired ")


def test_bids_are_bounded() -> None:
    story = Story(limits=Limits(bids_per_auction_max=5, refusals_kept_max=4))
    job = story.lone.peer._steward.find(story.job.digest)
    assert job is not None
    digest = job.announcement.digest if job.announcement else b""
    for number in range(50):
        name = f"stranger-{number}"
        bid = Bid(
            announcement=digest,
            job=story.job.digest,
            stage=0,
            slots=1,
            start_in_ms=0,
            task_ms=0,
            capability=capability(name).signed,
        )
        story.lone.receive(name, bid)
        story.lone.receive(f"other-{number}", Refusal(announcement=digest, job=story.job.digest, stage=0, reason="no"))
    assert (len(job.candidates), len(job.refusals)) == (5, 4)
    assert {path: size for path, size in tables(job).items() if size > 20 and "reader" not in path} == {}


def test_a_bid_for_an_unknown_job_or_round_is_ignored() -> None:
    story = Story()
    for announcement, job in ((digest_of("?"), story.job.digest), (digest_of("?"), digest_of("?"))):
        bid = Bid(
            announcement=announcement,
            job=job,
            stage=0,
            slots=1,
            start_in_ms=0,
            task_ms=0,
            capability=capability("bob").signed,
        )
        assert sent(story.lone.receive("bob", bid), Offer) == []


def test_why_nothing_runs_is_said_peer_by_peer() -> None:
    story = Story(needs=Needs(memory_bytes=64 << 30))
    story.lone.meet("cat")
    view = story.status().view
    assert view is not None
    reasons = {refusal.peer: refusal.reason for refusal in view.refusals}
    assert reasons == {peer("ann"): "this node takes no work", peer("cat"): "memory 1 < 64 GiB (by its record)"}
    assert view.waiting == "no peer can run it: 2 of 2 peers heard from refuse"


def test_what_waits_is_announced_again_and_again_ever_more_widely() -> None:
    story = Story("bob", needs=Needs(memory_bytes=64 << 30))
    story.lone.peer._steward.find(story.job.digest).candidates.clear()  # type: ignore[union-attr]
    announces = [message for _, message in sent(story.lone.wait(30_000), Announce)]
    context = story.lone.peer._context
    rounds = [context.open(one.announcement, Announcement).record.round for one in announces]
    assert rounds == sorted(rounds)
    assert len(set(rounds)) >= 4
    assert max(one.hops for one in announces) == story.lone.limits.flood_hops


@pytest.mark.parametrize(("workers", "is_announced"), [(("bob", "cat"), False), (("bob",), True)])
def test_what_waits_for_a_worker_to_be_free_is_announced_only_if_there_are_too_few(
    workers: tuple[str, ...], is_announced: bool
) -> None:
    story = Story(*workers, shards=4)
    story.finish(*story.take())
    while story.open:
        story.take()
    assert bool(sent(story.wait(2 * story.lone.limits.reannounce_first_ms), Announce)) is is_announced


@pytest.mark.parametrize(("workers", "is_told"), [(("bob", "cat"), False), (("bob",), True)])
def test_a_peer_that_comes_late_hears_of_what_waits_if_bidders_are_too_few(
    workers: tuple[str, ...], is_told: bool
) -> None:
    story = Story(*workers, shards=4)
    story.finish(*story.take())
    told = [to for to, _ in sent(story.lone.meet("eve"), Announce)]
    assert (peer("eve") in told) is is_told


# -- copies and ends ------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_copied_is_made_again() -> None:
    story = Story("bob", "cat", slots=8)
    name, award = story.take()
    emitted = story.deliver(name, receipt(award, worker=name))
    (fetch,) = of_kind(emitted, FetchBlobs)
    assert fetch.sources == (peer("bob"),)
    story.lose_copy(fetch)
    assert [award.record.role for _, award in story.open] == [Role.SPLIT]


def test_an_output_that_came_with_its_receipt_is_not_fetched() -> None:
    story = Story("bob", "cat", slots=8)
    name, award = story.take()
    done = receipt(award, worker=name, output=output_of("few"))
    message = Receipts(job=story.job.digest, receipts=(done.signed,), contents=(b"others", b"few"))
    (fetch,) = of_kind(story.receive(name, message), FetchBlobs)
    assert fetch.contents == (b"few",)
    assert fetch.sources == (peer(name),), "should it not be what it is said to be"


def test_a_copy_that_failed_once_is_tried_again() -> None:
    story = Story("bob", "cat", slots=8)
    name, award = story.take()
    (fetch,) = of_kind(story.deliver(name, receipt(award, worker=name)), FetchBlobs)
    story.lone.give(BlobsFailed(fetch.fetch, "no address is known"))
    (again,) = of_kind(story.wait(story.lone.limits.copy_retry_ms * 3 // 2), FetchBlobs)
    assert again.blobs == fetch.blobs
    story.lone.give(BlobsFetched(again.fetch))
    assert story.outcomes(SPLIT) == [("success", "")]


def test_an_old_copy_that_fails_late_means_nothing_once_another_is_here() -> None:
    story = Story("bob", "cat", slots=8)
    name, award = story.take()
    (late,) = of_kind(story.deliver(name, receipt(award, worker=name)), FetchBlobs)
    story.receive(name, Disconnect(leaving=True))
    worker, again = next((name, award) for name, award in story.open if award.record.role is Role.SPLIT)
    story.receive(worker, OfferAccepted(award=again.digest))
    other = receipt(again, worker=worker, output=output_of("another split"))
    (fetch,) = of_kind(story.deliver(worker, other), FetchBlobs)
    story.lone.give(BlobsFetched(fetch.fetch))
    story.open.clear()
    story.saw(story.lone.give(BlobsFailed(late.fetch, "the link broke")))
    story.wait(story.lone.limits.copy_retry_ms * 3 // 2)
    assert not [award for _, award in story.open if award.record.role is Role.SPLIT]


def test_a_lost_output_that_arrives_after_all_is_not_made_again() -> None:
    story = Story("bob", "cat", slots=8)
    name, award = story.take()
    (late,) = of_kind(story.deliver(name, receipt(award, worker=name)), FetchBlobs)
    story.receive(name, Disconnect(leaving=True))
    worker, again = next((name, award) for name, award in story.open if award.record.role is Role.SPLIT)
    emitted = story.lone.give(BlobsFetched(late.fetch))
    assert (peer(worker), Revoke(award=again.digest, reason="another try was first")) in sent(emitted, Revoke)
    assert story.outcomes(SPLIT) == [("success", ""), ("revoked", "another try was first")]


def test_a_job_ends_with_the_copy_of_its_output_not_before() -> None:
    story = Story("bob")
    while story.open[0][1].record.role is not Role.MERGE:
        story.finish(*story.take())
    name, award = story.take()
    emitted = story.deliver(name, receipt(award, worker=name, output=output_of("merged")))
    assert story.status().view.status == "running"  # type: ignore[union-attr]
    fetched_all(story.lone, emitted)
    view = story.status().view
    assert view is not None
    assert view.status == "success"
    assert set(view.keepers) == {peer("ann"), peer("bob")}


def test_a_job_past_its_deadline_has_failed() -> None:
    story = Story(job=alone(deadline_ms=20_000))
    story.lone.wait(25_000)
    view = story.status().view
    assert view is not None
    assert (view.status, view.error) == ("failed", "the job's deadline of 20 s has passed with nothing done")


@pytest.mark.parametrize(("submitter", "status"), [("submitter", "cancelled"), ("eve", "unknown")])
def test_only_the_submitter_cancels(submitter: str, status: str) -> None:
    story = Story("bob")
    story.take()
    signed = cancel(story.job, submitter=submitter).signed
    emitted = story.lone.give(CancelAsked(5, signed, story.lone.me))
    (reply,) = of_kind(emitted, Reply)
    assert isinstance(reply.answer, CancelReply)
    assert (reply.request, reply.answer.status) == (5, status)
    assert ([to for to, _ in sent(emitted, Decided)] == [peer("bob")]) == (status == "cancelled")


def test_finished_jobs_are_kept_up_to_a_bound() -> None:
    lone = Lone(limits=Limits(jobs_max=3))
    for number in range(8):
        job = alone(alias=f"job-{number}", deadline_ms=1_000, stages=(stage(needs=Needs(cpu_milli=9_000)),))
        taken_in(lone, job, request=number)
        lone.wait(5_000)
    tables = lone.peer.snapshot().tables
    assert (tables["jobs"], tables["records"], tables["tombstones"]) == (0, 3, 5)


def test_large_receipts_of_workers_do_not_make_an_answer_too_large_to_send() -> None:
    """A receipt may hold fields that this version skips, up to the size of any receipt."""
    story = Story("bob", slots=64, shards=40)
    story.finish(*story.take())
    while story.open[0][1].record.role is not Role.MERGE:
        name, award = story.take()
        for task in tasks_in(award.record):
            done = receipt(award, worker=name, task=task, output=output_of(f"{task}"), upstream=())
            story.saw(fetched_all(story.lone, story.deliver(name, padded(done, name))))
    only(story.lone.receive("dan", StatusRequest(number=1, job=story.job.digest, start=0)), StatusReply)


def padded(opened: Opened[Receipt], name: str, beyond: int = 0) -> Opened[Receipt]:
    """The same receipt, as large as one may be, or larger by ``beyond``."""
    fields = cbor2.loads(opened.signed.payload)
    fields["later"] = bytes(RECEIPT_BYTES_MAX + beyond - len(opened.signed.payload) - 16)
    payload = cbor2.dumps(fields, canonical=True)
    assert RECEIPT_BYTES_MAX - 16 < len(payload) - beyond <= RECEIPT_BYTES_MAX
    signed = Signed(payload=payload, signature=signer(name).sign(signing_input("receipt", payload)))
    return Opened(opened.record, signed.digest, signed)


def test_a_receipt_that_is_too_large_is_an_offence_and_does_not_count() -> None:
    story = Story("bob", slots=64, shards=4)
    story.finish(*story.take())
    name, award = story.take()
    task = tasks_in(award.record)[0]
    done = receipt(award, worker=name, task=task, output=output_of(f"{task}"), upstream=())
    assert misbehaved(story.deliver(name, padded(done, name, beyond=64)))
    view = story.status().view
    assert view is not None
    assert view.succeeded == 0


def test_long_reasons_of_workers_do_not_make_an_answer_too_large_to_send() -> None:
    story = Story("bob", slots=16, shards=16)
    story.finish(*story.take())
    for _ in range(20):
        for _, award in [story.open.pop() for _ in range(len(story.open))]:
            story.receive("bob", OfferDeclined(award=award.digest, reason="\U0001f4a5" * 1024))
        story.wait(story.lone.limits.worker_pause_ms + 500)
    only(story.lone.receive("dan", StatusRequest(number=1, job=story.job.digest, start=0)), StatusReply)
