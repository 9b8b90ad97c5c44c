"""A bid, or one reason why not."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import auction
from protocol.effects import Effect, Send, StartRun
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import Ack, Announce, Bid, Offer, Refusal
from protocol.profile import Policy
from protocol.wire import Needs
from tests.protocol.lone import Lone, finished, of_kind, only, peer, sent
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import announcement, award, capability, link_of, spec, split_award

GIB = 1 << 30


def asked(lone: Lone, **fields: Any) -> tuple[Effect, ...]:
    """What the peer answers to ann's announcement, and nothing else."""
    message = Announce(announcement=announcement(**fields).signed, steward=capability("ann").signed, hops=0)
    return tuple(effect for effect in lone.receive("ann", message) if isinstance(effect, Send))


def test_an_idle_peer_that_fits_bids_what_it_knows() -> None:
    lone = Lone("bob", slots=3)
    one = announcement()
    assert asked(lone) == (
        Send(
            peer("ann"),
            Bid(
                announcement=one.digest,
                job=one.record.job,
                stage=0,
                slots=3,
                start_in_ms=0,
                task_ms=0,
                warm=False,
                has_inputs=False,
                capability=lone.peer._membership.own.signed,
            ),
        ),
    )


def test_a_peer_that_ran_the_model_before_bids_with_its_figures() -> None:
    lone = Lone("bob", slots=1)
    job = spec()
    award_all = split_award(job)
    started = lone.receive("ann", Offer(award=award_all.signed, spec=job.signed, sources=()))
    (run,) = of_kind(started, StartRun)
    lone.give(finished(run, run_ms=321))
    bid = only(asked(lone), Bid)
    assert (bid.task_ms, bid.warm, bid.start_in_ms) == (321, True, 0)


def test_a_busy_peer_says_when_it_could_start() -> None:
    lone = Lone("bob", slots=1)
    job = spec()
    lone.receive("ann", Offer(award=award(job).signed, spec=job.signed, sources=()))
    assert only(asked(lone), Bid).start_in_ms > 0


@pytest.mark.parametrize(
    ("profile", "needs", "reason"),
    [
        ({"memory_bytes": 16 * GIB}, Needs(memory_bytes=24 * GIB), "memory 16 < 24 GiB"),
        ({}, Needs(cpu_milli=2000), "cpu 1 < 2"),
        ({}, Needs(isolation="landlock"), "isolation landlock wanted, namespace here"),
        ({}, Needs(image="r/n@sha256:0"), "no container engine, and the model needs an image"),
        ({"policy": Policy(accept_work=False)}, Needs(), "this node takes no work"),
        ({"policy": Policy(submitters=(peer("somebody"),))}, Needs(), "submitter denied by policy"),
        (
            {"policy": Policy(images=("good/",)), "isolation": ("namespace", "container")},
            Needs(image="evil/n@sha256:0"),
            "image denied by policy",
        ),
        ({"limits": Limits(leases_per_peer_max=1)}, Needs(), "1 leases held already"),
    ],
)
def test_a_peer_that_cannot_or_may_not_says_why(profile: dict[str, Any], needs: Needs, reason: str) -> None:
    lone = Lone("bob", **profile)
    if "limits" in profile:
        job = spec()
        lone.receive("ann", Offer(award=award(job).signed, spec=job.signed, sources=()))
    one = announcement(needs=needs)
    assert asked(lone, needs=needs) == (
        Send(peer("ann"), Refusal(announcement=one.digest, job=one.record.job, stage=0, reason=reason)),
    )


def test_a_peer_with_a_wrong_clock_does_not_bid() -> None:
    lone = Lone("bob")
    lone.meet("cat", "dan")
    for name in ("cat", "dan"):
        lone.receive(name, Ack(number=0, wall_ms=START_WALL + 86_400_000))
    assert only(asked(lone), Refusal).reason == "this node's clock is 86400 s behind"


def test_one_that_is_not_drawn_says_nothing() -> None:
    assert asked(Lone("bob"), bid_threshold=0) == ()
    assert asked(Lone("bob", policy=Policy(accept_work=False)), refusal_threshold=0) == ()


def test_the_draw_for_bids_and_that_for_refusals_are_two() -> None:
    for number in range(40):
        lots: dict[str, Any] = {
            "tasks": number + 1,
            "bid_threshold": auction.CERTAIN // 2,
            "refusal_threshold": auction.CERTAIN // 2,
        }
        digest = announcement(**lots).digest
        for purpose, lone, kind in (
            ("bid", Lone("bob"), Bid),
            ("refusal", Lone("bob", policy=Policy(accept_work=False)), Refusal),
        ):
            drawn = auction.draw(digest, peer("bob"), purpose) <= auction.CERTAIN // 2
            assert len(sent(asked(lone, **lots), kind)) == drawn


def test_refusals_are_rationed_whoever_floods() -> None:
    lone = Lone("bob", policy=Policy(accept_work=False))
    refusals = sum(len(asked(lone, tasks=number + 1)) for number in range(200))
    assert refusals == DEFAULT_LIMITS.refusals_per_s_max


def test_inputs_that_are_here_already_are_said_to_be() -> None:
    lone = Lone("bob")
    lone.peer._worker.note_blobs([link_of("input").cid])
    assert only(asked(lone), Bid).has_inputs
    assert not only(asked(lone, inputs=()), Bid).has_inputs
