"""A rule about losses: a steward that knows a worker to be gone does not wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.effects import Send
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_OPEN = ("offered", "running")


class LossRules:
    """Only about awards of the steward's present boot: one that takes a job over hears from workers that it does not
    know."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._given: dict[tuple[int, int], set[bytes]] = {}
        """By machine and boot: the awards that it has offered to others."""

    def offered(self, machine: Machine, effect: Send) -> None:
        award = effect.message.award  # type: ignore[attr-defined]
        self._given.setdefault((machine.index, machine.boot), set()).add(award.digest)

    def check(self, machine: Machine) -> None:
        """Now and then: a worker that is waited for in vain is waited for some seconds."""
        given = self._given.get((machine.index, machine.boot))
        assert machine.peer is not None
        if not given or not machine.peer.stewarding:
            return
        known = {record.peer for record in machine.peer.snapshot().known}
        for job, shown in self._world.checkers.jobs.shown_by(machine):
            for attempt in shown.tries:
                if attempt.outcome in _OPEN and attempt.award in given and attempt.worker not in known:
                    what = f"{job.name} {shown.task.role} {shown.task.index}"
                    raise Violation(
                        "losses", f"peer {machine.index} waits for {what} by a worker that it knows is gone"
                    )
