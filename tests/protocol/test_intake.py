"""From a signed spec to "accepted", and every reason why not."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.clock import WallMs
from protocol.effects import Effect, FetchBlobs, Proposal, Reply, Send
from protocol.events import BlobsFailed, BlobsFetched, ClockObserved, JobSubmitted, ProposalAsked
from protocol.limits import Limits
from protocol.messages import (
    Ack,
    Create,
    Created,
    HoldAnswer,
    HoldRequest,
    PointerStored,
    Prepare,
    Promise,
    StorePointer,
    Submit,
    SubmitReply,
)
from protocol.profile import Policy
from protocol.records import JobSpec
from protocol.signing import Opened
from protocol.wire import Ballot, Holder, Link
from tests.protocol.lone import Lone, fetched_all, misbehaved, of_kind, one_of_kind, only, peer, sent, taken_in
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import HOUR_MS, forged, held, holder, nonce_of, spec, stage

JOB = spec()
ALONE = spec(holders=(holder("ann"),))
SOURCES = (peer("client"),)


def submit(lone: Lone, job: Opened[JobSpec] = JOB, request: int = 1) -> tuple[Effect, ...]:
    return lone.give(JobSubmitted(request, job.signed, SOURCES))


def answers(emitted: tuple[Effect, ...]) -> list[SubmitReply]:
    return [reply.answer for reply in of_kind(emitted, Reply) if isinstance(reply.answer, SubmitReply)]


def refusal_of(lone: Lone, job: Opened[JobSpec]) -> str:
    (answer,) = answers(emitted := submit(lone, job))
    assert not answer.accepted
    assert of_kind(emitted, FetchBlobs) == [], "nothing is begun"
    assert lone.peer.snapshot().tables["submissions"] == 0
    return answer.reason


# -- every refusal is one sentence ----------------------------------------------------------------------------

REFUSED: list[tuple[Opened[JobSpec], str]] = [
    (spec(mesh="other"), "the job is for mesh 'other', this is 'test'"),
    (
        spec(holders=(Holder(peer=peer("ann"), store=nonce_of("an old disk")), holder("bob"), holder("cat"))),
        "the spec names holders that are not this node's store",
    ),
    (spec(holders=(holder("bob"),)), "the spec names holders that are not this node's store"),
    (spec(issued_at=START_WALL + 3_600_000), "the job is dated 3600 s in the future: check the clocks"),
    (spec(not_after=START_WALL), "the job has expired"),
    (spec(not_after=START_WALL + 50 * HOUR_MS), "the job would be kept for more than 48 h"),
    (spec(stages=(stage(), stage())), "job graphs of several stages are not supported by this version"),
    (spec(stages=(stage(split="zigzag"),)), "split 'zigzag' with merge 'concat-json' is not supported by this version"),
    (spec(stages=(stage(merge="elect"),)), "split 'tile' with merge 'elect' is not supported by this version"),
    (spec(stages=(stage(merge=""),)), "a split needs a merge"),
]


@pytest.mark.parametrize(("job", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_is_refused(job: Opened[JobSpec], reason: str) -> None:
    assert refusal_of(Lone(), job) == reason


def test_a_submitter_that_policy_does_not_want_is_refused() -> None:
    assert refusal_of(Lone(policy=Policy(submitters=(peer("ann"),))), JOB) == "submitter denied by policy"


def test_a_node_with_a_wrong_clock_takes_no_jobs() -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    for name in ("bob", "cat"):
        lone.receive(name, Ack(number=0, wall_ms=START_WALL + 86_400_000))
    assert refusal_of(lone, JOB) == "this node's clock is 86400 s behind"


def test_a_jump_of_the_own_clock_is_seen_in_the_dates() -> None:
    lone = Lone()
    lone.give(ClockObserved(WallMs(START_WALL - 86_400_000)))
    assert "in the future: check the clocks" in refusal_of(lone, JOB)


def test_a_node_with_enough_jobs_takes_no_more() -> None:
    lone = Lone(limits=Limits(running_jobs_max=1), policy=Policy(accept_work=False))
    taken_in(lone, ALONE)
    assert refusal_of(lone, spec(alias="next")) == "this node already looks after 1 running jobs"


def test_jobs_on_their_way_count_as_well() -> None:
    """Otherwise a flood of specs whose files never come fills the memory."""
    lone = Lone(limits=Limits(submissions_max=3))
    for number in range(10):
        lone.receive("eve", Submit(number=number, spec=spec(alias=f"job-{number}").signed, sources=()))
    assert lone.peer.snapshot().tables["submissions"] <= 3


def test_a_stage_that_may_run_for_longer_than_the_job_lives_is_refused() -> None:
    """Its lease would not fit into an award: workers would take the award for garbage, and its steward for a liar."""
    lone = Lone()
    assert "timeout" in refusal_of(lone, spec(stages=(stage(timeout_ms=(1 << 53) - 1),)))


def test_what_is_no_spec_is_refused_to_a_client_and_an_offence_of_a_peer() -> None:
    (answer,) = answers(Lone().give(JobSubmitted(1, forged(JOB.signed), ())))
    assert answer.reason.startswith("not a job spec: bad signature")
    assert misbehaved(Lone().receive("eve", Submit(number=1, spec=forged(JOB.signed), sources=())))


def test_a_peer_that_does_not_hold_a_job_does_not_take_it_in() -> None:
    emitted = Lone("dan").receive("eve", Submit(number=7, spec=JOB.signed, sources=()))
    reason = "the spec names holders that are not this node's store"
    assert only(emitted, SubmitReply) == SubmitReply(number=7, accepted=False, reason=reason)


# -- the way to acceptance ------------------------------------------------------------------------------------


def test_a_mesh_of_one_accepts_what_it_has_fetched_and_says_what_it_cannot_promise() -> None:
    lone = Lone()
    (fetch,) = submit(lone, ALONE)
    assert isinstance(fetch, FetchBlobs)
    assert fetch == FetchBlobs(fetch.fetch, ALONE.record.blobs, SOURCES, ALONE.record.not_after)
    (answer,) = answers(lone.give(BlobsFetched(fetch.fetch)))
    assert answer == SubmitReply(
        number=0, accepted=True, copies=1, pointers=1, notes=("1 of 2 copies of the files could be made",)
    )


def created(name: str, job: Opened[JobSpec] = JOB, **fields: Any) -> Created:
    return Created(**({"job": job.digest, "store": holder(name).store} | fields))


def test_in_a_larger_mesh_the_record_a_copy_and_two_pointers_come_first() -> None:
    lone = Lone()
    lone.meet("bob", "cat", "dan")
    emitted = fetched_all(lone, submit(lone))
    assert answers(emitted) == []
    assert [to for to, _ in sent(emitted, Create)] == [peer("bob"), peer("cat")]
    assert answers(lone.receive("cat", created("cat"))) == []
    ((to, request),) = sent(emitted, HoldRequest)
    assert (to, request.spec) == (peer("bob"), JOB.signed), "a holder named in the spec goes first"
    emitted = lone.receive("bob", HoldAnswer(job=JOB.digest, held=held(JOB).signed))
    assert answers(emitted) == []
    stores = sent(emitted, StorePointer)
    assert len({to for to, _ in stores}) == 3
    digest = stores[0][1].pointer.digest
    assert answers(lone.receive("cat", PointerStored(pointer=digest))) == []
    (answer,) = answers(lone.receive("dan", PointerStored(pointer=digest)))
    assert answer == SubmitReply(number=0, accepted=True, copies=2, pointers=3)


def test_two_further_copies_are_sought_for_a_durable_job() -> None:
    lone = Lone()
    lone.meet("bob", "cat", "dan")
    emitted = fetched_all(lone, submit(lone, spec(durability=2)))
    assert [to for to, _ in sent(emitted, HoldRequest)] == [peer("bob"), peer("cat")]


@pytest.mark.parametrize(
    ("name", "fields"),
    [("cat", {"store": nonce_of("a new disk")}), ("cat", {"reason": "the job has expired"}), ("dan", {})],
    ids=["another store", "a refusal", "no holder"],
)
def test_what_is_no_record_at_a_holder_does_not_count(name: str, fields: dict[str, Any]) -> None:
    lone = Lone()
    lone.living = ("bob", "cat", "dan")
    lone.meet("bob", "cat", "dan")
    emitted = fetched_all(lone, submit(lone))
    emitted += lone.receive("bob", HoldAnswer(job=JOB.digest, held=held(JOB).signed))
    emitted += lone.receive(name, created(name, **fields))
    assert answers(emitted + lone.wait(3_000)) == []
    (answer,) = answers(lone.receive("bob", created("bob")))
    assert answer.accepted


def test_another_holder_takes_a_job_in_under_a_ballot_of_its_own() -> None:
    """Asked because the steward is gone; it may begin once a majority has promised, and then says "accepted"."""
    lone = Lone("bob")
    lone.living = ("cat",)
    lone.meet("cat")
    emitted = fetched_all(lone, lone.receive("eve", Submit(number=7, spec=JOB.signed, sources=())))
    assert {to for to, _ in sent(emitted, Create)} == {peer("ann"), peer("cat")}
    ballot = Ballot(epoch=1, peer=peer("bob"))
    assert {message.ballot for _, message in sent(emitted, Prepare)} == {ballot}
    lone.receive("cat", created("cat"))
    lone.receive("cat", HoldAnswer(job=JOB.digest, held=held(JOB, by="cat").signed))
    assert sent(lone.wait(1_600), SubmitReply) == []
    promise = Promise(job=JOB.digest, ballot=ballot, store=holder("cat").store, wall_ms=START_WALL)
    assert only(lone.receive("cat", promise), SubmitReply).accepted
    assert lone.peer.snapshot().stewarding == (JOB.digest,)


def accepted_after(lone: Lone, emitted: tuple[Effect, ...], job: Opened[JobSpec] = JOB) -> SubmitReply:
    emitted += lone.receive("bob", created("bob", job)) + lone.wait(3_000)
    (answer,) = answers(emitted)
    return answer


def test_one_that_refuses_to_keep_a_copy_is_followed_by_the_next() -> None:
    lone = Lone()
    lone.living = ("bob", "cat")
    lone.meet("bob", "cat")
    fetched_all(lone, submit(lone))
    emitted = lone.receive("bob", HoldAnswer(job=JOB.digest, reason="disk full"))
    assert [to for to, _ in sent(emitted, HoldRequest)] == [peer("cat")]
    answer = accepted_after(lone, lone.receive("cat", HoldAnswer(job=JOB.digest, reason="disk full")))
    assert (answer.accepted, answer.copies) == (True, 1)
    assert answer.notes == ("1 of 2 copies of the files could be made",)


def test_one_that_does_not_answer_is_followed_by_the_next() -> None:
    lone = Lone()
    lone.living = ("bob", "cat")
    lone.meet("bob", "cat")
    fetched_all(lone, submit(lone))
    assert {to for to, _ in sent(lone.wait(lone.limits.hold_timeout_ms - 1), HoldRequest)} == {peer("bob")}
    assert {to for to, _ in sent(lone.wait(1), HoldRequest)} == {peer("cat")}


def test_who_does_not_answer_is_asked_again_ever_later() -> None:
    """A message may have been lost: a job does not wait a minute for that."""
    lone = Lone()
    lone.living = ("bob", "cat")
    lone.meet("bob", "cat")
    fetched_all(lone, submit(lone))
    lone.receive("cat", created("cat"))
    pause_ms = lone.limits.intake_retry_ms
    again = lone.wait(pause_ms)
    assert [to for to, _ in sent(again, Create)] == [to for to, _ in sent(again, HoldRequest)] == [peer("bob")]
    assert not sent(lone.wait(2 * pause_ms - 1), HoldRequest)
    assert sent(lone.wait(1), HoldRequest)
    lone.receive("bob", HoldAnswer(job=JOB.digest, held=held(JOB).signed))
    lone.receive("bob", created("bob"))
    later = lone.wait(5 * pause_ms)
    assert not sent(later, Create) + sent(later, HoldRequest)


@pytest.mark.parametrize("promise", [held(JOB, by="cat"), held(spec(alias="other"))], ids=["cat's", "another job's"])
def test_a_promise_of_somebody_else_is_an_offence_and_does_not_count(promise: Any) -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    fetched_all(lone, submit(lone))
    emitted = lone.receive("bob", HoldAnswer(job=JOB.digest, held=promise.signed))
    assert misbehaved(emitted)
    assert sent(emitted, StorePointer) == []


def test_files_too_large_to_copy_are_accepted_with_a_word_about_it() -> None:
    lone = Lone()
    lone.living = ("bob",)
    lone.meet("bob")
    large = spec(blobs=(Link(cid="large", size=1 << 40),))
    emitted = fetched_all(lone, submit(lone, large))
    assert sent(emitted, HoldRequest) == []
    assert "too large to be copied" in accepted_after(lone, emitted, large).notes[0]


def test_files_that_cannot_be_had_end_it() -> None:
    lone = Lone()
    fetch = one_of_kind(submit(lone), FetchBlobs)
    (answer,) = answers(lone.give(BlobsFailed(fetch.fetch, "nobody has bafk…")))
    assert answer.reason == "not accepted: its files could not be fetched: nobody has bafk…"


def test_what_takes_too_long_is_given_up() -> None:
    lone = Lone()
    submit(lone)
    (answer,) = answers(lone.wait(lone.limits.accept_timeout_ms))
    assert answer.reason.startswith("not accepted: no majority of the job's holders")
    assert lone.peer.snapshot().tables["submissions"] == 0


# -- again ----------------------------------------------------------------------------------------------------


def test_the_same_bytes_are_the_same_job() -> None:
    lone = Lone(policy=Policy(accept_work=False))
    first = submit(lone)
    assert of_kind(submit(lone, request=2), FetchBlobs) == []
    emitted = fetched_all(lone, first) + lone.receive("bob", created("bob"))
    assert sorted(reply.request for reply in of_kind(emitted, Reply)) == [1, 2]
    (answer,) = answers(submit(lone, request=3))
    assert answer.accepted
    assert lone.peer.snapshot().stewarding == (JOB.digest,)


def test_those_who_ask_again_and_again_are_not_all_remembered() -> None:
    lone = Lone()
    submit(lone)
    for number in range(500):
        lone.receive("eve", Submit(number=number, spec=JOB.signed, sources=()))
    (submission,) = lone.peer._intake._submissions.values()
    assert len(submission.askers) <= lone.limits.askers_max


def test_a_job_of_another_steward_is_passed_on_to_it() -> None:
    lone = Lone("dan")
    lone.meet("ann")
    (send,) = submit(lone)
    assert isinstance(send, Send)
    assert send.to == peer("ann")
    assert isinstance(send.message, Submit)
    assert send.message.sources == (peer("dan"), *SOURCES)
    number = send.message.number
    good = SubmitReply(number=number, accepted=True, copies=2, pointers=3)
    assert answers(lone.receive("eve", good)) == [], "only the steward speaks for itself"
    assert answers(lone.receive("ann", good)) == [good]


# -- proposals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "durability", "holders"), [(0, 1, 1), (1, 1, 1), (2, 1, 3), (5, 1, 3), (3, 2, 3), (5, 2, 5)]
)
def test_a_proposal_has_one_three_or_five_holders_and_never_two(known: int, durability: int, holders: int) -> None:
    lone = Lone()
    lone.meet(*[f"peer-{number}" for number in range(known)])
    proposal = one_of_kind(lone.give(ProposalAsked(1, durability)), Reply).answer
    assert isinstance(proposal, Proposal)
    assert len({one.peer for one in proposal.holders}) == len(proposal.holders) == holders
    assert (proposal.steward, proposal.mesh, proposal.wall_ms) == (lone.me, "test", START_WALL)
    assert proposal.holders[0] == holder("ann")
    assert bool(proposal.notes) == (holders == 1)
