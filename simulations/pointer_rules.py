"""Rules about pointers to jobs: they outlast a restart, and lie where they are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from protocol import codec
from protocol.durable import ROW_BYTES_MAX, Table
from protocol.identity import PeerId
from protocol.pointers import keys_of
from protocol.records import JobPointer
from protocol.rendezvous import nearest
from protocol.signing import Signed
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World


class Missing(NamedTuple):
    """A pointer that somebody has placed, and where it should be and is not."""

    placer: int
    keeper: int
    job: bytes


class PointerRules:
    """Reads journals, where every pointer is that a peer keeps or has placed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def started(self, machine: Machine) -> None:
        """Those that were kept are kept again, but for those whose time is over."""
        assert machine.peer is not None
        if machine.clock_was_wrong:
            return
        wall = machine.wall(self._world.agenda.now)
        timely = [one for one in self._in(machine, Table.POINTER) if one.not_after >= wall >= one.issued_at]
        kept = machine.peer.snapshot().tables.get("pointers", len(timely))
        if kept < len(timely):
            raise Violation(
                "durability", f"peer {machine.index} has forgotten pointers: {kept} of {len(timely)} are left"
            )

    def missing(self) -> set[Missing]:
        """What is not with those who are responsible, as far as whoever placed it knows them.

        Of all that live: who is not known for a moment, as its clock runs behind, makes nobody else responsible. In
        a mesh larger than a view, where nobody knows all, pointers are placed again ever later: nothing is promised.
        """
        machines, limits = self._world.machines, self._world.options.limits
        if len(machines.alive) > limits.passive_view_max:
            return set()
        kept = {machine.peer_id: self._newest(machine) for machine in machines.alive}
        found: set[Missing] = set()
        for machine in machines.alive:
            assert machine.peer is not None
            known = {record.peer for record in machine.peer.snapshot().known}
            others = [peer for peer in kept if peer != machine.peer_id]
            for placed in self._in(machine, Table.PLACEMENT):
                for key in keys_of(placed):
                    for peer in nearest(key, others, limits.pointer_copies):
                        if peer not in known or self._refuses(machine, peer):
                            continue
                        if kept[peer].get((placed.job, placed.steward), -1) < placed.issued_at:
                            found.add(Missing(machine.index, machines[peer].index, placed.job))
        return found

    def check(self, before: set[Missing]) -> None:
        """Nothing is missing that was missing ``before``, when there has been time to place it again since."""
        if still := sorted(before & self.missing()):
            placer, keeper, job = still[0]
            what = f"the pointer of peer {placer} to {job.hex()[:8]}, one of {len(still)}"
            raise Violation("pointers", f"peer {keeper} does not keep {what}")

    def _refuses(self, machine: Machine, peer: PeerId) -> bool:
        """Whether a peer may take nothing from a machine: one of them is dead, or had a wrong clock."""
        other = self._world.machines[peer]
        return not other.alive or other.clock_was_wrong or machine.clock_was_wrong

    def _newest(self, machine: Machine) -> dict[tuple[bytes, PeerId], int]:
        """By job and steward: when the pointer was signed that a machine keeps."""
        return {(one.job, one.steward): one.issued_at for one in self._in(machine, Table.POINTER)}

    def _in(self, machine: Machine, table: Table) -> list[JobPointer]:
        rows = machine.journal.rows()
        signed = [codec.decode_as(value, Signed, max_bytes=ROW_BYTES_MAX) for name, _, value in rows if name == table]
        return [self._world.reader.open(one, JobPointer).record for one in signed]
