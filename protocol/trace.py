"""The record of one peer's life, from which the same code lives it again: every event, and what came of it.

What a peer does follows from what it was made of and what it is told (``peer.py``), so a trace holds these two, and of
its effects a digest each, to compare with. The private key is not in it: whoever replays a trace brings the key, and
Ed25519 signs the same bytes the same way each time.

    "meshnode trace 1\\n"  frame of Start  frame of Entry  frame of Entry …
    frame:  length of the body (4 bytes, big endian) · its complement (4) · BLAKE2b of the body (8) · body (MessagePack)

A trace ends wherever its node did: a frame that is cut short at the very end is no damage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, BinaryIO, TypeVar, Union

import msgspec

from protocol.clock import Instant, WallMs
from protocol.effects import Effect
from protocol.errors import LocalProtocolError
from protocol.events import Event, MessageReceived
from protocol.identity import PeerId, Signer
from protocol.limits import Limits
from protocol.messages import MESSAGE_KINDS
from protocol.peer import Peer
from protocol.profile import Profile
from protocol.signing import RecordReader

T = TypeVar("T")

MAGIC = b"meshnode trace 1\n"
RAISED = b""
"""In the place of a digest: ``handle`` raised, which is a bug, and worth replaying."""

_DIGEST_BYTES = 16
_CHECK_BYTES = 8
_LENGTH_BYTES = 4
_LENGTHS = (1 << 8 * _LENGTH_BYTES) - 1
_HEAD_BYTES = 2 * _LENGTH_BYTES + _CHECK_BYTES


class TraceDamaged(LocalProtocolError):
    """Not a trace, or not as it was written; the text is one sentence that says where."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """All that a peer is made of, but its private key."""

    peer: PeerId
    profile: Profile
    bootstrap: tuple[PeerId, ...]
    seed: int
    """Of its ``Random``; 64 bits."""
    limits: Limits
    incarnation: int
    wall: WallMs
    now: Instant
    rows: tuple[tuple[str, bytes, bytes], ...] = ()
    """What its journal held."""

    def make_peer(self, signer: Signer, reader: RecordReader, rng: Random) -> Peer:
        """The peer, right before ``Started``; ``rng`` is fresh from ``seed``.

        Raises LocalProtocolError for rows that this version cannot read.
        """
        assert signer.peer_id == self.peer, "the key of another peer"
        peer = Peer(
            signer=signer,
            reader=reader,
            profile=self.profile,
            bootstrap=self.bootstrap,
            rng=rng,
            limits=self.limits,
            incarnation=self.incarnation,
            wall=self.wall,
            now=self.now,
        )
        peer.restore(self.rows)
        return peer


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One call of ``Peer.handle``."""

    now: Instant
    event: Event
    effects: bytes
    """``digest_of`` its effects, or RAISED."""


class Mismatch(msgspec.Struct, frozen=True):
    """The first entry to which this code answers otherwise."""

    index: int
    """Counted from 0, which is ``Started``."""
    event: Event
    effects: tuple[Effect, ...] | None
    """What it asks for now; None if it raised."""


class Replayed(msgspec.Struct, frozen=True):
    """What came of a replay."""

    events: int
    """Those with identical effects: all of them, if there is no mismatch."""
    raised: int
    """How many of them raised an exception, now as then."""
    mismatch: Mismatch | None


def replay(peer: Peer, entries: Iterable[Entry]) -> Replayed:
    """Feed ``entries`` to ``peer``, fresh from ``Start.make_peer``, until one of them has other effects."""
    events = raised = 0
    for entry in entries:
        effects: tuple[Effect, ...] | None
        try:
            effects = peer.handle(entry.event, now=entry.now)
        except Exception:  # as a driver does: a bug costs one event, not the node
            effects = None
        if digest_of(effects) != entry.effects:
            return Replayed(events, raised, Mismatch(events, entry.event, effects))
        events += 1
        raised += effects is None
    return Replayed(events, raised, None)


def digest_of(effects: Sequence[Effect] | None) -> bytes:
    """BLAKE2b over effects in their order; RAISED for None."""
    if effects is None:
        return RAISED
    return hashlib.blake2b(_encode(effects), digest_size=_DIGEST_BYTES).digest()


# -- writing --------------------------------------------------------------------------------------------------


def encode_start(start: Start) -> bytes:
    """The bytes with which a trace begins."""
    return MAGIC + _frame(_encode(start))


def encode_entry(now: Instant, event: Event, effects: Sequence[Effect] | None) -> bytes:
    """The bytes to append for one call of ``handle``; ``effects`` is None if it raised."""
    return _frame(_encode(Entry(now, event, digest_of(effects))))


def _frame(body: bytes) -> bytes:
    lengths = (len(body), _LENGTHS - len(body))
    return b"".join(length.to_bytes(_LENGTH_BYTES, "big") for length in lengths) + _check(body) + body


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()


# -- reading --------------------------------------------------------------------------------------------------


class Reader:
    """A trace from its first byte on: ``start``, then its entries, once.

    ``torn`` says, when the entries have ended, how many bytes of one more were there; 0 for a trace that ends well.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Raises TraceDamaged."""
        self.torn = 0
        self._stream = stream
        self._index = 0
        self._offset = 0
        if self._read(len(MAGIC)) != MAGIC:
            raise TraceDamaged("does not begin as a trace of format 1 does")
        body = self._body("its beginning")
        if body is None:
            raise TraceDamaged("ends before its first event")
        self.start = _decode(_start_decoder, body, "its beginning")

    def __iter__(self) -> Iterator[Entry]:
        """Raises TraceDamaged where the trace is not what was written."""
        while (body := self._body(what := f"event {self._index}")) is not None:
            yield _entry(body, what)
            self._index += 1

    def _body(self, what: str) -> bytes | None:
        """The body of the next frame; None at the end."""
        begin = self._offset
        head = self._read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            self.torn = len(head)
            return None
        length = int.from_bytes(head[:_LENGTH_BYTES], "big")
        if length + int.from_bytes(head[_LENGTH_BYTES : 2 * _LENGTH_BYTES], "big") != _LENGTHS:
            raise TraceDamaged(f"is damaged at byte {begin}: the length of {what}")
        body = self._read(length)
        if len(body) < length:
            self.torn = len(head) + len(body)
            return None
        if _check(body) != head[2 * _LENGTH_BYTES :]:
            raise TraceDamaged(f"is damaged at byte {begin}: {what}")
        return body

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._offset += len(data)
        return data


def _entry(body: bytes, what: str) -> Entry:
    stored = _decode(_entry_decoder, body, what)
    event = stored.event
    if isinstance(event, _Received):
        event = MessageReceived(event.sender, event.message)
    return Entry(stored.now, event, stored.effects)


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes, what: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError, AssertionError) as error:  # the last of Limits
        raise TraceDamaged(f"was written by another version: {what}: {error}") from None


def _any_of(kinds: Iterable[type]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007  known only when the program runs


_Received: Any = msgspec.defstruct(
    MessageReceived.__name__,
    [("sender", PeerId), ("message", _any_of(MESSAGE_KINDS.values()))],
    frozen=True,
    tag_field="event",
    tag=True,
)
"""``MessageReceived`` as it is read: its message is of one of the known kinds."""

_Stored: Any = msgspec.defstruct(
    Entry.__name__,
    [
        ("now", int),
        ("event", _any_of(_Received if kind is MessageReceived else kind for kind in Event.__subclasses__())),
        ("effects", bytes),
    ],
    frozen=True,
    array_like=True,
)

_encode = msgspec.msgpack.Encoder().encode
_start_decoder = msgspec.msgpack.Decoder(Start)
_entry_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_Stored)
