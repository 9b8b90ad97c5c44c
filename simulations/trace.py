"""One hash over all that happened: two runs are the same if and only if their trace hashes are."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from protocol.effects import Effect, Send
from protocol.events import Event
from protocol.messages import Shuffle, ShuffleReply

_TAIL_EVENTS = 400
_AT_ONCE = 64
"""Events are hashed by the batch."""
_ITEMS_SHOWN = 8
_DIGEST_BYTES = 32
_PEER_ID_START = "12D3KooW"

Happened = tuple[int, int, Event | str, Sequence[Effect], int]
"""When, to which machine, what, what its peer asked for, and the number of the message that it was."""


class Trace:
    """A running BLAKE2b over (time, peer, event, effects), and the last few of them for people."""

    def __init__(self) -> None:
        self.events = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._encode = msgspec.msgpack.Encoder().encode
        self._pending: list[Happened] = []
        self._tail: deque[list[Happened]] = deque(maxlen=-(-_TAIL_EVENTS // _AT_ONCE))
        """The last batches that were hashed."""

    def add(self, now: int, peer: int, event: Event, effects: Sequence[Effect], number: int = 0) -> None:
        """``number``: of a message that was sent, and so has gone into the hash already."""
        self.events += 1
        self._pending.append((now, peer, event, effects, number))
        if len(self._pending) >= _AT_ONCE:
            self._hash_pending()

    def note(self, now: int, peer: int, what: str) -> None:
        """What happened to a machine, and not by an event of its peer."""
        self._pending.append((now, peer, what, (), 0))

    def _hash_pending(self) -> None:
        batch = [
            (now, peer, number or event, [_in_short(effect) for effect in effects] if effects else ())
            for now, peer, event, effects, number in self._pending
        ]
        self._hash.update(self._encode(batch))
        self._tail.append(self._pending)
        self._pending = []

    @property
    def hash(self) -> str:
        """Of all so far; asking in between is part of what is hashed."""
        self._hash_pending()
        return self._hash.hexdigest()

    def tail(self, peer: int | None = None) -> Iterator[str]:
        """The last events as text, one line for each event and one for each of its effects."""
        last = [*chain.from_iterable(self._tail), *self._pending][-_TAIL_EVENTS:]
        for now, who, event, effects, _ in last:
            if peer is None or who == peer:
                yield f"{now / 1e9:12.6f} s  peer {who:<5} {_short(event)}"
                yield from (f"{'':28}→ {_short(effect)}" for effect in effects)


def _in_short(effect: Effect) -> object:
    """What goes into the hash: of the records in a shuffle, four fifths of all bytes, only their signatures."""
    if type(effect) is Send:
        message = effect.message
        if type(message) is Shuffle:
            signatures = [signed.signature for signed in message.records]
            return (effect.to, message.origin.signature, signatures, message.epoch, message.sketch, message.hops)
        if type(message) is ShuffleReply:
            signatures = [signed.signature for signed in message.records]
            return (effect.to, signatures, message.epoch, message.sketch)
    return effect


def _short(value: object) -> str:
    """A value in one line: structs by the fields that are set, bytes by a few digits, peer ids by their end."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()[:8] if len(value) > _DIGEST_BYTES else value.hex()[:8]
    if isinstance(value, msgspec.Struct):
        fields = {field.name: field.default for field in msgspec.structs.fields(value)}
        shown = ((name, getattr(value, name)) for name in fields)
        return f"{type(value).__name__}({', '.join(f'{n}={_short(v)}' for n, v in shown if v != fields[n])})"
    if isinstance(value, tuple):
        items = [_short(item) for item in value[:_ITEMS_SHOWN]]
        return f"[{', '.join(items)}{f', … {len(value)}' if len(value) > _ITEMS_SHOWN else ''}]"
    if isinstance(value, str) and value.startswith(_PEER_ID_START):
        return f"…{value[-6:]}"
    return str(value)
