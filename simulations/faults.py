"""What goes wrong in a world: how often, and how often it did.

A fault that is switched on but never happens is a test that tests nothing, so each kind is counted and a run in which
an enabled kind stayed at zero fails.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec


class FaultRates(msgspec.Struct, frozen=True, kw_only=True):
    """How likely each kind of fault is; 0 switches it off. Shares are per opportunity, the rest as stated."""

    drop: float = 0.0
    """Share of control messages that an outbox drops."""
    duplicate: float = 0.0
    """Share of control messages that arrive twice."""
    stall: float = 0.0
    """Share of control messages that hold up their connection for up to two seconds."""
    cut_per_s: float = 0.0
    """Connections cut in the whole world, per second."""
    crash_per_s: float = 0.0
    """Machines that crash in the whole world, per second."""
    crash_unsynced: float = 0.0
    """Share of calls with records after which the machine crashes before any record is synced."""
    crash_midway: float = 0.0
    """Share of calls with records after which it crashes with the records synced and the rest partly carried out."""
    power_cut_per_s: float = 0.0
    """Crashes of all machines at one instant, per second; they are back within seconds."""
    gone: float = 0.0
    """Share of a single machine's crashes after which it never comes back."""
    wipe: float = 0.0
    """Share of a single machine's crashes that lose the disk: blobs, journal, store id. The key is kept."""
    long_down: float = 0.0
    """Share of a single machine's crashes after which it stays down for minutes."""
    run_failure: float = 0.0
    """Share of runs that fail by the task's own fault."""
    machine_failure: float = 0.0
    """Share of runs that fail by the machine's fault."""
    straggler: float = 0.0
    """Share of runs that take ten times as long."""
    fetch_failure: float = 0.0
    """Share of blob transfers that fail."""
    skew: float = 0.0
    """Share of machines whose wall clock is off by up to ten seconds."""


class Faults:
    """Decides when a fault happens, and counts it."""

    def __init__(self, rates: FaultRates, rng: Random) -> None:
        self.rates = rates
        self.counts: Counter[str] = Counter()
        self.active = True
        self._shares: dict[str, float] = {
            name.removesuffix("_per_s"): value for name, value in msgspec.structs.asdict(rates).items()
        }
        self._rng = rng

    def strikes(self, kind: str) -> bool:
        """Whether a fault of ``kind`` happens at this opportunity; if so it is counted."""
        share = self._shares[kind]
        if not share or not self.active or self._rng.random() >= share:
            return False
        self.counts[kind] += 1
        return True

    def happened(self, kind: str) -> None:
        """Count a fault that was planned by time rather than by share."""
        assert kind in self._shares
        self.counts[kind] += 1

    def enabled(self) -> tuple[str, ...]:
        return tuple(kind for kind, share in self._shares.items() if share)

    def never_happened(self) -> tuple[str, ...]:
        """Enabled kinds whose counter is still zero."""
        return tuple(kind for kind in self.enabled() if not self.counts[kind])
