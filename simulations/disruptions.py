"""What happens to whole machines and connections until the faults end: they crash and come back, leave, join, drift.

Each kind that has a rate is a Poisson process over the whole world; the others are drawn where they may strike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.events import LeaveAsked
from simulations.decisions import Decision
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_DOWN_MS = (500, 15_000)
_LONG_DOWN_MS = (60_000, 240_000)
_POWER_CUT_DOWN_MS = (500, 6_000)
_FULL_MS = (2_000, 20_000)
_ROOM_AGAIN_MS = (100, 5_000)
_LEAVING_MS = 50
_AWAY_MS = (5_000, 40_000)
_JOINING_MS = 2_000
_JUMP_MS = 3_600_000
_JUMPED_MS = (2_000, 30_000)
_SYNCS_LOST_MAX = 8
_ALIVE_MIN = 3


class Disruptions:
    """Plans what befalls the world, decides which calls a machine does not survive, and plans all returns."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._end = int(world.options.faults_s * NS_PER_S)
        self._full: dict[int, tuple[int, Decision]] = {}
        """Machines whose disk is full: until when."""

    def plan(self) -> None:
        world = self._world
        for kind, happen in (
            ("crash", self._crash_any),
            ("power_cut", self._power_cut),
            ("cut", self._cut),
            ("disk_full", self._fill_disk),
            ("partition", world.network.routes.split),
            ("one_way", world.network.routes.split),
            ("spike", world.network.routes.spike),
            ("slow", world.holdups.slow),
            ("pause", world.holdups.pause),
            ("clock_jump", self._jump),
            ("mass_leave", self._leave),
            ("mass_join", self._join),
        ):
            for at, decision in world.faults.moments(kind, self._end):
                world.agenda.at(at, happen, decision)
        world.agenda.at(self._end, self.end)

    def end(self) -> None:
        """No fault from now on. What is down and not gone for good is coming back by its own timer."""
        world = self._world
        world.faults.active = False
        self._full.clear()
        for machine in world.machines.all:
            machine.jump_ms = machine.drift_ppm = 0
        world.network.routes.end()
        world.holdups.end()

    @property
    def over(self) -> bool:
        machines = self._world.machines.all
        return not self._world.faults.active and all(machine.alive or machine.gone for machine in machines)

    # -- in the middle of a call's effects: the driver asks, as only it knows where the middle is

    def strike_call(self, machine: Machine) -> Decision | None:
        """How the machine whose call has records to keep ends in this call; None if it does not."""
        world = self._world
        if len(world.machines.alive) <= _ALIVE_MIN:
            return None
        until, full = self._full.get(machine.index, (0, None))
        if full is not None and world.agenda.now < until:
            return full
        return world.faults.draw("call", machine.index)

    def crash_unsynced(self, machine: Machine, decision: Decision) -> None:
        """Nothing of this call was done: the power went, or the disk took no more and the node has ended itself."""
        rng = decision.rng()
        self._happened(decision, machine)
        if decision.kind == "disk_full":
            until, _ = self._full.pop(machine.index)
            self._world.machines.crash(machine)
            wait = rng.randint(*_ROOM_AGAIN_MS) * NS_PER_MS
            self._world.agenda.at(until + wait, self._world.machines.start, machine)
        elif decision.kind == "torn_write":
            self.crash(machine, torn=rng.randint(1, len(machine.journal.unsynced)))
        else:
            self.crash(machine)

    def crash_midway(self, machine: Machine, decision: Decision) -> None:
        self._happened(decision, machine)
        self.crash(machine)

    def crash(self, machine: Machine, torn: int = 0) -> None:
        """One machine crashes; it comes back soon, late, without some of what it had kept, or never."""
        world = self._world
        world.machines.crash(machine, torn)
        aftermath = world.faults.draw("aftermath", machine.index)
        if aftermath is not None:
            self._damage(machine, aftermath)
        if not machine.gone:
            long_down = world.faults.strikes("long_down", machine.index, world.agenda.now)
            self._come_back(machine, _LONG_DOWN_MS if long_down else _DOWN_MS)

    def _damage(self, machine: Machine, decision: Decision) -> None:
        machines, syncs = self._world.machines, machine.journal.syncs
        match decision.kind:
            case "gone":
                machine.gone = machine.index >= self._world.options.bootstraps
                if not machine.gone:
                    return
            case "wipe":
                machines.wipe(machine)
            case "stale_incarnation" if syncs:
                machines.forget(machine)
            case "lost_write" if syncs:
                machines.lose(machine, decision.rng().randint(1, min(syncs, _SYNCS_LOST_MAX)))
            case _:
                return
        self._happened(decision, machine)

    # -- at any time

    def _crash_any(self, decision: Decision) -> None:
        alive = self._world.machines.alive
        if len(alive) > _ALIVE_MIN:
            machine = decision.rng().choice(alive)
            self._happened(decision, machine)
            self.crash(machine)

    def _power_cut(self, decision: Decision) -> None:
        """All machines at one instant; what is down already stays down as long as it would have."""
        alive = self._world.machines.alive
        if alive:
            self._happened(decision)
        for machine in alive:
            self._world.machines.crash(machine)
        for machine in alive:
            self._come_back(machine, _POWER_CUT_DOWN_MS)

    def _cut(self, decision: Decision) -> None:
        world, rng = self._world, decision.rng()
        machine: Machine | None = rng.choice(world.machines.alive or [None])
        links = [peer for peer, link in machine.links.items() if link.open] if machine is not None else []
        if machine is not None and links:
            world.network.cut(machine, rng.choice(links))
            self._happened(decision, machine)

    def _fill_disk(self, decision: Decision) -> None:
        rng, now = decision.rng(), self._world.agenda.now
        machine = rng.choice(self._world.machines.all)
        if machine.index not in self._full:
            self._full[machine.index] = (now + rng.randint(*_FULL_MS) * NS_PER_MS, decision)

    def _jump(self, decision: Decision) -> None:
        """One wall clock is set wrong, and after a while right again.

        Ahead only when all jobs have been accepted: the pointer to a job that a steward signs with a clock that is
        ahead is refused by all others until they are there, as it is not signed anew.
        """
        world, rng = self._world, decision.rng()
        right = [machine for machine in world.machines.alive if not machine.jump_ms]
        if right:
            machine = rng.choice(right)
            machine.jump_ms = rng.randint(-_JUMP_MS, _JUMP_MS if self._all_accepted() else 0)
            machine.clock_was_wrong = True
            self._happened(decision, machine)
            world.agenda.after(rng.randint(*_JUMPED_MS) * NS_PER_MS, self._set_right, machine)

    def _all_accepted(self) -> bool:
        return all(client.job is not None and client.job.accepted_at for client in self._world.workload.clients)

    def _set_right(self, machine: Machine) -> None:
        machine.jump_ms = 0

    def _leave(self, decision: Decision) -> None:
        """A third of the machines says goodbye, ends in good order, and comes back with all that it had."""
        world, rng = self._world, decision.rng()
        ready = [machine for machine in world.machines.alive if machine.inbox is None]
        count = min(-(-len(ready) // 3), len(world.machines.alive) - _ALIVE_MIN)
        if count < 1:
            return
        leaving = rng.sample(ready, count)
        self._happened(decision, *leaving)
        for machine in leaving:
            boot, away = machine.boot, rng.randint(*_AWAY_MS) * NS_PER_MS
            world.feed_if(machine, boot, LeaveAsked())
            world.agenda.after(_LEAVING_MS * NS_PER_MS, self._stop, machine, boot, away)

    def _stop(self, machine: Machine, boot: int, away: int) -> None:
        if machine.boot == boot and machine.alive:
            self._world.machines.stop(machine)
            self._world.agenda.after(away, self._world.machines.start, machine)

    def _join(self, decision: Decision) -> None:
        world, rng = self._world, decision.rng()
        room = 2 * world.options.peers - len(world.machines.all)
        if room < 1:
            return
        joining = [world.machines.add() for _ in range(rng.randint(1, max(1, min(room, world.options.peers // 4))))]
        self._happened(decision, *joining)
        for machine in joining:
            world.agenda.after(rng.randint(0, _JOINING_MS) * NS_PER_MS, world.machines.start, machine)

    def _come_back(self, machine: Machine, down_ms: tuple[int, int]) -> None:
        world = self._world
        world.agenda.after(machine.rng.randint(*down_ms) * NS_PER_MS, world.machines.start, machine)

    def _happened(self, decision: Decision, *machines: Machine) -> None:
        where = "peers " if len(machines) > 1 else "peer " if machines else "all peers"
        where += " ".join(str(machine.index) for machine in machines)
        self._world.faults.happened(decision, self._world.agenda.now, where)
