"""A rule about clocks: who knows that its own is wrong takes nothing on that is judged by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.durable import Table
from protocol.effects import Proposal, Record, Reply, Send
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World


class ClockRules:
    """Looks only at machines whose clock was ever wrong by more than a mesh puts up with."""

    def __init__(self, world: World) -> None:
        self._tolerance_ms = world.options.limits.clock_skew_ms

    def bid(self, machine: Machine, _: Send) -> None:
        if machine.clock_was_wrong and self._knows(machine):
            raise Violation("clocks", f"peer {machine.index} bids, and knows that its clock is wrong")

    def recorded(self, machine: Machine, effect: Record) -> None:
        if machine.clock_was_wrong and effect.table == Table.JOB and effect.value is not None and self._knows(machine):
            raise Violation("clocks", f"peer {machine.index} becomes a job's holder, and knows that its clock is wrong")

    def replied(self, machine: Machine, effect: Reply) -> None:
        """Whoever asks it to look after a job is told."""
        if not machine.clock_was_wrong or not isinstance(effect.answer, Proposal) or not self._knows(machine):
            return
        if not any("clock" in note for note in effect.answer.notes):
            raise Violation("clocks", f"peer {machine.index} offers to take a job, and hides that its clock is wrong")

    def _knows(self, machine: Machine) -> bool:
        assert machine.peer is not None
        offset = machine.peer.snapshot().clock_offset_ms
        return offset is not None and abs(offset) > self._tolerance_ms
