"""Who is still there: asked directly, then through others."""

from __future__ import annotations

from protocol.effects import KeepLink, Notice, Send
from protocol.events import PeerLost
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import Ack, Disconnect, Ping, ProbeRequest, ProbeResult, ShuffleReply
from tests.protocol.lone import Lone, only, peer, sent
from tests.protocol.mesh import START_WALL
from tests.protocol.samples import capability

HELPERS = ["cat", "dan", "eve", "fay"]


def lone_with(*names: str) -> Lone:
    lone = Lone()
    lone.meet(*names)
    return lone


def lost(name: str) -> PeerLost:
    return PeerLost(peer(name), "connection reset")


def test_a_ping_is_answered_with_its_number() -> None:
    lone = lone_with("bob")
    assert lone.receive("bob", Ping(number=7, wall_ms=START_WALL)) == (
        Send(peer("bob"), Ack(number=7, wall_ms=START_WALL)),
    )


def test_neighbours_are_pinged_in_turn() -> None:
    lone = lone_with("bob", "cat", "dan")
    lone.living = ("bob", "cat", "dan")
    pinged = [to for to, _ in sent(lone.wait(6_000), Ping)]
    assert set(pinged[:3]) == {peer("bob"), peer("cat"), peer("dan")}, "a round before the next one begins"
    assert lone.neighbours == {peer("bob"), peer("cat"), peer("dan")}


def test_a_ping_tells_news_of_itself_once() -> None:
    lone = lone_with("bob")
    lone.living = ("bob",)
    told = [message.capability is not None for _, message in sent(lone.wait(10_000), Ping)]
    assert told[0]
    assert not any(told[1:6])


def test_a_ping_tells_news_of_itself_until_it_is_acknowledged() -> None:
    lone = lone_with("bob", "cat")
    ping = only(lone.give(lost("bob")), Ping)
    (number,) = {request.number for _, request in sent(lone.wait(DEFAULT_LIMITS.probe_timeout_ms), ProbeRequest)}
    lone.receive("cat", ProbeResult(number=number, alive=True))
    again = only(lone.give(lost("bob")), Ping)
    assert ping.capability == again.capability is not None, "the first may have been lost"
    lone.receive("bob", Ack(number=again.number, wall_ms=lone.wall))
    assert only(lone.give(lost("bob")), Ping).capability is None


def test_a_record_is_answered_with_ones_own() -> None:
    lone = lone_with("bob")
    (answer,) = sent(lone.receive("bob", Ping(number=1, capability=capability("bob").signed, wall_ms=lone.wall)), Ack)
    assert answer[1].capability == lone.peer._membership.own.signed


def test_partners_exchange_records_though_they_are_no_neighbours() -> None:
    """A large mesh would forget who has promised something, or works for a job here."""
    lone = lone_with("bob")
    lone.living = ("bob",)
    lone.peer._views.relied_on.append(lambda: [peer("eve"), peer("bob"), lone.me])
    pinged = [
        message for to, message in sent(lone.wait(DEFAULT_LIMITS.partner_ping_ms * 5 // 4), Ping) if to == peer("eve")
    ]
    assert [message.capability for message in pinged] == [lone.peer._membership.own.signed]
    record = capability("eve", issued_at=lone.wall, not_after=lone.wall + 75_000).signed
    lone.receive("eve", Ack(number=pinged[0].number, capability=record, wall_ms=lone.wall))
    assert peer("eve") in lone.known


def test_a_ping_says_whether_it_is_a_neighbours() -> None:
    lone = lone_with("bob")
    lone.meet("cat")
    lone.peer._views.deactivate(peer("cat"))
    pings = [*sent(lone.give(lost("bob")), Ping), *sent(lone.give(lost("cat")), Ping)]
    assert {to: message.neighbour for to, message in pings} == {peer("bob"): True, peer("cat"): False}


def test_who_takes_this_peer_for_a_neighbour_becomes_one() -> None:
    """A lost answer must not leave one of the two unheard."""
    lone = lone_with("bob")
    lone.peer._views.deactivate(peer("bob"))
    emitted = lone.receive("bob", Ping(number=1, neighbour=True, wall_ms=START_WALL))
    assert lone.neighbours == {peer("bob")}
    assert not sent(emitted, Disconnect)


def test_where_there_is_no_room_it_is_told_so() -> None:
    lone = Lone(limits=Limits(active_view_max=2, active_view_enough=1))
    lone.meet("bob", "cat", "dan")
    (left_out,) = {peer("bob"), peer("cat"), peer("dan")} - lone.neighbours
    name = next(name for name in ("bob", "cat", "dan") if peer(name) == left_out)
    emitted = lone.receive(name, Ping(number=1, neighbour=True, wall_ms=START_WALL))
    assert [to for to, _ in sent(emitted, Disconnect)] == [left_out]
    assert left_out not in lone.neighbours


def test_a_stranger_becomes_no_neighbour_by_a_ping() -> None:
    lone = lone_with("bob")
    assert sent(lone.receive("eve", Ping(number=1, neighbour=True, wall_ms=START_WALL)), Disconnect)
    assert lone.neighbours == {peer("bob")}


def test_a_broken_connection_is_checked_at_once() -> None:
    lone = lone_with("bob")
    ((to, _),) = sent(lone.give(lost("bob")), Ping)
    assert to == peer("bob")
    assert lone.neighbours == {peer("bob")}, "not yet believed"


def test_one_that_answers_nobody_is_gone() -> None:
    lone = lone_with("bob", *HELPERS)
    lone.give(lost("bob"))
    emitted = lone.wait(DEFAULT_LIMITS.probe_timeout_ms)
    asked = [to for to, _ in sent(emitted, ProbeRequest)]
    assert len(set(asked)) == DEFAULT_LIMITS.probe_helpers
    assert peer("bob") not in asked
    emitted = lone.wait(2 * DEFAULT_LIMITS.probe_timeout_ms)
    assert KeepLink(peer("bob"), False) in emitted
    assert Notice("info", "gone: answers neither this node nor its neighbours", peer("bob")) in emitted
    assert peer("bob") not in lone.known


def test_with_nobody_to_help_silence_is_enough() -> None:
    lone = lone_with("bob")
    lone.give(lost("bob"))
    lone.wait(DEFAULT_LIMITS.probe_timeout_ms)
    assert lone.known == set()


def test_one_that_cannot_be_dialled_either_is_asked_for_at_once() -> None:
    """Killed: its connection breaks, and so does the attempt to ping it. No timeout needs to pass."""
    lone = lone_with("bob", "cat")
    lone.give(lost("bob"))
    assert [to for to, _ in sent(lone.give(lost("bob")), ProbeRequest)] == [peer("cat")]


def test_one_that_a_helper_hears_stays() -> None:
    lone = lone_with("bob", *HELPERS)
    lone.give(lost("bob"))
    requests = sent(lone.give(lost("bob")), ProbeRequest)
    helper = next(name for name in HELPERS if peer(name) == requests[0][0])
    lone.receive(helper, ProbeResult(number=requests[0][1].number, alive=True))
    lone.wait(400)
    assert peer("bob") in lone.neighbours


def test_an_ack_of_an_old_ping_proves_nothing() -> None:
    lone = lone_with("bob")
    number = only(lone.give(lost("bob")), Ping).number
    lone.receive("bob", Ack(number=number - 1, wall_ms=START_WALL))
    lone.wait(DEFAULT_LIMITS.probe_timeout_ms)
    assert lone.known == set()


def test_only_a_helper_that_was_asked_can_say_that_a_peer_lives() -> None:
    lone = lone_with("bob", "cat")
    lone.give(lost("bob"))
    ((_, request),) = sent(lone.give(lost("bob")), ProbeRequest)
    lone.receive("stranger", ProbeResult(number=request.number, alive=True))
    lone.wait(2 * DEFAULT_LIMITS.probe_timeout_ms)
    assert peer("bob") not in lone.known


def test_a_falsely_suspected_peer_comes_back_when_it_speaks() -> None:
    lone = lone_with("bob")
    lone.give(lost("bob"))
    lone.wait(DEFAULT_LIMITS.probe_timeout_ms)
    lone.receive("cat", ShuffleReply(records=(capability("bob").signed,), epoch=0, sketch=()))
    assert peer("bob") not in lone.known, "an old record from somebody else proves nothing"
    lone.receive("bob", Ping(number=1, capability=capability("bob").signed, wall_ms=START_WALL))
    assert peer("bob") in lone.known


def test_a_strangers_word_about_the_time_is_worth_nothing() -> None:
    lone = Lone()
    for name in ("eve", "fay"):
        lone.receive(name, Ack(number=0, wall_ms=START_WALL + 86_400_000))
        lone.receive(name, Ping(number=0, wall_ms=START_WALL + 86_400_000))
    assert lone.peer.snapshot().clock_offset_ms is None


# -- for others -----------------------------------------------------------------------------------------------


def asked_to_probe(lone: Lone) -> int:
    emitted = lone.receive("bob", ProbeRequest(number=41, target=capability("cat").signed))
    ((to, ping),) = sent(emitted, Ping)
    assert to == peer("cat")
    return ping.number


def test_a_helper_pings_and_passes_the_answer_on_under_the_askers_number() -> None:
    lone = lone_with("bob")
    number = asked_to_probe(lone)
    emitted = lone.receive("cat", Ack(number=number, wall_ms=START_WALL))
    assert sent(emitted, ProbeResult) == [(peer("bob"), ProbeResult(number=41, alive=True))]
    assert sent(lone.receive("cat", Ack(number=number, wall_ms=START_WALL)), ProbeResult) == []


def test_only_the_target_itself_proves_that_it_lives() -> None:
    lone = lone_with("bob")
    number = asked_to_probe(lone)
    assert sent(lone.receive("stranger", Ack(number=number, wall_ms=START_WALL)), ProbeResult) == []
    assert sent(lone.receive("cat", Ack(number=number, wall_ms=START_WALL)), ProbeResult) != []


def test_a_helper_that_hears_nothing_says_nothing_and_forgets() -> None:
    lone = lone_with("bob")
    number = asked_to_probe(lone)
    assert sent(lone.wait(2 * DEFAULT_LIMITS.probe_timeout_ms), ProbeResult) == []
    assert sent(lone.receive("cat", Ack(number=number, wall_ms=START_WALL)), ProbeResult) == []


def test_no_more_than_so_many_are_helped_at_once() -> None:
    lone = lone_with("bob")
    pings = 0
    for number in range(200):
        target = capability(f"stranger-{number}").signed
        pings += len(sent(lone.receive("bob", ProbeRequest(number=number, target=target)), Ping))
    assert pings == DEFAULT_LIMITS.queries_per_sender_max
