"""Rules about what a restart must not undo: incarnations, and the receipts that a worker still owes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from protocol.effects import Send
from protocol.limits import HOLDERS_MAX
from protocol.messages import Decided, ReceiptsAck
from protocol.records import Receipt
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_RETRIES_WAITED = 5
"""A restarted worker must have sent what it owes after so many of its pauses between two deliveries."""
_REPORTS_WAITED = 2
"""One that takes itself for a job's steward, and is not, asks one holder after the other, one in at most so many of its
pauses between two reports."""

Disk = tuple[int, bytes]
"""A machine and its store: what was kept on another disk of the same machine is rightly forgotten."""


class IncarnationRules:
    """With one journal, each start of a peer has a higher incarnation than anybody has seen of it."""

    def __init__(self) -> None:
        self._highest: dict[Disk, int] = {}

    def started(self, machine: Machine) -> None:
        assert machine.peer is not None
        now, before = machine.peer.snapshot().incarnation, self._highest.get(_disk(machine), -1)
        if now <= before:
            raise Violation("incarnations", f"peer {machine.index} starts as {now}, it was {before} before its crash")
        self._highest[_disk(machine)] = now

    def stopping(self, machine: Machine) -> None:
        """What it came to in this boot counts too."""
        assert machine.peer is not None
        now, before = machine.peer.snapshot().incarnation, self._highest.get(_disk(machine), -1)
        if now < before:
            raise Violation("incarnations", f"peer {machine.index} went from incarnation {before} back to {now}")
        self._highest[_disk(machine)] = now


class _Owed:
    """The receipts of one disk that are neither acknowledged nor of a closed job, and which were sent in this boot."""

    __slots__ = ("sent", "unacked")

    def __init__(self) -> None:
        self.unacked: dict[bytes, tuple[str, bytes]] = {}
        """Digest to steward and job."""
        self.sent: set[bytes] = set()


class DeliveryRules:
    """A receipt once signed is delivered until it is acknowledged or its job is closed, over any restart."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owed: dict[Disk, _Owed] = {}

    def sent(self, machine: Machine, effect: Send) -> None:
        owed, message = self._of(machine), effect.message
        for signed in message.receipts:  # type: ignore[attr-defined]
            digest = self._world.reader.open(signed, Receipt).digest
            owed.unacked[digest] = (effect.to, message.job)  # type: ignore[attr-defined]
            owed.sent.add(digest)

    def acknowledged(self, machine: Machine, message: ReceiptsAck) -> None:
        owed = self._of(machine)
        for digest in message.receipts:
            owed.unacked.pop(digest, None)

    def closed(self, machine: Machine, message: Decided) -> None:
        if not self._world.checkers.records.is_end(message.job, message.body):
            return
        owed = self._of(machine)
        owed.unacked = {digest: of for digest, of in owed.unacked.items() if of[1] != message.job}

    def starting(self, machine: Machine) -> None:
        owed = self._of(machine)
        owed.sent.clear()
        if owed.unacked:
            wait = _RETRIES_WAITED * self._world.options.limits.receipt_retry_ms * NS_PER_MS
            self._world.agenda.after(wait, self._check, machine, machine.boot, tuple(owed.unacked))

    def _check(self, machine: Machine, boot: int, owed_then: tuple[bytes, ...], has_asked: bool = False) -> None:
        if not machine.alive or machine.boot != boot:
            return
        owed = self._of(machine)
        missing = [
            digest
            for digest in owed_then
            if digest in owed.unacked and digest not in owed.sent and self._is_due(machine, owed.unacked[digest][1])
        ]
        held = [digest for digest in missing if self._holds(machine, owed.unacked[digest][1])]
        if held and not has_asked:
            wait = _REPORTS_WAITED * HOLDERS_MAX * self._world.options.limits.progress_interval_ms * NS_PER_MS
            self._world.agenda.after(wait, self._check, machine, boot, tuple(held), True)
            missing = [digest for digest in missing if digest not in held]
        if missing:
            names = ", ".join(digest.hex()[:8] for digest in missing[:4])
            raise Violation("delivery", f"peer {machine.index} has forgotten receipts that it signed: {names}")

    def _is_due(self, machine: Machine, digest: bytes) -> bool:
        """Whether a worker still has to deliver what it did for a job: not to itself, as steward, nor after its end."""
        job = self._world.workload.jobs[digest]
        assert machine.peer is not None
        return self._world.checkers.records.ended(job) is None and digest not in machine.peer.stewarding

    def _holds(self, machine: Machine, digest: bytes) -> bool:
        """Whether a machine keeps the record of a job: only then can it have taken itself for the steward."""
        assert machine.peer is not None
        return machine.peer.record_of(digest) is not None

    def _of(self, machine: Machine) -> _Owed:
        return self._owed.setdefault(_disk(machine), _Owed())


def _disk(machine: Machine) -> Disk:
    return machine.index, machine.store
