"""A whole peer among strangers: it never raises, and never grows without bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.clock import NS_PER_MS, Instant
from protocol.effects import CloseLink, Notice
from protocol.events import ClockObserved, Event, GarbageReceived, MessageReceived, WakeupReached
from protocol.identity import PeerId
from protocol.limits import Limits
from protocol.messages import MESSAGE_KINDS, Ack, Message, Offer, OfferAccepted, Ping
from protocol.peer import Peer
from tests.protocol.hostile import Flood, tables, well_typed
from tests.protocol.lone import Lone, peer, sent, taken_in
from tests.protocol.mesh import START_WALL, Mesh
from tests.protocol.samples import (
    QuickSigner,
    QuickVerifier,
    announcement,
    award,
    every_record,
    job_pointer,
    output_of,
    receipt,
    spec,
    split_award,
)

# -- the contract ---------------------------------------------------------------------------------------------


def test_every_message_and_every_event_has_a_handler() -> None:
    peer_ = Lone().peer
    assert set(peer_._on_message) == set(MESSAGE_KINDS.values())
    assert set(peer_._on_event) == set(Event.__subclasses__())


def test_time_does_not_run_backwards() -> None:
    lone = Lone()
    with pytest.raises(AssertionError, match="backwards"):
        lone.peer.handle(WakeupReached(), now=Instant(lone.now - 1))


def test_a_needless_wakeup_does_nothing() -> None:
    lone = Lone()
    lone.meet("bob")
    assert lone.give(WakeupReached()) == ()


def test_the_same_events_have_the_same_effects() -> None:
    def life() -> list[Any]:
        lone = Lone(bootstrap=("bob",))
        lone.living = ("bob", "cat")
        return [lone.first, lone.meet("bob", "cat"), lone.wait(30_000)]

    assert life() == life()


def test_a_snapshot_is_a_view_and_no_handle() -> None:
    lone = Lone()
    before = lone.peer.snapshot()
    lone.meet("bob")
    assert before.neighbours == ()
    assert lone.peer.snapshot().neighbours == (peer("bob"),)


# -- misbehaviour ---------------------------------------------------------------------------------------------


def garbage(lone: Lone, sender: str, times: int) -> tuple[Any, ...]:
    return tuple(effect for _ in range(times) for effect in lone.give(GarbageReceived(peer(sender), "not CBOR")))


def answers(lone: Lone, sender: str) -> bool:
    return sent(lone.receive(sender, Ping(number=1, wall_ms=lone.wall)), Ack) != []


def test_too_much_garbage_and_a_peer_is_left_alone_for_a_while() -> None:
    lone = Lone()
    lone.meet("bob", "eve")
    assert CloseLink(peer("eve")) not in garbage(lone, "eve", lone.limits.garbage_max - 1)
    assert answers(lone, "eve")
    emitted = garbage(lone, "eve", 1)
    assert CloseLink(peer("eve")) in emitted
    assert Notice("warning", "ignored for a while: not CBOR", peer("eve")) in emitted
    assert peer("eve") not in lone.neighbours
    assert not answers(lone, "eve")
    assert answers(lone, "bob")
    lone.living = ("bob",)
    lone.wait(lone.limits.banned_ms)
    assert answers(lone, "eve")


def test_now_and_then_a_little_garbage_is_forgiven() -> None:
    lone = Lone()
    for _ in range(20):
        assert CloseLink(peer("eve")) not in garbage(lone, "eve", 3)
        lone.wait(lone.limits.banned_ms)


def test_those_who_misbehave_are_remembered_up_to_a_bound() -> None:
    lone = Lone(limits=Limits(departed_max=10))
    for number in range(50):
        lone.give(GarbageReceived(PeerId(f"stranger-{number}"), "not CBOR"))
    assert lone.peer.snapshot().tables["garbage"] == 10


def test_the_operator_hears_of_a_jump_of_the_clock() -> None:
    lone = Lone()
    assert lone.give(ClockObserved(START_WALL)) == ()
    emitted = lone.give(ClockObserved(START_WALL + 3_600_000))  # type: ignore[arg-type]
    assert emitted == (Notice("warning", "the wall clock jumped by 3600.0 s"),)


# -- anything that types allow --------------------------------------------------------------------------------


def busy_peer() -> Lone:
    """Ann has neighbours, looks after a job, works for another one, and keeps a pointer."""
    lone = Lone("ann")
    lone.meet("bob", "cat")
    taken_in(lone, spec("ann"), "bob", "cat")
    assert lone.peer.snapshot().stewarding
    other = spec("bob", alias="other")
    lone.receive("bob", Offer(award=award(other, steward="bob", worker="ann").signed, spec=other.signed, sources=()))
    lone.receive("cat", OfferAccepted(award=bytes(32)))
    return lone


OWN_JOB, OTHER_JOB = spec("ann"), spec("bob", alias="other")
OTHER_AWARD = award(OTHER_JOB, steward="bob", worker="ann")
SIGNED = [
    *(opened.signed for opened in every_record().values()),
    OWN_JOB.signed,
    OTHER_JOB.signed,
    OTHER_AWARD.signed,
    split_award(OWN_JOB).signed,
    receipt(split_award(OWN_JOB), shards=3).signed,
    receipt(OTHER_AWARD, worker="ann", output=output_of("x")).signed,
    job_pointer(OTHER_JOB, steward="bob").signed,
    announcement("bob").signed,
]
DIGESTS = [signed.digest for signed in SIGNED]
NAMES = [peer("ann"), peer("bob"), peer("eve"), "stars", "features-v1", OWN_JOB.digest.hex()[:8], ""]
STEPS = st.lists(
    st.tuples(st.sampled_from(["bob", "cat", "eve"]), well_typed(SIGNED, DIGESTS, NAMES), st.sampled_from([0, 1, 700])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=120)
@given(steps=STEPS)
def test_strangers_may_say_anything(steps: list[tuple[str, Message, int]]) -> None:
    lone = busy_peer()
    for sender, message, pause_ms in steps:
        lone.receive(sender, message)
        if pause_ms:
            lone.wait(pause_ms)
    lone.peer.snapshot()


# -- floods ---------------------------------------------------------------------------------------------------

FLOOD = 1_000
SMALL = Limits(
    passive_view_max=20,
    departed_max=20,
    seen_max=50,
    forwards_per_s_max=20,
    bids_per_auction_max=20,
    refusals_kept_max=20,
    leases_per_peer_max=20,
    receipts_kept_max=50,
    refusals_per_s_max=20,
    jobs_max=20,
    running_jobs_max=10,
    submissions_max=10,
    askers_max=5,
    pointers_max=50,
    lookups_max=20,
    queries_per_sender_max=20,
    clock_samples_max=10,
    reader_records_max=100,
    records_max=20,
    tombstones_max=20,
)
BOUND = 150
"""More than any of the small limits, far less than a flood."""


@pytest.mark.parametrize("kind", MESSAGE_KINDS.values(), ids=MESSAGE_KINDS)
def test_a_flood_of_hostile_messages_leaves_every_table_bounded(kind: type[Message]) -> None:
    """From a thousand strangers within a second, each message different, all signatures good."""
    key = QuickSigner("ann")
    lone = Lone("ann", limits=SMALL, key=key, verifier=QuickVerifier())
    emitted = 0
    for sender, message in Flood(kind, "ann").messages(FLOOD):
        lone.now = Instant(lone.now + NS_PER_MS)
        emitted += len(lone.peer.handle(MessageReceived(PeerId(sender), message), now=lone.now))
    too_large = {path: size for path, size in tables(lone.peer).items() if size > BOUND}
    assert too_large == {}
    assert emitted < 20 * FLOOD, "a message costs a few at most"


def test_a_mesh_of_peers_settles() -> None:
    """Six peers, one contact: all know each other, and nobody has more neighbours than allowed."""
    names = ["ann", "bob", "cat", "dan", "eve", "fay"]
    mesh = Mesh(*names)
    mesh.run_for(20)
    for one in mesh.peers.values():
        assert isinstance(one, Peer)
        snapshot = one.snapshot()
        assert len(snapshot.known) == 5
        assert snapshot.mesh_size == 6
