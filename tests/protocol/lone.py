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
from protocol.messages import (
    Ack,
    Create,
    Created,
    HoldAnswer,
    HoldRequest,
    Join,
    Message,
    Ping,
    PointerStored,
    StorePointer,
    decode_message,
    encode_message,
)
from protocol.peer import Peer
from protocol.profile import Profile
from protocol.records import JobSpec
from protocol.signing import Opened, RecordReader
from protocol.wire import Role
from tests.protocol import samples
from tests.protocol.journal import Journal, keep
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
    context.advance(Instant(context.now + milliseconds * NS_PER_MS))


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
        journal: Journal | None = None,
        **profile: Any,
    ) -> None:
        self.now = Instant(NS_PER_S)
        self.limits = limits
        #: Others that answer pings while time passes.
        self.living: tuple[str, ...] = ()
        self.me = signer(name).peer_id
        self.peer = Peer(
            signer=key or signer(name),
            reader=RecordReader(verifier or Ed25519Verifier(), records_max=limits.reader_records_max),
            profile=profile_of(name, **profile),
            bootstrap=tuple(signer(other).peer_id for other in bootstrap),
            rng=Random(7),
            limits=limits,
            incarnation=incarnation,
            wall=WallMs(START_WALL),
            now=self.now,
        )
        #: What it keeps over restarts, by table and key.
        self.journal: Journal = dict(journal or {})
        self.peer.restore((table, row, self.journal[table, row]) for table, row in sorted(self.journal))
        self.first = self.give(events.Started())

    @property
    def wall(self) -> int:
        return START_WALL + (self.now - NS_PER_S) // NS_PER_MS

    def give(self, event: events.Event) -> tuple[Effect, ...]:
        """What the peer asks for, but for its records: these are in ``journal`` then."""
        every = self.peer.handle(event, now=self.now)
        for effect in every:
            if isinstance(effect, effects.Record):
                keep(self.journal, effect)
        emitted = tuple(effect for effect in every if not isinstance(effect, effects.Record))
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
        while self.now < end:
            due = self.peer.next_wakeup()
            self.now = Instant(end if due is None else min(due, end))
            woken = self.give(events.WakeupReached())
            emitted += woken
            for name in self.living:
                for to, ping in sent(woken, Ping):
                    if to == signer(name).peer_id:
                        emitted += self.receive(name, Ack(number=ping.number, wall_ms=self.wall))
        return tuple(emitted)

    # -- a life of its own

    def meet(self, *names: str, **capability: Any) -> tuple[Effect, ...]:
        """These become neighbours, as far as the active view goes."""
        emitted: tuple[Effect, ...] = ()
        for name in names:
            fields = {"issued_at": self.wall, "not_after": self.wall + 75_000} | capability
            record = samples.capability(name, **fields)
            emitted += self.receive(name, Join(capability=record.signed, wall_ms=self.wall))
        return emitted

    @property
    def neighbours(self) -> set[PeerId]:
        return set(self.peer.snapshot().neighbours)

    @property
    def known(self) -> set[PeerId]:
        return {record.peer for record in self.peer.snapshot().known}


def misbehaved(emitted: Iterable[Effect]) -> bool:
    """Whether the event counted as an offence of its sender."""
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


def fetched_all(lone: Lone, emitted: Iterable[Effect]) -> tuple[Effect, ...]:
    """Every fetch that was asked for succeeds."""
    answers: tuple[Effect, ...] = ()
    for fetch in of_kind(emitted, effects.FetchBlobs):
        answers += lone.give(events.BlobsFetched(fetch.fetch))
    return answers


def taken_in(lone: Lone, job: Opened[JobSpec], *helpers: str, request: int = 1) -> tuple[Effect, ...]:
    """A client hands the job in; the named peers do all that they are asked for, so that it is accepted."""
    names = {peer(name): name for name in helpers}
    todo = list(lone.give(events.JobSubmitted(request, job.signed, ())))
    emitted: list[Effect] = []
    while todo:
        effect = todo.pop(0)
        emitted.append(effect)
        match effect:
            case effects.FetchBlobs(fetch):
                todo += lone.give(events.BlobsFetched(fetch))
            case Send(to, message) if to in names:
                answer = _helpful_answer(names[to], job, message)
                todo += lone.receive(names[to], answer) if answer is not None else ()
    return tuple(emitted)


def _helpful_answer(name: str, job: Opened[JobSpec], message: Message) -> Message | None:
    match message:
        case Create():
            return Created(job=job.digest, store=samples.holder(name).store)
        case HoldRequest():
            return HoldAnswer(job=job.digest, held=samples.held(job, by=name).signed)
        case StorePointer(pointer=pointer):
            return PointerStored(pointer=pointer.digest)
    return None


def finished(run: effects.StartRun, **fields: Any) -> events.RunFinished:
    defaults: dict[str, Any] = {
        "output": samples.output_of(f"{run.task.role} {run.task.index}"),
        "input_hash": samples.digest_of(f"input of {run.task.role} {run.task.index}"),
        "shards": 4 if run.task.role is Role.SPLIT else 0,
        "image": "",
        "runtime": "sandbox/namespace",
        "pull_ms": 0,
        "transfer_ms": 11,
        "run_ms": 268,
        "started_at": WallMs(START_WALL),
    }
    return events.RunFinished(run=run.run, **(defaults | fields))


def failed(run: effects.StartRun, reason: str, *, counts: bool) -> events.RunFailed:
    hash_of_input = samples.digest_of(f"input of {run.task.role} {run.task.index}")
    return events.RunFailed(
        run.run, reason, counts, hash_of_input, "", "sandbox/namespace", 0, 0, 5, WallMs(START_WALL)
    )
