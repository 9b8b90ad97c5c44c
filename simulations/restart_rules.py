"""Rules about what a restart must not undo: incarnations, and the receipts that a worker still owes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from protocol.effects import Send
from protocol.events import MessageReceived
from protocol.limits import HOLDERS_MAX
from protocol.messages import Decided, ReceiptsAck, Shuffle
from protocol.records import Capability, Receipt
from protocol.signing import Signed
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
    """With one journal, each start of a peer has a higher incarnation than anybody has seen of it.

    One that has lost its journal goes past what it hears of itself, or nobody would believe it to be newer.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._highest: dict[Disk, int] = {}
        self._stores: dict[int, bytes] = {}
        self._lost: set[int] = set()
        """Machines that have another disk than they once had."""

    def started(self, machine: Machine) -> None:
        if self._stores.setdefault(machine.index, machine.store) != machine.store:
            self._lost.add(machine.index)
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

    def has_lost(self, machine: Machine) -> bool:
        """Whether a machine has come up with another disk than it once had."""
        return machine.index in self._lost

    def told(self, machine: Machine, event: MessageReceived) -> None:
        """It has just been told of others, and of itself perhaps."""
        if machine.index not in self._lost:
            return
        assert machine.peer is not None
        message, own = event.message, machine.peer_id
        records = [self._world.reader.open(signed, Capability).record for signed in message.records]  # type: ignore[attr-defined]
        seen = [(one.incarnation, one.revision) for one in records if one.peer == own]
        if not seen or machine.peer.is_banned(event.sender):
            return
        if isinstance(message, Shuffle) and not self._is_timely(machine, message.origin):
            return  # not listened to
        mine = machine.peer.snapshot().capability
        if (mine.incarnation, mine.revision) < max(seen):
            raise Violation(
                "incarnations", f"peer {machine.index} hears of {max(seen)} of itself, and does not pass it"
            )

    def _is_timely(self, machine: Machine, origin: Signed) -> bool:
        """Whether this peer's clock has nothing against who has begun a shuffle."""
        record, limits = self._world.reader.open(origin, Capability).record, self._world.options.limits
        sender = self._world.machines[record.peer]
        late_ms = machine.wall(self._world.agenda.now) - record.not_after
        return not (machine.clock_was_wrong or sender.clock_was_wrong) and late_ms * 2 < limits.clock_skew_ms


class _Owed:
    """The receipts of one disk that are neither acknowledged nor of a closed job, and which were sent in this boot."""

    __slots__ = ("again", "sent", "unacked")

    def __init__(self) -> None:
        self.again: set[bytes] = set()
        """Sent more than once in this boot."""
        self.unacked: dict[bytes, tuple[str, bytes]] = {}
        """Digest to steward and job."""
        self.sent: set[bytes] = set()


class DeliveryRules:
    """A receipt once signed is delivered until it is acknowledged or its job is closed, over any restart."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owed: dict[Disk, _Owed] = {}
        faults = world.options.faults
        self._is_prompt = not (faults.slow_per_s or faults.pause_per_s)
        """Whether no machine is late with anything."""
        self._wait = _RETRIES_WAITED * world.options.limits.receipt_retry_ms * NS_PER_MS

    def sent(self, machine: Machine, effect: Send) -> None:
        owed, message = self._of(machine), effect.message
        for signed in message.receipts:  # type: ignore[attr-defined]
            digest = self._world.reader.open(signed, Receipt).digest
            if digest in owed.sent:
                owed.again.add(digest)
            elif self._is_prompt:
                self._world.agenda.after(self._wait, self._check_again, machine, machine.boot, digest)
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
        owed.again.clear()
        if owed.unacked:
            self._world.agenda.after(self._wait, self._check, machine, machine.boot, tuple(owed.unacked))

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

    def _check_again(self, machine: Machine, boot: int, digest: bytes) -> None:
        """Some time after a receipt was sent for the first time in a boot."""
        if not machine.alive or machine.boot != boot:
            return
        owed = self._of(machine)
        if digest not in owed.unacked or digest in owed.again:
            return
        job = owed.unacked[digest][1]
        if self._is_due(machine, job) and not self._holds(machine, job):
            raise Violation("delivery", f"peer {machine.index} sends a receipt once, {digest.hex()[:8]}, and no more")

    def _is_due(self, machine: Machine, digest: bytes) -> bool:
        """Whether a worker still has to deliver what it did for a job.

        Not to itself, as steward, nor after its end, nor when too few holders are left for any of them to be steward.
        """
        job, records = self._world.workload.jobs[digest], self._world.checkers.records
        assert machine.peer is not None
        return records.ended(job) is None and records.survives(job) and digest not in machine.peer.stewarding

    def _holds(self, machine: Machine, digest: bytes) -> bool:
        """Whether a machine keeps the record of a job: only then can it have taken itself for the steward."""
        assert machine.peer is not None
        return machine.peer.record_of(digest) is not None

    def _of(self, machine: Machine) -> _Owed:
        return self._owed.setdefault(_disk(machine), _Owed())


def _disk(machine: Machine) -> Disk:
    return machine.index, machine.store
