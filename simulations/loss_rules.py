"""Rules about losses: a steward does not wait for a worker that it knows to be gone, nor after the end of a lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from protocol.effects import Send
from protocol.records import Award
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_OPEN = ("offered", "running")
_REPORTS_WAITED = 3
"""Leases are gone through with each report, and the pause between two is at most 1.25 times what it is on average."""


class LossRules:
    """Only about awards of the steward's present boot: one that takes a job over hears from workers that it does not
    know. One that takes it up again asks each worker anew, gone or not: another steward may have heard of it since."""

    def __init__(self, world: World) -> None:
        self._world = world
        faults, limits = world.options.faults, world.options.limits
        self._grace = _REPORTS_WAITED * limits.progress_interval_ms * NS_PER_MS
        self._answered_ns = limits.progress_timeout_ms * NS_PER_MS + self._grace
        self._is_prompt = not (faults.slow_per_s or faults.pause_per_s)
        """Whether no machine is late with anything."""
        self._given: dict[tuple[int, int], dict[bytes, int]] = {}
        """By machine and boot: the awards that it has offered to others, and when each lease ends."""
        self._asked: dict[tuple[int, int], dict[bytes, int]] = {}
        """Of these, those whose workers it has asked whether they are still at it, and when."""

    def offered(self, machine: Machine, effect: Send) -> None:
        award = self._world.reader.open(effect.message.award, Award)  # type: ignore[attr-defined]
        ends = self._world.agenda.now + award.record.lease_ms * NS_PER_MS
        self._given.setdefault((machine.index, machine.boot), {})[award.digest] = ends

    def asked(self, machine: Machine, effect: Send) -> None:
        """A steward that takes a job up asks its workers."""
        asked = self._asked.setdefault((machine.index, machine.boot), {})
        asked.update(dict.fromkeys(effect.message.awards, self._world.agenda.now))  # type: ignore[attr-defined]

    def check(self, machine: Machine) -> None:
        """Now and then: a worker that is waited for in vain is waited for some seconds."""
        given = self._given.get((machine.index, machine.boot))
        assert machine.peer is not None
        if not given or not machine.peer.stewarding:
            return
        late = self._world.agenda.now - self._grace if self._is_prompt else 0
        for job, shown in self._world.checkers.jobs.shown_by(machine):
            for attempt in shown.tries:
                if attempt.outcome not in _OPEN or attempt.award not in given:
                    continue
                what = f"{job.name} {shown.task.role} {shown.task.index}"
                if given[attempt.award] < late:
                    raise Violation("losses", f"peer {machine.index} waits for {what} after the end of its lease")
                if machine.peer.believes_gone(attempt.worker) and not self._may_answer(machine, attempt.award):
                    raise Violation(
                        "losses", f"peer {machine.index} waits for {what} by a worker that it knows is gone"
                    )

    def _may_answer(self, machine: Machine, award: bytes) -> bool:
        """Whether it is too early to take the silence of a worker that was asked for an answer."""
        asked = self._asked.get((machine.index, machine.boot), {}).get(award)
        return asked is not None and not (self._is_prompt and asked + self._answered_ns < self._world.agenda.now)
