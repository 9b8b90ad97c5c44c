"""Keeping a job's files for its steward: a promise only once they are here."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import FetchBlobs, Send
from protocol.events import BlobsFailed, BlobsFetched
from protocol.limits import Limits
from protocol.messages import Ack, HoldAnswer, HoldRequest
from protocol.profile import Policy
from protocol.records import Held, JobSpec
from protocol.signing import Opened
from protocol.wire import Link
from tests.protocol.lone import Lone, misbehaved, of_kind, one_of_kind, only, peer
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import HOUR_MS, forged, nonce_of, spec

JOB = spec()


def request(job: Opened[JobSpec] = JOB) -> HoldRequest:
    return HoldRequest(spec=job.signed, sources=(peer("cat"), peer("ann")))


def test_the_promise_comes_after_the_copy() -> None:
    lone = Lone("bob")
    (fetch,) = lone.receive("ann", request())
    assert isinstance(fetch, FetchBlobs)
    assert fetch == FetchBlobs(fetch.fetch, JOB.record.blobs, (peer("ann"), peer("cat")), JOB.record.not_after)
    (send,) = lone.give(BlobsFetched(fetch.fetch))
    assert isinstance(send, Send)
    assert send.to == peer("ann")
    assert isinstance(send.message, HoldAnswer)
    assert send.message.held is not None
    assert lone.peer._context.open(send.message.held, Held).record == Held(
        job=JOB.digest,
        peer=peer("bob"),
        store=nonce_of("store of bob"),
        until=JOB.record.not_after,
        issued_at=START_WALL,
    )


def test_one_asked_again_meanwhile_copies_once_and_answers_again_afterwards() -> None:
    lone = Lone("bob")
    fetch = one_of_kind(lone.receive("ann", request()), FetchBlobs)
    assert lone.receive("ann", request()) == ()
    lone.give(BlobsFetched(fetch.fetch))
    again = one_of_kind(lone.receive("ann", request()), FetchBlobs)
    assert only(lone.give(BlobsFetched(again.fetch)), HoldAnswer).held is not None


def test_a_copy_that_cannot_be_had_is_said_so() -> None:
    lone = Lone("bob")
    fetch = one_of_kind(lone.receive("ann", request()), FetchBlobs)
    answer = lone.give(BlobsFailed(fetch.fetch, "disk full"))
    assert answer == (Send(peer("ann"), HoldAnswer(job=JOB.digest, reason="disk full")),)
    assert lone.give(BlobsFetched(fetch.fetch)) == ()


@pytest.mark.parametrize(
    ("job", "profile", "reason"),
    [
        (spec("cat"), {}, "only a holder of a job asks for copies"),
        (spec(mesh="other"), {}, "a job of another mesh"),
        (spec(not_after=START_WALL - 60_000), {}, "out of its time by this node's clock"),
        (spec(not_after=START_WALL + 50 * HOUR_MS), {}, "out of its time by this node's clock"),
        (spec(blobs=(Link(cid="c", size=1 << 40),)), {}, "too large to keep a copy of"),
        (JOB, {"policy": Policy(submitters=(peer("ann"),))}, "submitter denied by policy"),
    ],
)
def test_a_request_is_refused_with_a_reason(job: Opened[JobSpec], profile: dict[str, Any], reason: str) -> None:
    assert Lone("bob", **profile).receive("ann", request(job)) == (
        Send(peer("ann"), HoldAnswer(job=job.digest, reason=reason)),
    )


def test_a_node_with_a_wrong_clock_promises_nothing() -> None:
    lone = Lone("bob")
    lone.meet("cat", "dan")
    for name in ("cat", "dan"):
        lone.receive(name, Ack(number=0, wall_ms=START_WALL - 86_400_000))
    assert only(lone.receive("ann", request()), HoldAnswer).reason == "this node's clock is 86400 s ahead"


def test_copies_on_their_way_are_bounded() -> None:
    lone = Lone("bob", limits=Limits(holds_max=3))
    fetches = 0
    for number in range(10):
        emitted = lone.receive("ann", request(spec(alias=f"job-{number}")))
        fetches += len(of_kind(emitted, FetchBlobs))
    assert (fetches, only(emitted, HoldAnswer).reason) == (3, "busy copying for other jobs")
    assert lone.peer.snapshot().tables["holding"] == 3


def test_a_forged_spec_is_an_offence() -> None:
    emitted = Lone("bob").receive("ann", HoldRequest(spec=forged(JOB.signed), sources=()))
    assert misbehaved(emitted)
