"""The recorded life of one peer, and one example of everything that can happen to it."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import msgspec

from protocol import events, trace
from protocol.clock import NS_PER_MS, NS_PER_S, Instant, WallMs
from protocol.effects import Effect
from protocol.events import Event
from protocol.identity import Ed25519Verifier, Signer
from protocol.limits import DEFAULT_LIMITS
from protocol.messages import Ack, Join, Ping
from protocol.peer import Peer
from protocol.signing import RecordReader
from protocol.trace import Start
from tests.protocol import samples
from tests.protocol.lone import profile_of
from tests.protocol.mesh import START_WALL, signer

BOB = signer("bob").peer_id


def every_event() -> dict[type[Event], Event]:
    job, output, digest = samples.spec(), samples.output_of("shard 0"), samples.digest_of("input")
    ran: dict[str, Any] = {
        "input_hash": digest,
        "image": "",
        "runtime": "sandbox/namespace",
        "pull_ms": 0,
        "transfer_ms": 11,
        "run_ms": 268,
        "started_at": WallMs(START_WALL),
    }
    examples = (
        events.Started(),
        events.WakeupReached(),
        events.ClockObserved(WallMs(START_WALL + 1)),
        events.MessageReceived(BOB, Ack(number=9, wall_ms=START_WALL)),
        events.GarbageReceived(BOB, "not CBOR: \N{SNOWMAN}"),
        events.PeerLost(BOB, "connection reset"),
        events.RunFinished(run=1 << 47, output=output, shards=4, **ran),
        events.RunFailed(run=1 << 47, reason="exit code 1", counts=True, **ran),
        events.BlobsFetched(7),
        events.BlobsFailed(7, "nobody has it"),
        events.JobSubmitted(1, job.signed, (BOB,)),
        events.CancelAsked(2, samples.cancel(job).signed, BOB),
        events.StatusAsked(3, job.digest, BOB, 64),
        events.PointersAsked(4, "job", "stars", BOB),
        events.PointerPublished(5, samples.model_pointer().signed),
        events.ProposalAsked(6, 1),
        events.StorageLow("the disk is nearly full"),
        events.LeaveAsked(),
    )
    return {type(event): event for event in examples}


def start_of(**fields: Any) -> Start:
    made = Start(
        peer=signer("ann").peer_id,
        profile=profile_of("ann"),
        bootstrap=(BOB,),
        seed=(1 << 64) - 1,
        limits=DEFAULT_LIMITS,
        incarnation=1,
        wall=START_WALL,
        now=Instant(NS_PER_S),
    )
    return msgspec.structs.replace(made, **fields)


def peer_of(start: Start, key: Signer | None = None) -> Peer:
    return start.make_peer(key or signer("ann"), RecordReader(Ed25519Verifier()), Random(start.seed))


def record(
    start: Start, told: list[tuple[int, Event]], key: Signer | None = None
) -> tuple[list[bytes], list[tuple[Effect, ...] | None]]:
    """The trace of a peer that is told these events, each at its millisecond, in parts; and their effects."""
    peer, written = peer_of(start, key), [trace.encode_start(start)]
    all_effects: list[tuple[Effect, ...] | None] = []
    for at_ms, event in told:
        now = Instant(start.now + at_ms * NS_PER_MS)
        effects = None
        with suppress(ZeroDivisionError):
            effects = peer.handle(event, now=now)
        written.append(trace.encode_entry(now, event, effects))
        all_effects.append(effects)
    return written, all_effects


def life() -> list[tuple[int, Event]]:
    """A peer that meets another, is given jobs by clients, and leaves."""
    told: list[tuple[int, Event]] = [(0, events.Started())]
    join = Join(capability=samples.capability("bob").signed, wall_ms=START_WALL)
    told += [
        (10, events.MessageReceived(BOB, join)),
        (20, events.MessageReceived(BOB, Ping(number=1, wall_ms=START_WALL))),
    ]
    told += [(30 + number, event) for number, event in enumerate(every_event().values()) if number]
    told += [(at, events.WakeupReached()) for at in range(1_000, 30_000, 100)]
    return told


PING_AT = 2
"""Where in this life a ping is answered."""
