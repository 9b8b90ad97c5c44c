"""Questions to a job's steward, through any peer; and stewards that are none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.decrees import Next
from protocol.effects import Effect, Reply, Send
from protocol.events import CancelAsked, PeerLost, StatusAsked
from protocol.limits import Limits
from protocol.messages import CancelReply, CancelRequest, JobView, StatusReply, StatusRequest
from tests.protocol.lone import Lone, misbehaved, of_kind, one_of_kind, only, peer
from tests.protocol.samples import cancel, capability, certificate, digest_of, holder, message_fields, spec

JOB = spec()
VIEW: JobView = msgspec.structs.replace(message_fields()[StatusReply]["view"], job=JOB.digest)


def asked(lone: Lone, request: int = 1) -> StatusRequest:
    return only(lone.give(StatusAsked(request, JOB.digest, peer("ann"))), StatusRequest)


def reply(number: int, **fields: Any) -> StatusReply:
    return StatusReply(number=number, **({"view": VIEW, "spec": JOB.signed} | fields))


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
}


@pytest.mark.parametrize("fields", LIES.values(), ids=LIES)
def test_a_lie_is_refused(fields: dict[str, Any]) -> None:
    lone = Lone("dan")
    assert refused(lone, lone.receive("ann", reply(asked(lone).number, **fields)))


def test_one_that_only_says_it_is_steward_is_refused() -> None:
    """Anybody can sign a pointer that names itself; the spec says who holds the job."""
    lone = Lone("dan")
    request = only(lone.give(StatusAsked(1, JOB.digest, peer("eve"))), StatusRequest)
    assert refused(lone, lone.receive("eve", reply(request.number)))


@pytest.mark.parametrize(("voters", "believed"), [(("ann", "bob"), True), (("ann",), False)])
def test_who_became_a_holder_is_believed_if_the_holders_before_say_so(voters: tuple[str, ...], believed: bool) -> None:
    lone = Lone("dan")
    request = only(lone.give(StatusAsked(1, JOB.digest, peer("eve"))), StatusRequest)
    chain = (certificate(JOB, Next(holders=(holder("eve"),), steward=peer("eve")), by=voters),)
    emitted = lone.receive("eve", reply(request.number, chain=chain))
    assert refused(lone, emitted) != believed
    assert bool(of_kind(emitted, Reply)) == believed


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
