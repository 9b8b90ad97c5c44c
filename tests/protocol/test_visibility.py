"""A node learns from others whether it can be reached, and says so when that changes."""

from __future__ import annotations

from protocol.effects import Notice
from protocol.messages import Ack, Ping, ProbeRequest, ProbeResult, SeeMe, Seen
from tests.protocol.lone import Lone, of_kind, only, peer, sent
from tests.protocol.mesh import Mesh


def notices(emitted: object) -> list[str]:
    return [one.text for one in of_kind(emitted, Notice) if "see this node" in one.text]  # type: ignore[arg-type]


def asked(lone: Lone) -> list[tuple[str, SeeMe]]:
    """Whom it asks when the time comes."""
    for _ in range(60):
        if questions := sent(lone.wait(500), SeeMe):
            return [(to, message) for to, message in questions]
    raise AssertionError("nobody was asked")


def test_neighbours_are_asked_and_one_success_is_enough() -> None:
    lone = Lone()
    lone.living = ("bob", "cat")
    lone.meet("bob", "cat")
    questions = asked(lone)
    assert {to for to, _ in questions} == {peer("bob"), peer("cat")}
    number = questions[0][1].number
    lone.receive("bob", Seen(number=number, seen=False))
    assert lone.peer.snapshot().visible is None
    lone.receive("cat", Seen(number=number, seen=True))
    assert lone.peer.snapshot().visible is True


def test_it_says_so_the_moment_nobody_gets_through_and_again_when_they_do() -> None:
    lone = Lone()
    lone.living = ("bob",)
    lone.meet("bob")
    ((_, question),) = asked(lone)
    emitted = lone.receive("bob", Seen(number=question.number, seen=False))
    assert notices(emitted) == ["others cannot see this node: 1 neighbours had others try, and none got through"]
    assert lone.peer.snapshot().visible is False
    ((_, question),) = asked(lone)
    assert notices(lone.receive("bob", Seen(number=question.number, seen=True))) == ["others see this node again"]


def test_silence_is_an_answer_too_and_a_strangers_word_is_none() -> None:
    lone = Lone()
    lone.living = ("bob",)
    lone.meet("bob")
    ((_, question),) = asked(lone)
    lone.receive("eve", Seen(number=question.number, seen=True))
    assert lone.peer.snapshot().visible is None
    lone.wait(lone.limits.visibility_timeout_ms)
    assert lone.peer.snapshot().visible is False


def test_a_node_that_finds_nobody_it_was_told_of_is_not_seen() -> None:
    lone = Lone(bootstrap=("bob",))
    assert notices(lone.wait(10_000)) == ["others cannot see this node: it has no neighbour"]
    assert Lone().peer.snapshot().visible is None, "alone on purpose"


def test_who_is_asked_has_a_third_peer_try() -> None:
    lone = Lone()
    lone.meet("bob", "cat")
    emitted = lone.receive("bob", SeeMe(number=77))
    ((helper, request),) = sent(emitted, ProbeRequest)
    assert helper == peer("cat")
    assert sent(lone.receive("bob", ProbeResult(number=request.number, alive=True)), Seen) == [], "not bob's to say"
    emitted = lone.receive("cat", ProbeResult(number=request.number, alive=True))
    assert sent(emitted, Seen) == [(peer("bob"), Seen(number=77, seen=True))]


def test_a_third_peer_that_gets_no_answer_refutes_it() -> None:
    lone = Lone()
    lone.living = ("bob", "cat")
    lone.meet("bob", "cat")
    lone.receive("bob", SeeMe(number=77))
    assert (peer("bob"), Seen(number=77, seen=False)) in sent(lone.wait(4_000), Seen)


def test_in_a_mesh_of_two_being_known_is_all() -> None:
    lone = Lone()
    lone.meet("bob")
    assert only(lone.receive("bob", SeeMe(number=1)), Seen).seen
    assert not only(lone.receive("stranger", SeeMe(number=2)), Seen).seen


def test_in_a_healthy_mesh_everybody_is_seen() -> None:
    mesh = Mesh("ann", "bob", "cat", "dan")
    mesh.run_for(12)
    assert all(one.snapshot().visible for one in mesh.peers.values())
    assert {Ping, Ack} <= {type(message) for _, _, message in mesh.sent}
