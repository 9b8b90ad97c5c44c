"""Rules against doing again what has been done: what counts is not given out again while its output is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.effects import Send, StartRun
from protocol.lease import tasks_in
from protocol.records import Award
from protocol.wire import Task
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World


class RepeatRules:
    """A steward gives out a task that counts only if it has lost the output: its own disk has no copy."""

    def __init__(self, world: World) -> None:
        self._world = world

    def offered(self, machine: Machine, effect: Send) -> None:
        award = self._world.reader.open(effect.message.award, Award).record  # type: ignore[attr-defined]
        for task in tasks_in(award):
            self._check(machine, award.job, task)

    def asked(self, machine: Machine, effect: StartRun) -> None:
        """What a steward gives to itself never crosses its border: its runs are all that is seen of it."""
        self._check(machine, effect.job, effect.task)

    def _check(self, machine: Machine, digest: bytes, task: Task) -> None:
        job = self._world.workload.jobs.get(digest)
        if job is None or job.spec.record.steward != machine.peer_id:
            return
        output = job.pins.get(task)
        if output is not None and machine.disk.issuperset(self._world.library.with_links((output,))):
            raise Violation("repeats", f"{job.name} {task.role} {task.index} is done, and is given out again")
