"""Machines that are slow, or stand still: what reaches them waits its turn. Their clocks go on."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.events import ClockObserved
from simulations.decisions import Decision

if TYPE_CHECKING:
    from simulations.machines import Machine
    from simulations.world import World

_SLOW_MS = (1_000, 10_000)
_EACH_MS = (50, 800)
_PAUSE_MS = (1_000, 20_000)
_SILENCE_NS = 12 * NS_PER_S
"""After so long others give up their connections to a machine that stands still."""
_SETTLED_NS = 10 * NS_PER_S
"""A machine that has just started is let be: rules give it some seconds for what it owes from before."""


class Holdups:
    """Puts an inbox before a machine's peer, and takes it away again."""

    def __init__(self, world: World) -> None:
        self._world = world

    def slow(self, decision: Decision) -> None:
        """One machine needs a while for each event, for some seconds; then it is through with all at once."""
        rng = decision.rng()
        if (machine := self._pick(rng)) is not None:
            until = self._world.agenda.now + rng.randint(*_SLOW_MS) * NS_PER_MS
            each = rng.randint(*_EACH_MS) * NS_PER_MS
            machine.inbox = deque()
            self._world.agenda.after(each, self._serve, machine, machine.boot, each, until, decision)

    def pause(self, decision: Decision) -> None:
        """One machine does nothing for a while, as after SIGSTOP: then comes all that waited, timers late."""
        agenda, rng = self._world.agenda, decision.rng()
        if (machine := self._pick(rng)) is None:
            return
        until = agenda.now + rng.randint(*_PAUSE_MS) * NS_PER_MS
        machine.inbox = deque()
        agenda.at(until, self._resume, machine, machine.boot, decision)
        if agenda.now + _SILENCE_NS < until:
            agenda.after(_SILENCE_NS, self._give_up, machine, machine.boot)

    def end(self) -> None:
        """All machines are as fast as ever."""
        for machine in self._world.machines.alive:
            if machine.inbox is not None:
                self._resume(machine, machine.boot, None)

    def _pick(self, rng: Random) -> Machine | None:
        settled = self._world.agenda.now - _SETTLED_NS
        ready = [m for m in self._world.machines.alive if m.inbox is None and m.started_at <= settled]
        return rng.choice(ready) if ready else None

    def _serve(self, machine: Machine, boot: int, each: int, until: int, decision: Decision | None) -> None:
        """One event, then the next after a while."""
        agenda = self._world.agenda
        if machine.boot != boot or machine.inbox is None:
            return
        if agenda.now + each > until:
            self._resume(machine, boot, decision)
            return
        if machine.inbox:
            self._note(machine, decision)
            decision = None
            self._next(machine)
        agenda.after(each, self._serve, machine, boot, each, until, decision)

    def _resume(self, machine: Machine, boot: int, decision: Decision | None) -> None:
        if machine.boot != boot or machine.inbox is None:
            return
        if machine.inbox:
            self._note(machine, decision)
        while machine.alive and machine.boot == boot and machine.inbox:
            self._next(machine)
        if machine.boot == boot and machine.alive:
            machine.inbox = None

    def _next(self, machine: Machine) -> None:
        assert machine.inbox is not None
        event, number, is_lie = machine.inbox.popleft()
        if type(event) is ClockObserved:  # the clock is read when its turn comes
            event = ClockObserved(machine.wall(self._world.agenda.now))
        self._world.turn(machine, event, number, is_lie)

    def _give_up(self, machine: Machine, boot: int) -> None:
        """Those connected hear nothing any more; the machine itself learns of it when it goes on."""
        if machine.boot == boot and machine.inbox is not None:
            for peer in [peer for peer, link in machine.links.items() if link.open]:
                self._world.network.cut(machine, peer)

    def _note(self, machine: Machine, decision: Decision | None) -> None:
        if decision is not None:
            self._world.faults.happened(decision, self._world.agenda.now, f"peer {machine.index}")
