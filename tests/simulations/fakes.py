"""A peer that does as it is told, for worlds in which single events matter."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from types import SimpleNamespace
from typing import Any

from protocol.effects import Effect
from protocol.events import ClockObserved, Event, StatusAsked, WakeupReached
from simulations.faults import FaultRates
from simulations.journal import Row
from simulations.machines import Machine
from simulations.options import Options
from simulations.world import World

_INCARNATIONS = count(1)


class ScriptedPeer:
    """Remembers what it is fed; answers each event with the effects that were put into ``script``."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.heard: list[tuple[int, Event]] = []
        self.script: list[Effect] = []
        self.status: list[Effect] = []
        """Answer to a ``StatusAsked``, each time."""
        self.stewarding: tuple[bytes, ...] = ()
        self.records: dict[bytes, Any] = {}
        self.banned: set[str] = set()
        self.gone: set[str] = set()
        self.wakeup: int | None = None
        self.restored: tuple[Row, ...] | None = None
        """What ``restore`` was given; None if it was not called."""
        self.view = SimpleNamespace(
            incarnation=next(_INCARNATIONS), neighbours=(), known=(), leases=0, runs=0, tables={}
        )

    def record_of(self, job: bytes) -> Any:
        return self.records.get(job)

    def believes_gone(self, peer: str) -> bool:
        return peer in self.gone

    def is_banned(self, peer: str) -> bool:
        return peer in self.banned

    def restore(self, rows: Iterable[Row]) -> None:
        self.restored = tuple(rows)

    def handle(self, event: Event, *, now: int) -> tuple[Effect, ...]:
        if isinstance(event, StatusAsked):
            return tuple(self.status)
        self.heard.append((now, event))
        if isinstance(event, WakeupReached):
            self.wakeup = None
        effects, self.script = tuple(self.script), []
        return effects

    def next_wakeup(self) -> int | None:
        return self.wakeup

    def snapshot(self) -> Any:
        return self.view

    def heard_of(self, kind: type[Event]) -> list[Event]:
        return [event for _, event in self.heard if isinstance(event, kind)]


def world_of(peers: int, *, faults: FaultRates | None = None, **options: Any) -> World:
    """A world of started machines with scripted peers, 10 ms from each other, that know each other's addresses."""
    given = {
        "seed": 1,
        "latency_ms": (10, 0),
        "jitter_ms": 0,
        "bootstraps": peers,
        "clock_every_s": 1e6,
        "slots_max": 2,
    }
    world = World(
        Options(peers=peers, jobs=0, faults=faults or FaultRates(), **({"clock_every_s": 1e6} | given | options)),
        build_peer=ScriptedPeer,
    )
    for _ in range(peers):
        world.machines.add()
    for machine in world.machines.all:
        world.machines.start(machine)
    return world


def peer_of(machine: Machine) -> ScriptedPeer:
    assert isinstance(machine.peer, ScriptedPeer)
    return machine.peer


def run_ms(world: World, milliseconds: int) -> None:
    world.agenda.run_until(world.agenda.now + milliseconds * 1_000_000)


def do(world: World, machine: Machine, *effects: Effect) -> None:
    """Let a machine's peer ask for these effects now."""
    peer_of(machine).script = list(effects)
    world.feed(machine, ClockObserved(machine.wall(world.agenda.now)))
