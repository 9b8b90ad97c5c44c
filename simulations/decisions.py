"""When faults strike: each time a numbered decision, so that a run can be had again with some of them only.

A decision is known by its kind, by the machine it is about, and by its number among that machine's opportunities for
it. All that is random about a fault comes from a source of its own, seeded by these three. So taking one decision
away leaves the others what they were, as far as the world still gives them their opportunity.

A fault that is switched on but never happens is a test that tests nothing, so each kind is counted and a run in which
an enabled kind stayed at zero fails.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from random import Random
from typing import Literal, NamedTuple

import msgspec

from protocol.clock import NS_PER_S
from simulations.faults import FaultRates, kind_of

Key = tuple[str, int, int]
"""Kind, machine (``NOBODY`` for what befalls the world), number."""
NOBODY = -1

Group = Literal["message", "call", "aftermath", "run", "lie", "lie_work"]

_GROUPS: dict[Group, tuple[str, ...]] = {
    "message": ("drop", "duplicate", "stall", "reorder", "replay"),
    "call": ("crash_unsynced", "torn_write", "crash_midway"),
    "aftermath": ("gone", "wipe", "stale_incarnation", "lost_write"),
    "run": ("run_failure", "machine_failure", "straggler"),
    "lie": ("lie_record", "lie_garbage", "lie_stolen", "lie_ballot"),
    "lie_work": ("lie_forged", "lie_altered"),
}
"""Kinds of which at most one strikes at one opportunity: one draw decides for all of them."""


class Decision:
    """One fault that was drawn. It counts when it takes effect."""

    __slots__ = ("_seed", "key")

    def __init__(self, seed: int, key: Key) -> None:
        self.key = key
        self._seed = seed

    @property
    def kind(self) -> str:
        return self.key[0]

    def rng(self) -> Random:
        """A new source of all that is random about this fault."""
        kind, machine, number = self.key
        return Random(f"{self._seed}/{kind}/{machine}/{number}")


class Fired(NamedTuple):
    """A decision that took effect."""

    at: int
    key: Key
    where: str


class _Chances:
    """Kinds that share one draw, at each opportunity of each machine."""

    __slots__ = ("_only", "_rng", "_shares", "_total", "ahead")

    def __init__(self, shares: dict[str, float], rng: Random, only: Collection[Key] | None) -> None:
        self._shares = shares
        self._total = min(1.0, sum(shares.values()))
        self._rng = rng
        self.ahead: dict[int, list[int]] = {}
        """By machine: opportunities so far, and the number of the next one that strikes."""
        self._only: dict[int, dict[int, str]] | None = None
        if only is not None:
            self._only = {}
            for kind, machine, number in sorted(only):
                if kind in shares:
                    self._only.setdefault(machine, {})[number] = kind

    def strike(self, machine: int) -> tuple[str, int] | None:
        """The kind that strikes at this opportunity and its number, if one does."""
        ahead = self.ahead.get(machine)
        if ahead is None:
            ahead = self.ahead[machine] = [0, self._following(machine, 0)]
        number = ahead[0]
        ahead[0] = number + 1
        if number != ahead[1]:
            return None
        ahead[1] = self._following(machine, number + 1)
        return self._kind(machine, number), number

    def _following(self, machine: int, start: int) -> int:
        """The first number from ``start`` on that strikes; -1 for none."""
        if self._only is not None:
            return min((number for number in self._only.get(machine, ()) if number >= start), default=-1)
        if self._total >= 1.0:
            return start
        return start + int(math.log(1.0 - self._rng.random()) / math.log(1.0 - self._total))

    def _kind(self, machine: int, number: int) -> str:
        if self._only is not None:
            return self._only[machine][number]
        return self._rng.choices(list(self._shares), list(self._shares.values()))[0]


class Decisions:
    """Draws faults, and counts those that took effect."""

    def __init__(self, rates: FaultRates, seed: int, only: Collection[Key] | None = None) -> None:
        """``only``: no others than these strike, whatever the rates."""
        self.counts: Counter[str] = Counter()
        self.active = True
        self.fired: list[Fired] = []
        self.drawn: list[Key] = []
        """All, also those that came to nothing: with just these the run is the same again."""
        self._seed = seed
        self._only = only
        self._shares = {kind_of(name): float(value) for name, value in msgspec.structs.asdict(rates).items()}
        self._chances: dict[str, _Chances | None] = {}
        grouped = {kind: group for group, kinds in _GROUPS.items() for kind in kinds}
        for kind in self._shares:
            name = grouped.get(kind, kind)
            if name not in self._chances:
                kinds = _GROUPS.get(name, (kind,))  # type: ignore[call-overload]
                shares = {one: self._shares[one] for one in kinds if self._shares[one]}
                rng = Random(f"{seed}/{name}")
                self._chances[name] = _Chances(shares, rng, only) if shares else None

    def draw(self, name: str, machine: int) -> Decision | None:
        """The fault that strikes ``machine`` at this opportunity, for a kind or a group of kinds; mostly none."""
        chances = self._chances[name]
        if chances is None or not self.active:
            return None
        ahead = chances.ahead.get(machine)
        if ahead is not None and ahead[0] != ahead[1]:  # by far the most frequent case
            ahead[0] += 1
            return None
        struck = chances.strike(machine)
        if struck is None:
            return None
        kind, number = struck
        self.drawn.append((kind, machine, number))
        return Decision(self._seed, (kind, machine, number))

    def strikes(self, kind: str, machine: int, now: int) -> bool:
        """As ``draw`` for one kind, that takes effect at once and has nothing more to decide."""
        decision = self.draw(kind, machine)
        if decision is not None:
            self.happened(decision, now, f"peer {machine}")
        return decision is not None

    def moments(self, kind: str, end: int) -> list[tuple[int, Decision]]:
        """When ``kind`` befalls the world until ``end``: a Poisson process, its rate per second."""
        rate, rng = self._shares[kind], Random(f"{self._seed}/{kind}")
        moments: list[tuple[int, Decision]] = []
        at, number = 0, 0
        while rate:
            at += int(rng.expovariate(rate) * NS_PER_S) + 1
            if at >= end:
                break
            key = (kind, NOBODY, number)
            if self._only is None or key in self._only:
                moments.append((at, Decision(self._seed, key)))
                self.drawn.append(key)
            number += 1
        return moments

    def happened(self, decision: Decision, now: int, where: str) -> None:
        """A fault took effect."""
        self.counts[decision.kind] += 1
        self.fired.append(Fired(now, decision.key, where))

    def enabled(self) -> tuple[str, ...]:
        return tuple(kind for kind, share in self._shares.items() if share)

    def never_happened(self) -> tuple[str, ...]:
        """Enabled kinds whose counter is still zero."""
        return tuple(kind for kind in self.enabled() if not self.counts[kind])
