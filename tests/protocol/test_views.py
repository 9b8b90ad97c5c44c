"""Who is known: only what is believable, only so much of it, and the freshest of each peer."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.effects import KeepLink, LearnAddresses
from protocol.errors import RemoteProtocolError
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.records import Capability
from protocol.rendezvous import nearest_to, place_of
from protocol.views import Views
from tests.protocol.lone import context_of, pass_time, peer
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import capability, forged

SKEW_MS = DEFAULT_LIMITS.clock_skew_ms
LIFETIME_MS = DEFAULT_LIMITS.capability_lifetime_ms


def test_a_new_peer_is_learned_with_its_addresses() -> None:
    context = context_of()
    views, bob = Views(context), capability("bob")
    assert views.learn(bob.signed) == bob
    assert views.record_of(peer("bob")) == bob
    assert context.take_effects() == (LearnAddresses(peer("bob"), bob.record.addresses),)


def test_only_the_freshest_record_of_a_peer_is_kept() -> None:
    views = Views(context_of())
    newest = capability("bob", incarnation=2, revision=1)
    for record in (capability("bob", revision=5), newest, capability("bob", incarnation=1, revision=9)):
        freshest = views.learn(record.signed)
    assert freshest == newest == views.record_of(peer("bob"))
    assert len(views) == 1


def test_a_neighbour_that_lost_its_counter_is_believed_once_its_old_record_has_expired() -> None:
    context = context_of()
    views, old = Views(context), capability("bob", incarnation=2)
    views.learn(old.signed)
    views.activate(peer("bob"))
    pass_time(context, LIFETIME_MS // 2)
    anew = capability("bob", issued_at=context.wall, not_after=context.wall + LIFETIME_MS)
    assert views.learn(anew.signed, direct=True) == old
    pass_time(context, LIFETIME_MS // 2 + 1)
    assert views.learn(anew.signed) == old, "others may pass on what is even older"
    assert views.learn(anew.signed, direct=True) == anew == views.record_of(peer("bob"))


def test_its_own_record_is_not_learned() -> None:
    views = Views(context_of("ann"))
    assert views.learn(capability("ann").signed) is None
    assert len(views) == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mesh": "other"}, "of another mesh, 'other'"),
        ({"issued_at": START_WALL + SKEW_MS + 1_000}, "dated 61 s in the future"),
        ({"issued_at": START_WALL - 120_000, "not_after": START_WALL - SKEW_MS - 1}, "expired 60 s ago"),
        ({"not_after": START_WALL + 2 * LIFETIME_MS + 1}, "valid for too long"),
        (
            {"labels": {f"{n}": "x" * 120 for n in range(16)}, "addresses": ("x" * 256,) * 8},
            "larger than such a record may be",
        ),
    ],
)
def test_a_record_that_is_not_believable_is_refused(fields: dict[str, Any], reason: str) -> None:
    views = Views(context_of())
    with pytest.raises(RemoteProtocolError) as caught:
        views.learn(capability("bob", **({"not_after": START_WALL + LIFETIME_MS} | fields)).signed)
    assert str(caught.value) == reason
    assert len(views) == 0


def test_a_clock_within_tolerance_is_believed() -> None:
    views = Views(context_of())
    issued = START_WALL + SKEW_MS
    assert views.learn(capability("bob", issued_at=issued, not_after=issued + LIFETIME_MS).signed)


def test_a_forged_record_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        Views(context_of()).learn(forged(capability("bob").signed))


def test_a_private_mesh_knows_only_admitted_peers() -> None:
    views = Views(context_of(admitted=(peer("ann"), peer("bob"))))
    assert views.learn(capability("bob").signed)
    with pytest.raises(RemoteProtocolError, match="not admitted"):
        views.learn(capability("eve").signed)


# -- bounds ---------------------------------------------------------------------------------------------------


def test_the_passive_view_is_bounded_and_neighbours_are_never_pushed_out() -> None:
    views = Views(context_of(limits=Limits(passive_view_max=10)))
    for name in ("bob", "cat"):
        views.learn(capability(name).signed)
        views.activate(peer(name))
    for number in range(100):
        views.learn(capability(f"stranger-{number}").signed)
    assert views.active == (peer("bob"), peer("cat"))
    assert len(views.passive) == 10


def test_departed_peers_are_remembered_up_to_a_bound() -> None:
    views = Views(context_of(limits=Limits(departed_max=5)))
    for number in range(20):
        views.learn(capability(f"stranger-{number}").signed)
        views.depart(peer(f"stranger-{number}"))
    assert views.departed_count() == 5


# -- leaving and coming back ----------------------------------------------------------------------------------


def views_without_bob() -> Views:
    views = Views(context_of())
    views.learn(capability("bob", incarnation=3, revision=4).signed)
    views.depart(peer("bob"))
    return views


@pytest.mark.parametrize("version", [{"incarnation": 3, "revision": 4}, {"incarnation": 2, "revision": 9}])
def test_a_departed_peer_stays_so_while_only_old_records_turn_up(version: dict[str, int]) -> None:
    views = views_without_bob()
    assert views.learn(capability("bob", **version).signed) is None
    assert peer("bob") not in views


@pytest.mark.parametrize("version", [{"incarnation": 3, "revision": 5}, {"incarnation": 4, "revision": 1}])
def test_a_newer_record_brings_a_departed_peer_back(version: dict[str, int]) -> None:
    views = views_without_bob()
    assert views.learn(capability("bob", **version).signed)
    assert peer("bob") in views


def test_a_departed_peer_that_speaks_itself_is_back() -> None:
    views = views_without_bob()
    assert views.learn(capability("bob", incarnation=3, revision=4).signed, direct=True)
    assert peer("bob") in views


def test_departing_ends_the_neighbourhood_and_tells_the_other_roles() -> None:
    context = context_of()
    views, gone = Views(context), list[str]()
    views.on_gone.append(gone.append)
    views.learn(capability("bob").signed)
    views.activate(peer("bob"))
    context.take_effects()
    views.depart(peer("bob"))
    assert context.take_effects() == (KeepLink(peer("bob"), False),)
    assert gone == [peer("bob")]
    assert (views.active, len(views)) == ((), 0)


def test_a_passive_record_expires_and_a_fresh_one_does_not() -> None:
    context = context_of()
    views = Views(context)
    views.learn(capability("bob").signed)
    pass_time(context, LIFETIME_MS - 1_000)
    views.learn(capability("cat", issued_at=context.wall, not_after=context.wall + LIFETIME_MS).signed)
    views.expire()
    assert peer("bob") in views
    pass_time(context, 2_000)
    views.expire()
    assert peer("bob") not in views
    assert peer("cat") in views


def test_only_a_partner_that_falls_silent_is_believed_gone() -> None:
    """Of others it merely means that no newer record has come by."""
    context = context_of()
    views, gone = Views(context), list[str]()
    views.on_gone.append(gone.append)
    views.relied_on.append(lambda: [peer("cat")])
    for name in ("bob", "cat"):
        views.learn(capability(name).signed)
    pass_time(context, LIFETIME_MS + 1)
    views.expire()
    assert (len(views), gone) == (0, [peer("cat")])
    assert views.learn(capability("bob").signed) is None, "an old copy does not bring it back"


def test_partners_make_room_for_nobody_and_are_bounded() -> None:
    views = Views(context_of(limits=Limits(passive_view_max=10, partners_max=5)))
    partners = [f"partner-{number}" for number in range(20)]
    views.relied_on.append(lambda: [peer(name) for name in partners])
    for name in (*partners[:5], *(f"other-{number}" for number in range(40)), *partners[5:]):
        views.learn(capability(name).signed)
    assert {peer(name) for name in partners[:5]} <= {opened.record.peer for opened in views.known()}
    assert len(views) == 15


def test_those_nearby_on_the_ring_make_room_for_nobody() -> None:
    context = context_of(limits=Limits(passive_view_max=12))
    views = Views(context)
    names = [f"other-{number}" for number in range(60)]
    for name in names:
        views.learn(capability(name).signed)
    nearest = nearest_to(place_of(context.me), [peer(name) for name in names], 3)
    assert sorted(views.near) == sorted(nearest)
    assert all(one in views for one in nearest)
    views.depart(nearest[0])
    assert len(views.near) == 3, "the next one takes its place"
    assert nearest[0] not in views.near


def test_expired_records_are_not_passed_on() -> None:
    context = context_of()
    views = Views(context)
    views.learn(capability("bob").signed)
    assert views.sample(8) == [capability("bob").signed]
    pass_time(context, LIFETIME_MS + 1)
    assert views.sample(8) == []


# -- neighbours and listeners ---------------------------------------------------------------------------------


def test_neighbours_are_kept_connected_until_they_are_none() -> None:
    context = context_of()
    views = Views(context)
    views.learn(capability("bob").signed)
    context.take_effects()
    for _ in range(2):
        views.activate(peer("bob"))
    assert (views.active, views.passive) == ((peer("bob"),), ())
    for _ in range(2):
        views.deactivate(peer("bob"))
    assert (views.active, views.passive) == ((), (peer("bob"),))
    assert context.take_effects() == (KeepLink(peer("bob"), True), KeepLink(peer("bob"), False))


def test_roles_hear_of_what_is_new_and_not_of_mere_refreshes() -> None:
    views, heard = Views(context_of()), list[Capability]()
    views.on_learned.append(heard.append)
    first, bigger = capability("bob"), capability("bob", revision=3, memory_bytes=1 << 35)
    for record in (first, capability("bob", revision=2), bigger, bigger):
        views.learn(record.signed)
    assert heard == [first.record, bigger.record]


def test_the_size_of_the_mesh_is_at_least_what_is_known() -> None:
    views = Views(context_of())
    assert views.mesh_size() == 1
    for number in range(40):
        views.learn(capability(f"stranger-{number}").signed)
    assert views.mesh_size() >= 41


def test_a_sample_has_as_many_different_records_as_asked_for() -> None:
    views = Views(context_of())
    for number in range(20):
        views.learn(capability(f"stranger-{number}").signed)
    assert len({signed.payload for signed in views.sample(8)}) == 8
    assert len(views.sample(100)) == 20
