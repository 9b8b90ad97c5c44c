"""One peer under test, and nobody else: the test plays all the others, and the clock."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, TypeVar

from protocol import effects, events
from protocol.clock import NS_PER_MS, NS_PER_S, Instant, WallMs
from protocol.context import Context
from protocol.effects import Effect, Send
from protocol.identity import Ed25519Verifier, PeerId, Signer, Verifier
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import Join, Message, decode_message, encode_message
from protocol.peer import Peer
from protocol.profile import Profile
from protocol.signing import RecordReader
from tests.protocol import samples
from tests.protocol.mesh import START_WALL, signer

M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Effect)


def profile_of(name: str, **fields: Any) -> Profile:
    peer = signer(name).peer_id
    defaults: dict[str, Any] = {"mesh": "test", "store": samples.nonce_of(f"store of {name}")}
    return Profile(**(defaults | {"addresses": (f"/ip4/192.0.2.1/tcp/4001/p2p/{peer}",)} | fields))


def context_of(name: str = "ann", *, limits: Limits = DEFAULT_LIMITS, **profile: Any) -> Context:
    """What a role gets, for tests of one role alone."""
    return Context(
        signer=signer(name),
        reader=RecordReader(Ed25519Verifier()),
        profile=profile_of(name, **profile),
        limits=limits,
        rng=Random(7),
        wall=START_WALL,
        now=Instant(NS_PER_S),
    )


def pass_time(context: Context, milliseconds: int) -> None:
    context.now = Instant(context.now + milliseconds * NS_PER_MS)


class Lone:
    """``receive`` and ``give`` return the effects of one event; ``wait`` those of all wake-ups in between.

    Whatever the peer sends must be something another peer would accept, and no wake-up may stay due.
    """

    def __init__(
        self,
        name: str = "ann",
        *,
        limits: Limits = DEFAULT_LIMITS,
        bootstrap: tuple[str, ...] = (),
        incarnation: int = 1,
        key: Signer | None = None,
        verifier: Verifier | None = None,
        **profile: Any,
    ) -> None:
        self.now = Instant(NS_PER_S)
        self.limits = limits
        self.me = signer(name).peer_id
        self.peer = Peer(
            signer=key or signer(name),
            reader=RecordReader(verifier or Ed25519Verifier()),
            profile=profile_of(name, **profile),
            bootstrap=tuple(signer(other).peer_id for other in bootstrap),
            rng=Random(7),
            limits=limits,
            incarnation=incarnation,
            wall=WallMs(START_WALL),
            now=self.now,
        )
        self.first = self.give(events.Started())

    @property
    def wall(self) -> int:
        return START_WALL + (self.now - NS_PER_S) // NS_PER_MS

    def give(self, event: events.Event) -> tuple[Effect, ...]:
        emitted = self.peer.handle(event, now=self.now)
        for effect in emitted:
            if isinstance(effect, Send):
                assert effect.to != self.me
                assert decode_message(encode_message(effect.message)) == effect.message
        due = self.peer.next_wakeup()
        assert due is None or due > self.now
        return emitted

    def receive(self, sender: str, message: Message) -> tuple[Effect, ...]:
        return self.give(events.MessageReceived(signer(sender).peer_id, message))

    def wait(self, milliseconds: int) -> tuple[Effect, ...]:
        end = self.now + milliseconds * NS_PER_MS
        emitted: list[Effect] = []
        while (due := self.peer.next_wakeup()) is not None and due <= end:
            self.now = due
            emitted += self.give(events.WakeupReached())
        self.now = Instant(end)
        return tuple(emitted)

    # -- a life of its own

    def meet(self, *names: str, **capability: Any) -> None:
        """These become neighbours, as far as the active view goes."""
        for name in names:
            fields = {"issued_at": self.wall, "not_after": self.wall + 75_000} | capability
            self.receive(name, Join(capability=samples.capability(name, **fields).signed, wall_ms=self.wall))

    @property
    def neighbours(self) -> set[PeerId]:
        return set(self.peer.snapshot().neighbours)

    @property
    def known(self) -> set[PeerId]:
        return {record.peer for record in self.peer.snapshot().known}

    def misbehaved(self, emitted: Iterable[Effect]) -> bool:
        return any(isinstance(one, effects.Notice) and one.text.startswith("not understood") for one in emitted)


def sent(emitted: Iterable[Effect], kind: type[M]) -> list[tuple[PeerId, M]]:
    """Messages of one kind, and to whom."""
    return [(one.to, one.message) for one in emitted if isinstance(one, Send) and isinstance(one.message, kind)]


def only(emitted: Iterable[Effect], kind: type[M]) -> M:
    """The one message of that kind."""
    ((_, message),) = sent(emitted, kind)
    return message


def of_kind(emitted: Iterable[Effect], kind: type[E]) -> list[E]:
    return [one for one in emitted if isinstance(one, kind)]


def one_of_kind(emitted: Iterable[Effect], kind: type[E]) -> E:
    (effect,) = of_kind(emitted, kind)
    return effect


def peer(name: str) -> PeerId:
    return signer(name).peer_id
