"""What goes wrong by itself, at random times until the faults end: machines crash and come back, connections break."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_DOWN_MS = (500, 15_000)
_ALIVE_MIN = 3


class Disruptions:
    """Plans crashes and cuts as two Poisson processes over the whole world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._end = int(world.options.faults_s * NS_PER_S)

    def plan(self) -> None:
        rates = self._world.options.faults
        self._next(rates.crash_per_s, self._crash)
        self._next(rates.cut_per_s, self._cut)
        self._world.agenda.at(self._end, self.end)

    def end(self) -> None:
        """No fault from now on. What is down and not gone for good is coming back by its own timer."""
        self._world.faults.active = False

    @property
    def over(self) -> bool:
        machines = self._world.machines.all
        return not self._world.faults.active and all(machine.alive or machine.gone for machine in machines)

    def _next(self, rate: float, happen: object) -> None:
        if rate:
            world = self._world
            pause = int(world.rng.expovariate(rate) * NS_PER_S)
            if world.agenda.now + pause < self._end:
                world.agenda.after(pause, happen)  # type: ignore[arg-type]

    def _crash(self) -> None:
        world = self._world
        self._next(world.options.faults.crash_per_s, self._crash)
        alive = world.machines.alive
        if len(alive) <= _ALIVE_MIN:
            return
        machine = world.rng.choice(alive)
        world.machines.crash(machine)
        world.faults.happened("crash")
        if machine.index >= world.options.bootstraps and world.faults.strikes("gone"):
            machine.gone = True
            return
        if world.faults.strikes("wipe"):
            world.machines.wipe(machine)
        world.agenda.after(world.rng.randint(*_DOWN_MS) * NS_PER_MS, world.machines.start, machine)

    def _cut(self) -> None:
        world = self._world
        self._next(world.options.faults.cut_per_s, self._cut)
        machine: Machine | None = world.rng.choice(world.machines.alive or [None])
        links = [peer for peer, link in machine.links.items() if link.open] if machine is not None else []
        if machine is not None and links:
            world.network.cut(machine, world.rng.choice(links))
            world.faults.happened("cut")
