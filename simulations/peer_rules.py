"""Rules about any peer: who speaks, in whose name, how often it wakes, how much it remembers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from protocol.effects import Notice, Send
from protocol.events import Event, MessageReceived, WakeupReached
from protocol.identity import PeerId
from protocol.limits import Limits
from protocol.records import Award, Capability, Receipt
from protocol.signing import Signed
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_WAKEUPS_AT_ONCE_MAX = 100


_TIMES = re.compile("out of its time|expired .* ago|dated .* in the future")
"""What is said of a record by who has another time."""


class SenderRules:
    """Only a live peer sends, never to itself, and it signs in nobody else's name."""

    def __init__(self, world: World) -> None:
        self._world = world

    def sent(self, machine: Machine, effect: Send) -> None:
        if not machine.alive:
            raise Violation("senders", f"peer {machine.index} sends a {_kind(effect)} after its crash")
        if effect.to == machine.peer_id:
            raise Violation("senders", f"peer {machine.index} sends a {_kind(effect)} to itself")

    def noticed(self, machine: Machine, event: Event, effect: Notice) -> None:
        """All peers here are of one version: none ever sends what another does not accept, unless it lies."""
        if not effect.text.startswith(("not understood", "ignored")):
            return
        if not (self._lies(effect.peer) or (_TIMES.search(effect.text) and self._clocks_differ(machine, event))):
            raise Violation("senders", f"peer {machine.index}, about an honest peer: {effect.text}")

    def _lies(self, peer: PeerId | None) -> bool:
        machines = self._world.machines
        return peer is not None and peer in machines and machines[peer].liar is not None

    def _clocks_differ(self, machine: Machine, event: Event) -> bool:
        """Whether the judge, or somebody who signed what it has got, once had a wrong clock: not who passes it on."""
        if machine.clock_was_wrong:
            return True
        machines = self._world.machines
        signers = (self._world.reader.open_any(signed).record.signer for signed in _signed_in(event))
        return any(peer in machines and machines[peer].clock_was_wrong for peer in signers)

    def offer(self, machine: Machine, effect: Send) -> None:
        message = effect.message
        award = self._world.reader.open(message.award, Award).record  # type: ignore[attr-defined]
        if award.steward != machine.peer_id or award.worker != effect.to:
            raise Violation(
                "senders", f"peer {machine.index} offers an award that is not its own, or not the receiver's"
            )
        if award.job != message.spec.digest:  # type: ignore[attr-defined]
            raise Violation("senders", f"peer {machine.index} offers an award with another job's spec")

    def receipts(self, machine: Machine, effect: Send) -> None:
        message = effect.message
        for signed in message.receipts:  # type: ignore[attr-defined]
            receipt = self._world.reader.open(signed, Receipt).record
            if receipt.worker != machine.peer_id or receipt.job != message.job:  # type: ignore[attr-defined]
                raise Violation("senders", f"peer {machine.index} delivers a receipt that is not its own")

    def bid(self, machine: Machine, effect: Send) -> None:
        signed = effect.message.capability  # type: ignore[attr-defined]
        if self._world.reader.open(signed, Capability).record.peer != machine.peer_id:
            raise Violation("senders", f"peer {machine.index} bids with another peer's capability record")


def _kind(effect: Send) -> str:
    return type(effect.message).__name__


def _signed_in(event: Event) -> Iterator[Signed]:
    """The signed records in a message."""
    if isinstance(event, MessageReceived):
        for value in msgspec.structs.astuple(event.message):
            if isinstance(value, Signed):
                yield value
            elif isinstance(value, tuple):
                yield from (item for item in value if isinstance(item, Signed))


class WakeupRules:
    """A peer that is woken does not ask to be woken again at once, over and over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last: dict[int, tuple[int, int]] = {}

    def woken(self, machine: Machine, event: WakeupReached) -> None:
        now = self._world.agenda.now
        at, count = self._last.get(machine.index, (now, 0))
        count = count + 1 if at == now else 1
        self._last[machine.index] = (now, count)
        if count > _WAKEUPS_AT_ONCE_MAX:
            raise Violation("wakeups", f"peer {machine.index} wakes {count} times without time passing")


class TableRules:
    """Every table of a peer stays within its bound."""

    def __init__(self, world: World) -> None:
        self._bounds = bounds_of(world.options.limits)
        self._neighbours_max = world.options.limits.active_view_max

    def check(self, machine: Machine) -> None:
        assert machine.peer is not None
        snapshot = machine.peer.snapshot()
        if len(snapshot.neighbours) > self._neighbours_max:
            raise Violation("tables", f"peer {machine.index} has {len(snapshot.neighbours)} neighbours")
        for table, size in snapshot.tables.items():
            if size > self._bounds[table]:
                raise Violation("tables", f"peer {machine.index} keeps {size} {table}, over {self._bounds[table]}")


def bounds_of(limits: Limits) -> dict[str, int]:
    """How large each table that a snapshot shows may become."""
    return {
        "known": limits.active_view_max + limits.passive_view_max + limits.partners_max,
        "departed": limits.departed_max,
        "seen": limits.seen_max,
        "receipts": limits.receipts_kept_max,
        "pointers": limits.pointers_max,
        "searches": limits.lookups_max,
        "questions": limits.lookups_max,
        "submissions": limits.running_jobs_max,
        "holding": limits.lookups_max,
        "jobs": limits.running_jobs_max,
        "records": limits.records_max + limits.jobs_max,
        "tombstones": limits.tombstones_max,
        "ended_bytes": 2 * limits.finished_bytes_max,
        "employers": limits.records_max,
        "garbage": limits.departed_max,
    }
