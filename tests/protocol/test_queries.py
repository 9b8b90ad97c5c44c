"""Questions to a job's steward, through any peer; and stewards that are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.decrees import Certificate, Final, FinalBody, Next
from protocol.decrees import digest_of as digest_of_decree
from protocol.effects import Effect, Reply, Send
from protocol.events import CancelAsked, PeerLost, StatusAsked
from protocol.limits import Limits
from protocol.messages import CancelReply, CancelRequest, JobView, StatusReply, StatusRequest
from tests.protocol.lone import Lone, misbehaved, of_kind, one_of_kind, only, peer
from tests.protocol.samples import (
    body,
    cancel,
    capability,
    certificate,
    digest_of,
    holder,
    message_fields,
    output_of,
    spec,
)

JOB = spec()
VIEW: JobView = msgspec.structs.replace(message_fields()[StatusReply]["view"], job=JOB.digest)
RUNNING: JobView = msgspec.structs.replace(VIEW, status="running", output=None)


def chain_of(end: FinalBody, by: tuple[str, ...] = ("ann", "cat")) -> tuple[Certificate, ...]:
    return (certificate(JOB, Final(body=digest_of_decree(end)), by=by),)


END = body(JOB)
ENDED: dict[str, Any] = {"view": VIEW, "spec": JOB.signed, "chain": chain_of(END), "body": END}


def asked(lone: Lone, request: int = 1) -> StatusRequest:
    return only(lone.give(StatusAsked(request, JOB.digest, peer("ann"))), StatusRequest)


def reply(number: int, **fields: Any) -> StatusReply:
    return StatusReply(number=number, **(ENDED | fields))


def test_a_question_goes_to_the_steward_and_its_answer_to_the_client() -> None:
    lone = Lone("dan")
    emitted = lone.give(StatusAsked(1, JOB.digest, peer("ann"), 2))
    request = only(emitted, StatusRequest)
    assert emitted == (Send(peer("ann"), StatusRequest(number=request.number, job=JOB.digest, start=2)),)
    answer = reply(request.number)
    assert Reply(1, answer) in lone.receive("ann", answer)
    assert lone.peer.snapshot().tables["questions"] == 0


def test_where_the_keepers_are_is_learned_from_the_answer() -> None:
    lone = Lone("dan")
    lone.receive("ann", reply(asked(lone).number))
    assert peer("bob") in lone.known


def test_a_job_that_its_steward_does_not_know() -> None:
    lone = Lone("dan")
    number = asked(lone).number
    assert lone.receive("ann", StatusReply(number=number)) == (Reply(1, StatusReply(number=0)),)


def refused(lone: Lone, emitted: tuple[Effect, ...]) -> bool:
    return misbehaved(emitted) and of_kind(emitted, Reply) == []


OTHER = spec(alias="other")
LIES: dict[str, dict[str, Any]] = {
    "about another job": {"view": msgspec.structs.replace(VIEW, job=OTHER.digest)},
    "with the spec of another job": {"spec": OTHER.signed},
    "about another job, with its spec": {
        "view": msgspec.structs.replace(VIEW, job=OTHER.digest),
        "spec": OTHER.signed,
    },
    "without the spec": {"spec": None},
    "with a capability as spec": {"spec": capability("ann").signed},
    "without the view": {"view": None},
    "of an end that nobody voted for": {"chain": ()},
    "of an end that too few voted for": {"chain": chain_of(END, ("ann",))},
    "of an end that strangers voted for": {"chain": chain_of(END, ("ann", "eve"))},
    "of another end than was voted for": {"body": body(JOB, output=output_of("another"))},
    "of an end without its body": {"body": None},
    "of another status than was voted for": {"view": msgspec.structs.replace(VIEW, status="failed")},
    "of another output than was voted for": {"view": msgspec.structs.replace(VIEW, output=output_of("another"))},
}


@pytest.mark.parametrize("fields", LIES.values(), ids=LIES)
def test_a_lie_is_refused(fields: dict[str, Any]) -> None:
    lone = Lone("dan")
    assert refused(lone, lone.receive("ann", reply(asked(lone).number, **fields)))


def test_one_that_only_says_it_is_steward_is_refused() -> None:
    """Anybody can sign a pointer that names itself; the spec says who holds the job."""
    lone = Lone("dan")
    request = only(lone.give(StatusAsked(1, JOB.digest, peer("eve"))), StatusRequest)
    assert refused(lone, lone.receive("eve", reply(request.number, view=RUNNING, chain=(), body=None)))


def test_a_holder_that_the_spec_does_not_name_but_the_chain_does_is_believed() -> None:
    lone = Lone("dan")
    request = only(lone.give(StatusAsked(1, JOB.digest, peer("eve"))), StatusRequest)
    taken = Next(holders=(holder("ann"), holder("cat"), holder("eve")), steward=peer("eve"))
    answer = reply(request.number, view=RUNNING, chain=(certificate(JOB, taken),), body=None)
    assert Reply(1, answer) in lone.receive("eve", answer)


def test_an_answer_from_somebody_else_is_ignored() -> None:
    lone = Lone("dan")
    number = asked(lone).number
    assert lone.receive("bob", reply(number)) == ()
    assert lone.receive("ann", CancelReply(number=number, status="cancelled")) == ()
    assert len(of_kind(lone.receive("ann", reply(number)), Reply)) == 1


def test_silence_is_answered_in_time() -> None:
    lone = Lone("dan")
    asked(lone)
    assert one_of_kind(lone.wait(2 * lone.limits.lookup_timeout_ms), Reply) == Reply(1, StatusReply(number=0))


def test_a_steward_that_cannot_be_reached_is_said_at_once() -> None:
    lone = Lone("dan")
    lone.give(CancelAsked(1, cancel(JOB).signed, peer("ann")))
    assert Reply(1, CancelReply(number=0, status="unreachable")) in lone.give(PeerLost(peer("ann"), "refused"))


def test_questions_are_bounded_and_each_is_answered_once() -> None:
    lone = Lone("dan", limits=Limits(lookups_max=3))
    answered: list[int] = []
    for request in range(10):
        emitted = lone.give(StatusAsked(request, JOB.digest, peer("ann")))
        answered += [one.request for one in of_kind(emitted, Reply)]
        assert lone.peer.snapshot().tables["questions"] <= 3
    answered += [one.request for one in of_kind(lone.wait(10_000), Reply)]
    assert sorted(answered) == list(range(10))


# -- the steward's side ---------------------------------------------------------------------------------------


def test_about_an_unknown_job_nothing_is_said() -> None:
    request = StatusRequest(number=3, job=digest_of("unknown"))
    assert Lone().receive("dan", request) == (Send(peer("dan"), StatusReply(number=3)),)


@pytest.mark.parametrize("signed", [cancel(JOB).signed, capability("ann").signed], ids=["unknown job", "no cancel"])
def test_what_cannot_be_cancelled_is_unknown(signed: Any) -> None:
    assert Lone().receive("dan", CancelRequest(number=3, cancel=signed)) == (
        Send(peer("dan"), CancelReply(number=3, status="unknown")),
    )
