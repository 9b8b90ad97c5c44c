"""A recorded peer lives again, and whatever is not as it was is found at its place."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from itertools import accumulate

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import events, trace
from protocol.clock import Instant
from protocol.effects import Notice, Send
from protocol.events import Event
from protocol.limits import DEFAULT_LIMITS
from protocol.messages import Ack, Message, Ping
from protocol.probing import Probing
from protocol.profile import Policy, Profile
from protocol.trace import Entry, Reader, Replayed, TraceDamaged
from tests.protocol import samples
from tests.protocol.recorded import BOB, PING_AT, every_event, life, peer_of, record, start_of

PARTS, EFFECTS = record(start_of(), life())
WRITTEN = b"".join(PARTS)
BEGINS = [len(trace.MAGIC), *accumulate(map(len, PARTS))]
"""Where the beginning is, and each entry."""


def replay(parts: list[bytes]) -> Replayed:
    reader = Reader(BytesIO(b"".join(parts)))
    return trace.replay(peer_of(reader.start), reader)


# -- reading what was written -----------------------------------------------------------------------------------


def read(written: bytes) -> list[Entry]:
    return list(Reader(BytesIO(written)))


def there_and_back(event: Event) -> Event:
    (entry,) = read(trace.encode_start(start_of()) + trace.encode_entry(Instant(5), event, ()))
    assert entry.now == 5
    assert entry.effects == trace.digest_of(())
    return entry.event


def test_there_is_an_example_of_every_event() -> None:
    assert set(every_event()) == set(Event.__subclasses__())


@pytest.mark.parametrize("event", every_event().values(), ids=lambda event: type(event).__name__)
def test_every_event_comes_back_as_it_was(event: Event) -> None:
    back = there_and_back(event)
    assert type(back) is type(event)
    assert back == event


@pytest.mark.parametrize("message", samples.every_message().values(), ids=samples.every_message())
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    back = there_and_back(events.MessageReceived(BOB, message))
    assert isinstance(back, events.MessageReceived)
    assert type(back.message) is type(message)
    assert back == events.MessageReceived(BOB, message)


def test_what_a_peer_was_made_of_comes_back_as_it_was() -> None:
    profile = Profile(
        mesh="test",
        store=bytes(16),
        labels={"region": "eu", "rack": "7"},
        admitted=(BOB,),
        policy=Policy(submitters=(BOB,), accept_work=False),
    )
    limits = msgspec.structs.replace(DEFAULT_LIMITS, jobs_max=7)
    start = start_of(profile=profile, limits=limits, rows=(("incarnation", b"", b"\x07"),))
    assert Reader(BytesIO(trace.encode_start(start))).start == start


# -- living again -----------------------------------------------------------------------------------------------


def test_the_same_code_has_the_same_effects() -> None:
    assert replay(PARTS) == Replayed(len(EFFECTS), 0, None)
    kinds = {type(effect) for effects in EFFECTS for effect in effects or ()}
    assert len(kinds) >= 6, "a life in which nothing happens shows nothing"


def test_what_the_journal_held_is_part_of_it() -> None:
    written, (started,) = record(start_of(rows=(("incarnation", b"", b"\x07"),)), [(0, events.Started())])
    assert started != EFFECTS[0]
    assert replay(written) == Replayed(1, 0, None)


def test_other_code_is_found_at_the_first_event_it_answers_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Probing.on_ping

    def lying(self: Probing, sender: object, message: Ping) -> None:
        honest(self, BOB, msgspec.structs.replace(message, number=message.number + 1))

    monkeypatch.setattr(Probing, "on_ping", lying)
    done = replay(PARTS)
    assert done.events == PING_AT
    assert done.mismatch is not None
    assert (done.mismatch.index, done.mismatch.event) == (PING_AT, life()[PING_AT][1])
    asked = done.mismatch.effects
    assert asked is not None
    assert [
        effect.message.number for effect in asked if isinstance(effect, Send) and isinstance(effect.message, Ack)
    ] == [2]


def test_another_seed_is_other_effects() -> None:
    written, _ = record(start_of(seed=1), life())
    other = [trace.encode_start(start_of(seed=2)), *written[1:]]
    assert replay(other).mismatch is not None


def test_an_error_that_was_raised_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(Probing, "on_ping", broken)
        written, effects = record(start_of(), life())
        assert [number for number, one in enumerate(effects) if one is None] == [PING_AT]
        assert replay(written) == Replayed(len(effects), 1, None)
    mended = replay(written).mismatch
    assert mended is not None
    assert mended.index == PING_AT


def test_the_order_of_effects_counts() -> None:
    one, other = Notice("info", "one"), Notice("info", "other")
    assert trace.digest_of((one, other)) != trace.digest_of((other, one))


# -- bytes that are not what was written ------------------------------------------------------------------------


@given(at=st.integers(0, len(WRITTEN) - 1), mask=st.integers(1, 255))
def test_every_changed_byte_is_found_at_its_place(at: int, mask: int) -> None:
    changed = bytearray(WRITTEN)
    changed[at] ^= mask
    with pytest.raises(TraceDamaged) as caught:
        read(bytes(changed))
    if at >= len(trace.MAGIC):
        assert f"damaged at byte {max(begin for begin in BEGINS if begin <= at)}: " in str(caught.value)


@given(length=st.integers(len(PARTS[0]), len(WRITTEN)))
def test_a_trace_that_was_cut_ends_before_the_entry_that_is_not_whole(length: int) -> None:
    reader = Reader(BytesIO(WRITTEN[:length]))
    entries = list(reader)
    whole = max(begin for begin in BEGINS if begin <= length)
    assert entries == read(WRITTEN[:whole])
    assert len(entries) == BEGINS.index(whole) - 1
    assert reader.torn == length - whole


@given(length=st.integers(0, len(PARTS[0]) - 1))
def test_a_trace_without_its_beginning_is_refused(length: int) -> None:
    with pytest.raises(TraceDamaged):
        Reader(BytesIO(WRITTEN[:length]))


@given(tail=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_torn(tail: bytes) -> None:
    for data in (tail, trace.MAGIC + tail, PARTS[0] + tail):
        with suppress(TraceDamaged):
            assert read(data) == []


@given(body=st.binary(max_size=200))
@example(b"\x93\x05\x81\xa5event\xa2\xff\xff\xc4\x00")
@example(b"\x91" * 100_000)
def test_entries_of_another_version_are_refused(body: bytes) -> None:
    for data in (trace.MAGIC, PARTS[0]):
        with pytest.raises(TraceDamaged, match="another version"):
            read(data + trace._frame(body))
