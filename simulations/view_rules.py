"""Rules about whom a peer knows: only by records that are in their time, and no longer than those are good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_SHUFFLES_WAITED = 2
"""Records are gone through with each shuffle, and the pause between two is at most 1.25 times what it is on average."""
_MARGIN_MS = 5_000
"""A clock that drifted may be set back by so much."""


class ViewRules:
    """Looks at what a peer knows now and then: what it should not know it would know for long."""

    def __init__(self, world: World) -> None:
        self._world = world
        limits, faults = world.options.limits, world.options.faults
        self._lifetime_max_ms = 2 * limits.capability_lifetime_ms
        self._skew_ms = limits.clock_skew_ms + _MARGIN_MS
        self._wait_ms = _SHUFFLES_WAITED * limits.shuffle_interval_ms + _MARGIN_MS
        self._is_prompt = not (faults.slow_per_s or faults.pause_per_s)
        """Whether no machine is late with anything."""

    def check(self, machine: Machine, *, at_the_end: bool = False) -> None:
        assert machine.peer is not None
        snapshot, now = machine.peer.snapshot(), self._world.agenda.now
        for record in snapshot.known:
            if record.not_after - record.issued_at > self._lifetime_max_ms:
                raise Violation("views", f"peer {machine.index} believes a record that is good for too long")
        if machine.clock_was_wrong:
            return
        wall = machine.wall(now)
        for record in snapshot.known:
            if record.issued_at > wall + self._skew_ms:
                raise Violation("views", f"peer {machine.index} believes a record of the future")
        if not (self._is_prompt or at_the_end) or now - machine.started_at < self._wait_ms * NS_PER_MS:
            return
        neighbours = set(snapshot.neighbours)
        for record in snapshot.known:
            if record.not_after < wall - self._wait_ms and record.peer not in neighbours:
                late_s = (wall - record.not_after) / 1000
                raise Violation("views", f"peer {machine.index} keeps a record that expired {late_s:.0f} s ago")
