"""Joining and keeping neighbours, told from one peer's point of view."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import CloseLink, KeepLink, LearnAddresses, Notice, Send
from protocol.events import LeaveAsked
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import (
    Disconnect,
    ForwardJoin,
    Join,
    JoinRefused,
    Neighbour,
    NeighbourReply,
    Shuffle,
    ShuffleReply,
)
from protocol.records import Capability
from protocol.rendezvous import nearest_to, place_of
from protocol.signing import Signed
from tests.protocol.lone import Lone, misbehaved, only, peer, sent
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import capability

MANY = [f"peer-{number}" for number in range(20)]


def incarnation_kept(lone: Lone) -> int:
    return int.from_bytes(lone.journal["incarnation", b""], "big")


def record_in(lone: Lone, signed: Signed) -> Capability:
    return lone.peer._context.open(signed, Capability).record


def a_join(name: str, **fields: Any) -> Join:
    return Join(capability=capability(name, **fields).signed, wall_ms=START_WALL)


# -- joining --------------------------------------------------------------------------------------------------


def test_a_peer_starts_by_asking_its_contacts_and_keeping_its_incarnation() -> None:
    lone = Lone(bootstrap=("ann", "bob", "cat"), incarnation=5)
    assert incarnation_kept(lone) == 5
    assert [send.to for send in lone.first if isinstance(send, Send)] == [peer("bob"), peer("cat")], "not itself"
    own = record_in(lone, sent(lone.first, Join)[0][1].capability)
    assert (own.peer, own.incarnation, own.mesh) == (lone.me, 5, "test")


def test_a_contact_that_is_silent_is_asked_again_ever_more_rarely() -> None:
    lone = Lone(bootstrap=("bob",))
    assert 6 <= len(sent(lone.wait(60_000), Join)) <= 12
    lone.living = ("bob",)
    lone.meet("bob")
    assert sent(lone.wait(60_000), Join) == []


def test_a_newcomer_is_welcomed_and_sent_on_a_walk() -> None:
    lone = Lone()
    lone.meet("bob")
    newcomer = capability("cat")
    emitted = lone.receive("cat", Join(capability=newcomer.signed, wall_ms=START_WALL))
    reply = only(emitted, NeighbourReply)
    assert emitted == (
        LearnAddresses(peer("cat"), newcomer.record.addresses),
        KeepLink(peer("cat"), True),
        Send(peer("cat"), reply),
        Send(peer("bob"), ForwardJoin(capability=newcomer.signed, hops=5)),
    )
    assert reply.accepted
    assert record_in(lone, reply.capability).peer == lone.me


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mesh": "other"}, "your record is of another mesh, 'other'"),
        ({"issued_at": START_WALL + 86_400_000, "not_after": START_WALL + 86_475_000}, "86400 s in the future"),
        ({"issued_at": START_WALL - 86_475_000, "not_after": START_WALL - 86_400_000}, "expired 86400 s ago"),
    ],
)
def test_a_newcomer_that_is_not_believed_hears_why(fields: dict[str, Any], reason: str) -> None:
    lone = Lone()
    (send,) = lone.receive("bob", a_join("bob", **fields))
    assert isinstance(send, Send)
    assert isinstance(send.message, JoinRefused)
    assert reason in send.message.reason
    assert lone.known == set()


def test_nobody_joins_with_the_record_of_another() -> None:
    lone = Lone()
    emitted = lone.receive("eve", a_join("bob"))
    assert only(emitted, JoinRefused).reason == "your record is not the sender's own record"
    assert lone.neighbours == set()


def test_a_neighbour_that_is_not_believed_any_more_is_cut_off() -> None:
    lone = Lone()
    lone.meet("bob")
    emitted = lone.receive("bob", a_join("bob", mesh="other", revision=2))
    assert CloseLink(peer("bob")) in emitted
    assert lone.neighbours == set()


def test_a_key_that_is_not_admitted_gets_one_answer_to_anything() -> None:
    lone = Lone(admitted=(peer("ann"), peer("bob")))
    for message in (a_join("eve"), Disconnect()):
        assert lone.receive("eve", message) == (
            Send(peer("eve"), JoinRefused(reason="not admitted to this private mesh", wall_ms=START_WALL)),
            CloseLink(peer("eve")),
        )
    lone.meet("bob")
    assert lone.neighbours == {peer("bob")}


def test_being_refused_is_told_to_the_operator() -> None:
    lone = Lone()
    lone.meet("bob")
    emitted = lone.receive("bob", JoinRefused(reason="of another mesh", wall_ms=START_WALL))
    assert Notice("warning", "refused as a neighbour: of another mesh", peer("bob")) in emitted
    assert lone.neighbours == set()


# -- walks of newcomers ---------------------------------------------------------------------------------------


def forward_join(name: str, hops: int) -> ForwardJoin:
    return ForwardJoin(capability=capability(name).signed, hops=hops)


def test_a_walk_goes_on_to_a_neighbour_that_is_neither_sender_nor_newcomer() -> None:
    lone = Lone()
    lone.meet("bob", "cat", "dan")
    for hops in range(5, 0, -1):
        emitted = lone.receive("bob", forward_join("dan", hops))
        for to, message in sent(emitted, ForwardJoin):
            assert to == peer("cat")
            assert message == forward_join("dan", hops - 1)


def test_a_walk_that_ends_makes_a_neighbour_in_any_case() -> None:
    lone = Lone()
    lone.meet(*MANY[:6])
    emitted = lone.receive(MANY[0], forward_join("new", 0))
    ((to, message),) = sent(emitted, Neighbour)
    assert (to, message.urgent) == (peer("new"), True)
    assert sent(emitted, ForwardJoin) == []


# -- neighbours -----------------------------------------------------------------------------------------------


def neighbour(name: str, *, urgent: bool) -> Neighbour:
    return Neighbour(capability=capability(name).signed, urgent=urgent, wall_ms=START_WALL)


def test_a_full_view_accepts_an_urgent_neighbour_only() -> None:
    lone = Lone()
    lone.meet(*MANY[:6])
    full = lone.neighbours
    assert len(full) == DEFAULT_LIMITS.active_view_max
    assert not only(lone.receive("bob", neighbour("bob", urgent=False)), NeighbourReply).accepted
    assert lone.neighbours == full
    emitted = lone.receive("cat", neighbour("cat", urgent=True))
    assert only(emitted, NeighbourReply).accepted
    ((dropped, _),) = sent(emitted, Disconnect)
    assert lone.neighbours == (full - {dropped}) | {peer("cat")}
    assert dropped in lone.known, "it stays in the passive view"


def test_a_peer_with_a_full_view_takes_another_neighbour_now_and_then() -> None:
    """Seven peers that are all each other's neighbours would have no room for the rest of the mesh, for ever."""
    lone = Lone(limits=Limits(maintain_swap=1))
    lone.living = tuple(MANY[:6])
    lone.meet(*MANY[:6])
    lone.receive("bob", Shuffle(origin=capability("bob").signed, records=(), epoch=0, sketch=(), hops=0))
    full = lone.neighbours
    assert peer("bob") not in full
    asked = sent(lone.wait(13_000), Neighbour)
    assert {(to, message.urgent) for to, message in asked} == {(peer("bob"), True)}
    answer = NeighbourReply(accepted=True, capability=capability("bob").signed, wall_ms=lone.wall)
    ((dropped, _),) = sent(lone.receive("bob", answer), Disconnect)
    assert lone.neighbours == (full - {dropped}) | {peer("bob")}


def test_the_active_view_is_never_over_its_bound() -> None:
    lone = Lone()
    for name in MANY:
        lone.meet(name)
        assert len(lone.neighbours) <= DEFAULT_LIMITS.active_view_max
    for name in MANY:
        lone.receive(name, NeighbourReply(accepted=True, capability=capability(name).signed, wall_ms=START_WALL))
        assert len(lone.neighbours) <= DEFAULT_LIMITS.active_view_max


def test_a_lonely_peer_asks_urgently() -> None:
    lone = Lone()
    lone.receive("bob", Shuffle(origin=capability("bob").signed, records=(), epoch=0, sketch=(), hops=0))
    assert lone.known == {peer("bob")}
    ((to, message), *_) = sent(lone.wait(2_000), Neighbour)
    assert (to, message.urgent) == (peer("bob"), True)


def test_a_peer_that_was_asked_is_not_asked_again_at_once() -> None:
    lone = Lone()
    lone.receive("bob", Shuffle(origin=capability("bob").signed, records=(), epoch=0, sketch=(), hops=0))
    assert len(sent(lone.wait(3_000), Neighbour)) == 1
    assert len(sent(lone.wait(10_000), Neighbour)) >= 2


def test_a_neighbour_that_disconnects_stays_known_and_one_that_leaves_does_not() -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    lone.receive("bob", Disconnect())
    lone.receive("cat", Disconnect(leaving=True))
    assert lone.neighbours == set()
    assert lone.known == {peer("bob")}


# -- its own record -------------------------------------------------------------------------------------------


def test_its_record_is_fresh_at_any_time() -> None:
    lone = Lone()
    versions = []
    for _ in range(20):
        lone.wait(10_000)
        own = lone.peer.snapshot().capability
        assert own.issued_at <= lone.wall < own.not_after - 30_000
        versions.append((own.incarnation, own.revision))
    assert versions == sorted(versions)
    assert len(set(versions)) > 5


def test_a_peer_that_meets_a_later_self_moves_past_it() -> None:
    """Its counter was lost: without this, everybody would go on believing the record of its former life."""
    lone = Lone(incarnation=1)
    former = capability("ann", incarnation=7, revision=30)
    lone.receive("bob", ShuffleReply(records=(former.signed,), epoch=0, sketch=()))
    assert incarnation_kept(lone) == 8
    assert lone.peer.snapshot().capability.incarnation == lone.peer.snapshot().incarnation == 8


def test_its_own_latest_record_coming_back_changes_nothing() -> None:
    lone = Lone(incarnation=3)
    own = lone.peer._membership.own.signed
    lone.receive("bob", ShuffleReply(records=(own,), epoch=0, sketch=()))
    assert incarnation_kept(lone) == 3
    assert lone.peer.snapshot().incarnation == 3


# -- shuffles -------------------------------------------------------------------------------------------------


def shuffle(origin: str, hops: int, *names: str) -> Shuffle:
    records = tuple(capability(name).signed for name in names)
    return Shuffle(origin=capability(origin).signed, records=records, epoch=0, sketch=(), hops=hops)


def test_a_shuffle_walks_on_while_hops_are_left() -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    emitted = lone.receive("bob", shuffle("dan", 2, "eve"))
    assert sent(emitted, Shuffle) == [(peer("cat"), shuffle("dan", 1, "eve"))]
    assert sent(emitted, ShuffleReply) == []
    assert {peer("dan"), peer("eve")} <= lone.known


def test_a_shuffle_ends_with_an_answer_to_its_origin() -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    ((to, reply),) = sent(lone.receive("bob", shuffle("dan", 0, "eve")), ShuffleReply)
    assert to == peer("dan")
    named = {record_in(lone, signed).peer for signed in reply.records}
    assert lone.me in named
    assert len(reply.records) <= DEFAULT_LIMITS.shuffle_records
    assert lone.me in {record_in(lone, signed).peer for signed in reply.records[:1]}


def test_a_bad_record_in_a_shuffle_is_passed_over_and_no_offence() -> None:
    lone = Lone()
    lone.meet("bob")
    good = capability("cat").signed
    bad = capability("dan", mesh="other").signed
    emitted = lone.receive("bob", ShuffleReply(records=(bad, good), epoch=0, sketch=()))
    assert not misbehaved(emitted)
    assert lone.known == {peer("bob"), peer("cat")}


def test_a_peer_shuffles_now_and_then_with_its_records_and_its_sketch() -> None:
    lone = Lone()
    lone.living = tuple(MANY[:6])
    lone.meet(*MANY[:6])
    shuffles = [message for _, message in sent(lone.wait(30_000), Shuffle)]
    assert 4 <= len(shuffles) <= 8
    for message in shuffles:
        assert record_in(lone, message.origin).peer == lone.me
        assert len(message.records) <= DEFAULT_LIMITS.shuffle_records
        assert message.sketch == tuple(sorted(message.sketch)) != ()


def test_a_shuffle_is_answered_with_those_nearest_to_its_origin_among_others() -> None:
    lone = Lone()
    lone.meet(*MANY)
    ((_, reply),) = sent(lone.receive(MANY[0], shuffle("dan", 0)), ShuffleReply)
    named = [record_in(lone, signed).peer for signed in reply.records]
    others = [one for one in lone.known if one != peer("dan")]
    assert named[1:5] == nearest_to(place_of(peer("dan")), others, 4)
    assert len(set(named)) == len(named)


def test_in_a_mesh_larger_than_a_view_a_peer_meets_those_nearby_often_at_first() -> None:
    lone = Lone(limits=Limits(active_view_enough=1, active_view_max=2, passive_view_max=8))
    lone.living = tuple(MANY)
    lone.meet(*MANY)
    near = lone.peer._views.near
    met = [(to, one) for to, one in sent(lone.wait(10_000), Shuffle) if one.hops == 0]
    assert 7 <= len(met) <= 14
    assert {to for to, _ in met} <= {*near, *lone.peer._views.near}
    assert len([one for _, one in sent(lone.wait(60_000), Shuffle) if one.hops == 0]) <= 24


def test_in_a_small_mesh_nobody_need_be_looked_for() -> None:
    lone = Lone()
    lone.living = tuple(MANY)
    lone.meet(*MANY)
    assert not [one for _, one in sent(lone.wait(20_000), Shuffle) if one.hops == 0]


def test_a_peer_that_leaves_says_goodbye() -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    emitted = lone.give(LeaveAsked())
    assert {to for to, message in sent(emitted, Disconnect) if message.leaving} == {peer("bob"), peer("cat")}
    assert lone.neighbours == set()
