"""What the roles of one peer share: identity, time, randomness, limits, and the effects of the event at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Literal, TypeVar

import msgspec

from protocol.clock import NS_PER_MS, Instant, WallMs, after_ms
from protocol.codec import encode
from protocol.durable import Table
from protocol.effects import Effect, Notice, Send
from protocol.effects import Record as RecordEffect
from protocol.identity import PeerId, Signer
from protocol.limits import TEXT_CHARS_MAX, Limits
from protocol.messages import Message
from protocol.profile import Profile
from protocol.records import Record
from protocol.signing import Opened, RecordReader, sign
from protocol.timers import Timer, Timers

R = TypeVar("R", bound=Record)


class Context:
    """Handed to every role. Roles never meet each other here: only the peer they belong to."""

    def __init__(
        self,
        *,
        signer: Signer,
        reader: RecordReader,
        profile: Profile,
        limits: Limits,
        rng: Random,
        wall: WallMs,
        now: Instant,
    ) -> None:
        self.me: PeerId = signer.peer_id
        self.profile = profile
        self.limits = limits
        self.rng = rng
        self.now = now
        self._wall_base_ms = wall - now // NS_PER_MS
        #: The wall clock: as last observed, moved on by the monotonic clock.
        self.wall = wall
        #: Why this node takes no new work for want of room, as its driver says.
        self.storage_low: str | None = None
        self.timers = Timers()
        self.to_self: deque[Message] = deque()
        self._signer = signer
        #: Raises RemoteProtocolError for a record that is malformed, forged, or of another kind than is asked for.
        self.open = reader.open
        #: As ``open``, whatever its kind.
        self.open_any = reader.open_any
        self._effects: list[Effect] = []
        self._next_id = rng.getrandbits(48)  # a restarted peer must not match answers to its former self

    # -- time

    def advance(self, now: Instant) -> None:
        """Both clocks go on to where the monotonic one is ``now``."""
        self.now = now
        self.wall = WallMs(self._wall_base_ms + now // NS_PER_MS)

    def observe_wall(self, wall: WallMs) -> None:
        self._wall_base_ms = wall - self.now // NS_PER_MS
        self.wall = wall

    def after(self, milliseconds: int, action: Callable[[], None]) -> Timer:
        return self.timers.at(after_ms(self.now, milliseconds), action)

    def after_jittered(self, milliseconds: int, action: Callable[[], None]) -> Timer:
        """Between 0.75 and 1.25 times ``milliseconds`` from now, so that peers do not fall into step."""
        return self.after(milliseconds * self.rng.randrange(750, 1251) // 1000, action)

    # -- effects

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def send(self, to: PeerId, message: Message) -> None:
        """To another peer, or to this one without leaving it."""
        if to == self.me:
            self.to_self.append(message)
        else:
            self._effects.append(Send(to, message))

    def notice(
        self,
        level: Literal["debug", "info", "warning"],
        text: str,
        *,
        peer: PeerId | None = None,
        job: bytes | None = None,
    ) -> None:
        self._effects.append(Notice(level, text, peer, job))

    def record(self, table: Table, key: bytes, row: msgspec.Struct | bytes | None) -> None:
        """Keep a row over restarts; None removes it."""
        value = encode(row) if isinstance(row, msgspec.Struct) else row
        self._effects.append(RecordEffect(table, key, value))

    def take_effects(self) -> tuple[Effect, ...]:
        if not self._effects:
            return ()
        effects = tuple(self._effects)
        self._effects.clear()
        return effects

    # -- records and names

    def sign(self, record: R) -> Opened[R]:
        return sign(record, self._signer)

    def new_id(self) -> int:
        """A number that no earlier call on this peer has returned."""
        self._next_id += 1
        return self._next_id


def clipped(text: str, limit: int = TEXT_CHARS_MAX) -> str:
    """At most ``limit`` characters: by default as many as fit a message field."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
