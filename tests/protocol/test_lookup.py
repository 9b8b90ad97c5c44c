"""Finding a job or a model from anywhere."""

from __future__ import annotations

from protocol.effects import Effect, Reply, Send
from protocol.events import PointersAsked
from protocol.identity import PeerId
from protocol.limits import BLOBS_PER_JOB_MAX, RECORDS_PER_MESSAGE_MAX, Limits
from protocol.messages import Lookup, LookupReply, StorePointer
from protocol.rendezvous import alias_key, job_key
from protocol.signing import Signed
from tests.protocol.lone import Lone, misbehaved, of_kind, one_of_kind, only, peer, sent
from tests.protocol.samples import capability, forged, job_pointer, link_of, model_pointer, spec

JOB = spec()
SHORT = f"{JOB.digest.hex()[:4]}-{JOB.digest.hex()[4:8]}"
POINTER = job_pointer(JOB)
NAMES = ["bob", "cat", "dan"]


def lone_among(*names: str) -> Lone:
    lone = Lone()
    lone.living = names
    lone.meet(*names)
    return lone


def ask(lone: Lone, text: str = SHORT, what: str = "job", submitter: PeerId | None = None) -> tuple[Effect, ...]:
    return lone.give(PointersAsked(1, what, text, submitter))


def answer_of(emitted: tuple[Effect, ...]) -> set[Signed]:
    reply = one_of_kind(emitted, Reply)
    assert isinstance(reply.answer, LookupReply)
    return set(reply.answer.pointers)


def lookup(text: str = SHORT, hops: int = 0, number: int = 5, key: bytes = b"") -> Lookup:
    return Lookup(number=number, origin=capability("eve").signed, what="job", text=text, key=key, hops=hops)


# -- asking ---------------------------------------------------------------------------------------------------


def test_a_peer_alone_answers_from_its_own_pointers() -> None:
    lone = Lone()
    lone.receive("ann", StorePointer(pointer=POINTER.signed))
    lone.receive("bob", StorePointer(pointer=POINTER.signed))
    assert answer_of(ask(lone) + lone.wait(3_000)) == {POINTER.signed}
    assert answer_of(ask(lone, "no-such") + lone.wait(3_000)) == set()


def test_those_responsible_are_asked_and_their_answer_is_passed_on() -> None:
    lone = lone_among(*NAMES)
    asked = sent(ask(lone), Lookup)
    assert {to for to, _ in asked} == {peer(name) for name in NAMES}
    assert {message.key for _, message in asked} == {job_key(JOB.digest)}
    number = asked[0][1].number
    emitted = lone.receive("bob", LookupReply(number=number, pointers=(POINTER.signed,)))
    emitted += lone.receive("cat", LookupReply(number=number, pointers=()))
    emitted += lone.receive("dan", LookupReply(number=number, pointers=()))
    assert answer_of(emitted) == {POINTER.signed}
    assert lone.peer.snapshot().tables["searches"] == 0


def test_an_alias_is_found_under_its_submitter() -> None:
    lone = lone_among(*NAMES)
    key = alias_key(JOB.record.submitter, "stars")
    assert {message.key for _, message in sent(ask(lone, "stars", submitter=JOB.record.submitter), Lookup)} == {key}
    assert {message.key for _, message in sent(ask(lone, "stars"), Lookup)} == {b""}, "of no key: everybody is asked"


def test_what_is_not_where_it_should_be_is_asked_of_the_neighbourhood() -> None:
    lone = lone_among(*NAMES)
    near = sent(ask(lone), Lookup)
    wide = sent(lone.wait(lone.limits.lookup_near_ms), Lookup)
    assert {to for to, _ in wide} == lone.neighbours
    assert {message.key for _, message in wide} == {b""}
    assert wide[0][1].number != near[0][1].number
    emitted = lone.receive("bob", LookupReply(number=wide[0][1].number, pointers=(POINTER.signed,)))
    assert answer_of(emitted + lone.wait(lone.limits.lookup_timeout_ms)) == {POINTER.signed}


def test_silence_is_answered_in_time_with_nothing() -> None:
    lone = lone_among(*NAMES)
    emitted = ask(lone) + lone.wait(lone.limits.lookup_near_ms + lone.limits.lookup_timeout_ms)
    assert answer_of(emitted) == set()


def test_every_question_is_answered_exactly_once_and_the_number_of_them_is_bounded() -> None:
    lone = Lone(limits=Limits(lookups_max=4))
    lone.living = tuple(NAMES)
    lone.meet(*NAMES)
    answered: list[int] = []
    for request in range(20):
        emitted = lone.give(PointersAsked(request, "job", SHORT))
        answered += [reply.request for reply in of_kind(emitted, Reply)]
        assert lone.peer.snapshot().tables["searches"] <= 4
    answered += [reply.request for reply in of_kind(lone.wait(5_000), Reply)]
    assert sorted(answered) == list(range(20))


def test_a_pointer_that_was_not_asked_for_is_an_offence_and_not_passed_on() -> None:
    lone = lone_among(*NAMES)
    number = sent(ask(lone), Lookup)[0][1].number
    other = job_pointer(spec(alias="other")).signed
    for signed in (other, model_pointer().signed, forged(POINTER.signed), capability("bob").signed):
        assert misbehaved(lone.receive("bob", LookupReply(number=number, pointers=(signed,))))
    assert answer_of(lone.wait(5_000)) == set()


def test_an_answer_to_no_question_is_ignored() -> None:
    assert Lone().receive("bob", LookupReply(number=99, pointers=(POINTER.signed,))) == ()


def test_what_is_passed_on_is_bounded_however_much_arrives() -> None:
    lone = lone_among("bob")
    (_, wide), *_ = sent(ask(lone, "") + lone.wait(lone.limits.lookup_near_ms), Lookup)
    for number in range(80):
        pointer = job_pointer(spec(alias=f"job-{number}"))
        lone.receive("stranger", LookupReply(number=wide.number, pointers=(pointer.signed,)))
    found = answer_of(lone.wait(5_000))
    assert len(found) == RECORDS_PER_MESSAGE_MAX


def test_large_pointers_do_not_make_an_answer_too_large_to_send() -> None:
    lone = lone_among("bob")
    for number in range(10):
        large = model_pointer(model=f"model-{number}", files=tuple(link_of(f"{n}") for n in range(BLOBS_PER_JOB_MAX)))
        lone.receive("bob", StorePointer(pointer=large.signed))
    message = Lookup(number=1, origin=capability("eve").signed, what="model", text="")
    assert len(only(lone.receive("eve", message), LookupReply).pointers) >= 2


# -- answering ------------------------------------------------------------------------------------------------


def test_the_origin_is_answered_directly_with_what_matches() -> None:
    lone = lone_among("bob")
    lone.receive("bob", StorePointer(pointer=POINTER.signed))
    lone.receive("bob", StorePointer(pointer=job_pointer(spec(alias="other")).signed))
    emitted = lone.receive("bob", lookup())
    assert sent(emitted, LookupReply) == [(peer("eve"), LookupReply(number=5, pointers=(POINTER.signed,)))]


def test_one_that_asks_itself_hears_of_nothing_too() -> None:
    assert sent(Lone().receive("eve", lookup()), LookupReply) == [(peer("eve"), LookupReply(number=5, pointers=()))]
    assert sent(Lone().receive("bob", lookup()), LookupReply) == []


def test_a_question_is_passed_on_once_and_never_back() -> None:
    lone = lone_among("bob", "cat", "dan")
    emitted = lone.receive("bob", lookup(hops=2))
    assert emitted[-2:] == (Send(peer("cat"), lookup(hops=1)), Send(peer("dan"), lookup(hops=1)))
    assert lone.receive("cat", lookup(hops=2)) == ()


def test_hops_are_bounded_whatever_the_sender_says() -> None:
    lone = lone_among("bob", "cat")
    ((_, passed_on),) = sent(lone.receive("bob", lookup(hops=64)), Lookup)
    assert passed_on.hops == lone.limits.lookup_hops - 1


def test_passing_on_is_rationed() -> None:
    lone = Lone(limits=Limits(forwards_per_s_max=30))
    lone.meet("bob", "cat", "dan")
    emitted = sum(len(sent(lone.receive("bob", lookup(hops=1, number=number)), Lookup)) for number in range(200))
    assert emitted <= 30


def test_a_question_of_another_mesh_is_an_offence() -> None:
    stranger = capability("eve", mesh="other").signed
    message = Lookup(number=1, origin=stranger, what="job", text="")
    assert misbehaved(Lone().receive("bob", message))
