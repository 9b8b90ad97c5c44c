"""What a remote does on its link becomes one event of the core, or none; never an exception."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.hearing import Hearing
from meshnode.net import events as links
from protocol.events import Event, GarbageReceived, MessageReceived, PeerLost
from protocol.identity import PeerId
from protocol.limits import TEXT_CHARS_MAX
from protocol.messages import Ping, encode_message

PEER = PeerId("12D3KooWremote")
PING = Ping(number=1, wall_ms=2)


@pytest.mark.parametrize(
    ("happened", "event"),
    [
        (links.FrameReceived(PEER, encode_message(PING)), MessageReceived(PEER, PING)),
        (links.GarbageReceived(PEER, "no frames"), GarbageReceived(PEER, "no frames")),
        (links.SendDropped(PEER, 3, "unreachable"), PeerLost(PEER, "unreachable")),
        (links.LinkDown(PEER, "lost"), PeerLost(PEER, "lost")),
        (links.LinkDown(PEER, "idle"), None),
        (links.LinkDown(PEER, "closed by us"), None),
        (links.LinkUp(PEER), None),
    ],
)
def test_what_the_core_hears(happened: links.LinkEvent, event: Event | None) -> None:
    assert Hearing().event_of(happened) == event


def test_a_later_versions_message_is_skipped_and_counted() -> None:
    hearing = Hearing()
    assert hearing.event_of(links.FrameReceived(PEER, b"\xa1dkindhnonesuch")) is None
    assert hearing.skipped == 1


@given(frame=st.binary(max_size=300))
def test_any_bytes_are_a_message_or_garbage(frame: bytes) -> None:
    event = Hearing().event_of(links.FrameReceived(PEER, frame))
    assert event is None or isinstance(event, MessageReceived | GarbageReceived)


@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
def test_a_changed_message_is_a_message_or_garbage(changes: list[tuple[int, int]]) -> None:
    frame = bytearray(encode_message(PING))
    for at, value in changes:
        frame[at % len(frame)] = value
    event = Hearing().event_of(links.FrameReceived(PEER, bytes(frame)))
    assert event is None or isinstance(event, MessageReceived | GarbageReceived)
    if isinstance(event, GarbageReceived):
        assert len(event.reason) <= TEXT_CHARS_MAX
