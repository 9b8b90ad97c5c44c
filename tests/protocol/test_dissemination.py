"""How far an announcement goes, and that it goes nowhere twice."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.context import Context
from protocol.dissemination import Dissemination
from protocol.effects import Send
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import Announce, Bid, ShuffleReply
from protocol.profile import Policy
from protocol.wire import Needs
from tests.protocol.lone import Lone, misbehaved, peer, sent
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import announcement, capability, forged

IDLE = Policy(accept_work=False)


def announce(hops: int = 2, steward: str = "ann", **fields: Any) -> Announce:
    return Announce(
        announcement=announcement(steward, **({"refusal_threshold": 0} | fields)).signed,
        steward=capability(steward).signed,
        hops=hops,
    )


def know(lone: Lone, name: str, **fields: Any) -> None:
    """By its record, not as a neighbour."""
    lone.receive("cat", ShuffleReply(records=(capability(name, **fields).signed,), epoch=0, sketch=()))


def bystander(*neighbours: str, limits: Limits = DEFAULT_LIMITS) -> Lone:
    """A peer that never answers, so that only what it passes on is seen."""
    lone = Lone("bob", limits=limits, policy=IDLE)
    lone.meet(*neighbours)
    return lone


def test_an_announcement_is_passed_on_to_neighbours_but_not_back() -> None:
    lone = bystander("ann", "cat", "dan", "eve")
    emitted = lone.receive("cat", announce(hops=2))
    assert emitted == (Send(peer("dan"), announce(hops=1)), Send(peer("eve"), announce(hops=1)))


def test_few_that_fit_hear_at_once_from_whoever_knows_them() -> None:
    """Each that passes an announcement on knows others than the steward does."""
    lone = bystander("cat", "dan")
    know(lone, "eve", memory_bytes=1 << 40)
    know(lone, "fay")
    needs = Needs(memory_bytes=1 << 35)
    told = sent(lone.receive("cat", announce(hops=2, needs=needs)), Announce)
    assert [(to, message.hops) for to, message in told] == [(peer("dan"), 1), (peer("eve"), 0)]


def test_where_many_fit_it_goes_to_neighbours_only() -> None:
    lone = bystander("cat", "dan", limits=Limits(scouted_max=2))
    know(lone, "eve")
    told = sent(lone.receive("cat", announce(hops=2)), Announce)
    assert [to for to, _ in told] == [peer("dan")]


def test_one_that_came_directly_is_not_taken_further_to_those_that_fit() -> None:
    lone = bystander("cat")
    know(lone, "eve")
    assert sent(lone.receive("cat", announce(hops=0)), Announce) == []


def test_with_no_hops_left_it_goes_no_further() -> None:
    lone = bystander("cat", "dan")
    assert sent(lone.receive("cat", announce(hops=0)), Announce) == []


def test_hops_are_bounded_whatever_the_sender_says() -> None:
    lone = bystander("cat", "dan")
    ((_, message),) = sent(lone.receive("cat", announce(hops=64)), Announce)
    assert message.hops == DEFAULT_LIMITS.flood_hops - 1


def test_a_duplicate_is_neither_passed_on_nor_answered_again() -> None:
    lone = Lone("bob")
    lone.meet("cat", "dan")
    first = lone.receive("cat", announce())
    assert len(sent(first, Announce)) == len(sent(first, Bid)) == 1
    assert lone.receive("dan", announce(hops=5)) == ()


def test_an_announcement_teaches_where_its_steward_is() -> None:
    lone = bystander("cat")
    lone.receive("cat", announce())
    assert peer("ann") in lone.known


def test_what_is_remembered_is_bounded() -> None:
    lone = bystander("cat", limits=Limits(seen_max=10))
    for number in range(50):
        lone.receive("cat", announce(tasks=number + 1))
    assert lone.peer.snapshot().tables["seen"] == 10


def test_no_more_is_passed_on_than_the_rate_whoever_floods() -> None:
    lone = bystander("cat", "dan", limits=Limits(forwards_per_s_max=20))
    forwarded = 0
    for number in range(100):
        forwarded += len(sent(lone.receive("cat", announce(tasks=number + 1)), Announce))
    assert forwarded == 20
    lone.wait(500)
    forwarded += sum(len(sent(lone.receive("cat", announce(tasks=200 + number)), Announce)) for number in range(50))
    assert forwarded == 30


@pytest.mark.parametrize(
    "message",
    [
        announce(not_after=START_WALL - DEFAULT_LIMITS.clock_skew_ms - 1),
        announce(issued_at=START_WALL + DEFAULT_LIMITS.clock_skew_ms + 1),
    ],
    ids=["expired", "of the future"],
)
def test_what_is_out_of_its_time_goes_no_further_and_is_nobodys_offence(message: Announce) -> None:
    """The clock that is wrong may be this peer's own."""
    lone = bystander("cat", "dan")
    emitted = lone.receive("cat", message)
    assert not misbehaved(emitted)
    assert not sent(emitted, Announce)


@pytest.mark.parametrize(
    "message",
    [
        announce(not_after=START_WALL + 2 * DEFAULT_LIMITS.announcement_lifetime_ms + 1),
        Announce(announcement=announcement().signed, steward=capability("cat").signed, hops=2),
        Announce(announcement=announcement().signed, steward=forged(capability("ann").signed), hops=2),
        Announce(announcement=forged(announcement().signed), steward=capability("ann").signed, hops=2),
        Announce(announcement=announcement().signed, steward=capability("ann", mesh="other").signed, hops=2),
    ],
    ids=["valid for too long", "of another", "stolen", "forged", "of another mesh"],
)
def test_what_is_not_believable_is_an_offence_and_goes_no_further(message: Announce) -> None:
    lone = bystander("cat", "dan")
    emitted = lone.receive("cat", message)
    assert misbehaved(emitted)
    assert sent(emitted, Announce) == []


def test_passing_on_for_a_steward_believed_gone_is_no_offence() -> None:
    """The suspicion may be false, and is this peer's own: the neighbour that passes it on has done nothing wrong."""
    lone = bystander("ann", "cat", "dan")
    lone.peer._views.depart(peer("ann"))
    assert not misbehaved(lone.receive("cat", announce()))


def test_rounds_widen_from_nowhere_to_everywhere_and_begin_again() -> None:
    dissemination = _dissemination(Limits(announce_rounds_to_flood=3, announce_hops=2, flood_hops=24))
    assert [dissemination.hops_of_round(number) for number in range(6)] == [0, 2, 4, 24, 0, 2]


def _dissemination(limits: Limits) -> Dissemination:
    lone = Lone(limits=limits)
    context: Context = lone.peer._context
    return Dissemination(context, lone.peer._views, lone.peer._membership)
