"""Rules about whom a peer knows: only by records that are in their time, and no longer than those are good."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from protocol.records import Capability
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_SHUFFLES_WAITED = 2
"""Records are gone through with each shuffle, and the pause between two is at most 1.25 times what it is on average."""
_Known = tuple[str, int, int]
"""A peer, and the version of its record."""
_HIDING = (
    *("replay", "reorder", "drop", "stall", "cut_per_s", "partition_per_s", "one_way_per_s", "spike_per_s"),
    *("slow_per_s", "pause_per_s"),
)
_MARGIN_MS = 5_000
"""A clock that drifted may be set back by so much."""


class ViewRules:
    """Looks at what a peer knows now and then: what it should not know it would know for long."""

    def __init__(self, world: World) -> None:
        self._world = world
        limits, faults = world.options.limits, world.options.faults
        self._lifetime_max_ms = 2 * limits.capability_lifetime_ms
        self._skew_ms = limits.clock_skew_ms + _MARGIN_MS
        self._wait_ms = _SHUFFLES_WAITED * limits.shuffle_interval_ms
        self._is_prompt = not (faults.slow_per_s or faults.pause_per_s)
        """Whether no machine is late with anything."""
        self._late: dict[tuple[int, int], dict[_Known, int]] = {}
        """By machine and boot: records that had expired at every look since then."""
        self._is_in_order = not any(getattr(faults, kind) for kind in _HIDING)
        """Whether what a peer says of itself comes as it was said, and nobody is taken for gone who lives. Else a late
        record may be all that is known."""
        self._newest: dict[tuple[int, int], dict[tuple[str, bytes], tuple[int, int]]] = {}
        """By machine and boot, by peer and store: the version that was known at the last look."""

    def check(self, machine: Machine, *, at_the_end: bool = False) -> None:
        assert machine.peer is not None
        snapshot, now = machine.peer.snapshot(), self._world.agenda.now
        for record in snapshot.known:
            if record.not_after - record.issued_at > self._lifetime_max_ms:
                raise Violation("views", f"peer {machine.index} believes a record that is good for too long")
        if self._is_in_order:
            self._check_newest(machine, snapshot.known)
        if machine.clock_was_wrong:
            return
        wall = machine.wall(now)
        for record in snapshot.known:
            if record.issued_at > wall + self._skew_ms:
                raise Violation("views", f"peer {machine.index} believes a record of the future")
        if self._is_prompt or at_the_end:
            neighbours = set(snapshot.neighbours)
            late = [one for one in snapshot.known if one.not_after < wall and one.peer not in neighbours]
            self._check_expired(machine, {(one.peer, one.incarnation, one.revision) for one in late})

    def _check_newest(self, machine: Machine, known: Iterable[Capability]) -> None:
        """No record is replaced by an older one, as long as its peer has the same store, and so its counter."""
        key = (machine.index, machine.boot)
        before = self._newest.get(key, {})
        self._newest[key] = {(one.peer, one.store): (one.incarnation, one.revision) for one in known}
        for (peer, store), version in self._newest[key].items():
            if version < before.get((peer, store), version):
                other = self._world.machines[peer].index  # type: ignore[index]
                raise Violation("views", f"peer {machine.index} has an older record of peer {other} than it had")

    def _check_expired(self, machine: Machine, late: set[_Known]) -> None:
        """What has expired may just have been a neighbour's: then it is gone at the next look."""
        key, now = (machine.index, machine.boot), self._world.agenda.now
        before = self._late.get(key, {})
        self._late[key] = {one: before.get(one, now) for one in late}
        for (peer, _, _), since in self._late[key].items():
            if now - since > self._wait_ms * NS_PER_MS:
                other = self._world.machines[peer].index  # type: ignore[index]
                raise Violation("views", f"peer {machine.index} goes on knowing peer {other} by an expired record")
