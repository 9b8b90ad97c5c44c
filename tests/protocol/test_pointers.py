"""Signed pointers, kept for others and placed with others."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import Reply, Send
from protocol.events import PointerPublished
from protocol.limits import Limits
from protocol.messages import JoinRefused, PointerStored, StorePointer
from protocol.pointers import matches
from protocol.rendezvous import job_key, nearest
from protocol.signing import Signed
from protocol.views import Views
from tests.protocol.lone import Lone, misbehaved, only, peer, sent
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import capability, forged, job_pointer, model_pointer, nonce_of, spec

JOB = spec()


def store(lone: Lone, signed: Signed, sender: str = "cat") -> tuple[Any, ...]:
    return lone.receive(sender, StorePointer(pointer=signed))


def found(lone: Lone, what: str, text: str) -> list[Signed]:
    return lone.peer._pointers.matching(what, text)


def test_a_pointer_is_kept_and_confirmed() -> None:
    lone, pointer = Lone("bob"), job_pointer()
    assert store(lone, pointer.signed) == (Send(peer("cat"), PointerStored(pointer=pointer.digest)),)
    assert found(lone, "job", "stars") == [pointer.signed]


def test_the_newest_wins_whatever_comes_last() -> None:
    lone = Lone("bob")
    newer = model_pointer(issued_at=START_WALL + 1)
    for pointer in (model_pointer(), newer, model_pointer()):
        store(lone, pointer.signed)
    assert found(lone, "model", "features-v1") == [newer.signed]


def test_a_withdrawn_model_is_not_found() -> None:
    lone = Lone("bob")
    store(lone, model_pointer().signed)
    store(lone, model_pointer(issued_at=START_WALL + 1, withdrawn=True).signed)
    assert found(lone, "model", "features-v1") == []


def test_two_publishers_of_one_name_are_both_found() -> None:
    lone = Lone("bob")
    for publisher in ("ann", "eve"):
        store(lone, model_pointer(publisher).signed)
    assert len(found(lone, "model", "features-v1")) == 2


def test_a_liar_cannot_replace_the_pointer_of_another() -> None:
    """Anybody may sign that it is steward of a job; that hides nobody else's word."""
    lone = Lone("bob")
    honest, lie = job_pointer(JOB), job_pointer(JOB, steward="eve", issued_at=START_WALL + 50_000)
    for pointer in (honest, lie):
        store(lone, pointer.signed)
    assert found(lone, "job", "stars") == [honest.signed, lie.signed]


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    lone = Lone("bob", limits=Limits(pointers_max=10))
    for number in range(25):
        store(lone, job_pointer(spec(alias=f"job-{number}")).signed)
    assert lone.peer.snapshot().tables["pointers"] == 10
    assert found(lone, "job", "job-24")
    assert not found(lone, "job", "job-14")


@pytest.mark.parametrize(
    "signed",
    [
        forged(job_pointer().signed),
        job_pointer(issued_at=START_WALL + 60_001).signed,
        job_pointer(not_after=START_WALL - 60_001).signed,
        capability("ann").signed,
    ],
    ids=["forged", "of the future", "expired", "no pointer"],
)
def test_what_is_no_believable_pointer_is_an_offence_and_not_kept(signed: Signed) -> None:
    lone = Lone("bob")
    assert misbehaved(store(lone, signed))
    assert lone.peer.snapshot().tables["pointers"] == 0


def test_an_expired_pointer_is_not_found() -> None:
    lone = Lone("bob")
    store(lone, job_pointer(not_after=START_WALL + 5_000).signed)
    lone.wait(5_001)
    assert found(lone, "job", "stars") == []


@pytest.mark.parametrize(
    ("what", "text", "expected"),
    [
        ("job", "", True),
        ("job", "stars", True),
        ("job", "star", False),
        ("job", JOB.digest.hex(), True),
        ("job", JOB.digest.hex()[:5].upper(), True),
        ("job", f"{JOB.digest.hex()[:4]}-{JOB.digest.hex()[4:8]}", True),
        ("job", JOB.digest.hex()[1:9], False),
        ("model", "", False),
        ("model", "stars", False),
    ],
)
def test_a_job_goes_by_the_start_of_its_id_and_by_its_alias(what: str, text: str, expected: bool) -> None:
    assert matches(job_pointer(JOB).record, what, text) == expected


def test_dashes_alone_name_no_job() -> None:
    assert not matches(job_pointer(JOB).record, "job", "-")


# -- placing --------------------------------------------------------------------------------------------------

NAMES = [f"peer-{number}" for number in range(12)]


def published(lone: Lone) -> tuple[Any, ...]:
    return lone.give(PointerPublished(5, model_pointer().signed))


def test_a_pointer_goes_again_to_who_has_lost_the_disk_that_kept_it() -> None:
    lone = Lone("ann", limits=Limits(pointer_copies=2))
    lone.living = ("bob", "cat")
    lone.meet("bob", "cat")
    for to, message in sent(published(lone), StorePointer):
        name = "bob" if to == peer("bob") else "cat"
        lone.receive(name, PointerStored(pointer=message.pointer.digest))
    assert sent(lone.wait(15_000), StorePointer) == []
    lone.meet("bob", incarnation=2, store=nonce_of("a new disk"))
    assert {to for to, _ in sent(lone.wait(15_000), StorePointer)} == {peer("bob")}


def test_a_models_pointer_goes_to_those_responsible_and_is_confirmed_to_the_client() -> None:
    lone = Lone("ann")
    lone.meet(*NAMES)
    emitted = published(lone)
    assert Reply(5, PointerStored(pointer=model_pointer().digest)) in emitted
    assert len({to for to, _ in sent(emitted, StorePointer)}) == lone.limits.pointer_copies
    assert found(lone, "model", "features-v1") == [model_pointer().signed]


def test_it_is_placed_again_only_where_it_is_missing() -> None:
    lone = Lone("ann")
    lone.living = tuple(NAMES)
    lone.meet(*NAMES[:3])
    targets = [to for to, _ in sent(published(lone), StorePointer)]
    assert len(targets) == 3
    for name in NAMES[:2]:
        lone.receive(name, PointerStored(pointer=model_pointer().digest))
    again = {to for to, _ in sent(lone.wait(15_000), StorePointer)}
    assert again == {peer(NAMES[2])}


def test_one_that_enough_keep_is_placed_again_later_and_later() -> None:
    """In a large mesh there is always a peer that should keep it too, and was not known before."""
    lone = Lone("ann", limits=Limits(active_view_enough=1, active_view_max=2, passive_view_max=3))
    lone.living = tuple(NAMES)
    lone.meet(*NAMES[:5])
    names = {peer(name): name for name in NAMES}
    targets = [to for to, _ in sent(published(lone), StorePointer)]
    for to in targets:
        lone.receive(names[to], PointerStored(pointer=model_pointer().digest))
    lone.peer._views.deactivate(targets[0])
    lone.peer._views._forget(targets[0])  # no more known, and not known to be gone
    again = [len(sent(lone.wait(20_000), StorePointer)) for _ in range(16)]
    assert [count > 0 for count in again[:2]] == [True, True]
    assert 3 <= sum(count > 0 for count in again) <= 6


def test_a_keeper_that_is_gone_is_replaced() -> None:
    lone = Lone("ann")
    lone.living = tuple(NAMES)
    lone.meet(*NAMES[:4])
    targets = [to for to, _ in sent(published(lone), StorePointer)]
    names = {peer(name): name for name in NAMES}
    for to in targets:
        lone.receive(names[to], PointerStored(pointer=model_pointer().digest))
    views: Views = lone.peer._views
    views.depart(targets[0])
    (spare,) = {peer(name) for name in NAMES[:4]} - set(targets)
    assert spare in {to for to, _ in sent(lone.wait(15_000), StorePointer)}


def test_what_is_no_model_pointer_is_refused_to_the_client() -> None:
    lone = Lone("ann")
    (reply,) = lone.give(PointerPublished(5, forged(model_pointer().signed)))
    assert isinstance(reply, Reply)
    assert isinstance(reply.answer, JoinRefused)
    assert reply.answer.reason.startswith("not a model pointer: bad signature")


def test_a_pointer_walks_towards_those_responsible() -> None:
    lone = Lone("ann")
    lone.meet(*NAMES)
    known = [peer(name) for name in NAMES if peer(name) in lone.known]
    for number in range(50):
        pointer = job_pointer(spec(alias="", nonce=nonce_of(f"{number}")), alias="")
        key = job_key(pointer.record.job)
        emitted = lone.receive("stranger", StorePointer(pointer=pointer.signed, keys=(key,), hops=2))
        only(emitted, PointerStored)
        first = nearest(key, [lone.me, *known], 1)[0]
        expected = [] if first == lone.me else [(first, StorePointer(pointer=pointer.signed, keys=(key,), hops=1))]
        assert sent(emitted, StorePointer) == expected


def test_a_pointer_with_two_keys_walks_towards_each_from_its_own_start_only() -> None:
    """Else every hop towards one would begin a walk towards the other."""
    lone = Lone("ann")
    lone.meet(*NAMES)
    pointer = job_pointer()
    for keys in ((), (b"none",), (job_key(JOB.digest),)):
        emitted = lone.receive("stranger", StorePointer(pointer=pointer.signed, keys=keys, hops=5))
        only(emitted, PointerStored)
        assert all(message.keys == keys for _, message in sent(emitted, StorePointer))
        assert len(sent(emitted, StorePointer)) <= (keys == (job_key(JOB.digest),))
