"""What happens to whole machines and connections until the faults end: they crash and come back, links break."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_DOWN_MS = (500, 15_000)
_LONG_DOWN_MS = (60_000, 240_000)
_POWER_CUT_DOWN_MS = (500, 6_000)
_ALIVE_MIN = 3


class Disruptions:
    """Plans crashes, power cuts and broken links as Poisson processes over the whole world, and all returns."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._end = int(world.options.faults_s * NS_PER_S)

    def plan(self) -> None:
        rates = self._world.options.faults
        self._next(rates.crash_per_s, self._crash_any)
        self._next(rates.power_cut_per_s, self._power_cut)
        self._next(rates.cut_per_s, self._cut)
        self._world.agenda.at(self._end, self.end)

    def end(self) -> None:
        """No fault from now on. What is down and not gone for good is coming back by its own timer."""
        self._world.faults.active = False

    @property
    def over(self) -> bool:
        machines = self._world.machines.all
        return not self._world.faults.active and all(machine.alive or machine.gone for machine in machines)

    # -- in the middle of a call's effects: the driver asks, as only it knows where the middle is

    def strikes_call(self, kind: str) -> bool:
        """Whether the machine whose call is being carried out crashes now."""
        return len(self._world.machines.alive) > _ALIVE_MIN and self._world.faults.strikes(kind)

    def crash(self, machine: Machine) -> None:
        """One machine crashes; it comes back soon, late, with another disk, or never."""
        world, faults = self._world, self._world.faults
        world.machines.crash(machine)
        if machine.index >= world.options.bootstraps and faults.strikes("gone"):
            machine.gone = True
            return
        if faults.strikes("wipe"):
            world.machines.wipe(machine)
        self._come_back(machine, _LONG_DOWN_MS if faults.strikes("long_down") else _DOWN_MS)

    # -- at any time

    def _crash_any(self) -> None:
        world = self._world
        self._next(world.options.faults.crash_per_s, self._crash_any)
        alive = world.machines.alive
        if len(alive) > _ALIVE_MIN:
            world.faults.happened("crash")
            self.crash(world.rng.choice(alive))

    def _power_cut(self) -> None:
        """All machines at one instant; what is down already stays down as long as it would have."""
        world = self._world
        self._next(world.options.faults.power_cut_per_s, self._power_cut)
        alive = world.machines.alive
        if alive:
            world.faults.happened("power_cut")
        for machine in alive:
            world.machines.crash(machine)
        for machine in alive:
            self._come_back(machine, _POWER_CUT_DOWN_MS)

    def _cut(self) -> None:
        world = self._world
        self._next(world.options.faults.cut_per_s, self._cut)
        machine: Machine | None = world.rng.choice(world.machines.alive or [None])
        links = [peer for peer, link in machine.links.items() if link.open] if machine is not None else []
        if machine is not None and links:
            world.network.cut(machine, world.rng.choice(links))
            world.faults.happened("cut")

    def _come_back(self, machine: Machine, down_ms: tuple[int, int]) -> None:
        world = self._world
        world.agenda.after(world.rng.randint(*down_ms) * NS_PER_MS, world.machines.start, machine)

    def _next(self, rate: float, happen: Callable[[], None]) -> None:
        if rate:
            world = self._world
            pause = int(world.rng.expovariate(rate) * NS_PER_S)
            if world.agenda.now + pause < self._end:
                world.agenda.after(pause, happen)
