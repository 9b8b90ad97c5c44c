"""The machines of a world: each one runs a peer, has a disk, slots, a clock, a place, and may crash."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S, Instant, WallMs
from protocol.events import ClockObserved, Event, Started
from protocol.identity import PeerId, Signer
from protocol.peer import Peer
from protocol.profile import Profile
from simulations.dishonest import Liar
from simulations.journal import Journal
from simulations.network import Link

if TYPE_CHECKING:
    from simulations.runs import Run
    from simulations.world import World

MESH = "simulated"
EPOCH_MS = 1_800_000_000_000
"""Wall-clock time at which every world begins."""
_FIRST_INCARNATION = 1
"""Of a peer without a journal; with one, ``restore`` knows better."""
_MEMORY_BYTES = 8 << 30
RARE_MEMORY_BYTES = 512 << 30
_RARE_SLOTS = 4
_SKEW_MS = 10_000
_DRIFT_PPM = 50_000

Waiting = tuple[Event, int, bool]
"""An event for a machine that does not handle it yet: see ``World.feed``."""


class Machine:
    """A node: what survives its crashes, and what does not."""

    __slots__ = (
        "addresses",
        "alive",
        "bandwidth",
        "boot",
        "clock_was_wrong",
        "disk",
        "drift_ppm",
        "fetches",
        "gone",
        "inbox",
        "index",
        "journal",
        "jump_ms",
        "kept",
        "liar",
        "links",
        "memory_bytes",
        "peer",
        "peer_id",
        "rng",
        "runs",
        "signer",
        "skew_ms",
        "slots",
        "slowness",
        "started_at",
        "store",
        "told_ahead_ms",
        "wake_at",
        "x",
        "y",
    )

    def __init__(self, index: int, signer: Signer, rng: Random, *, slots_max: int, bandwidth: tuple[int, int]) -> None:
        self.index = index
        self.signer = signer
        self.peer_id: PeerId = signer.peer_id
        self.rng = rng
        """What happens to one machine does not change the luck of another."""
        self.x, self.y = rng.random(), rng.random()
        self.slowness = rng.lognormvariate(0.0, 0.4)
        self.slots = rng.randint(1, slots_max)
        self.memory_bytes = _MEMORY_BYTES
        self.bandwidth = rng.randint(*bandwidth)
        self.skew_ms = 0
        self.drift_ppm = 0
        self.jump_ms = 0
        self.clock_was_wrong = False
        """By more than a mesh puts up with; what it signed then may still be about."""
        self.liar: Liar | None = None
        # on disk
        self.store = rng.randbytes(16)
        self.disk: set[str] = set()
        self.journal = Journal()
        # of one boot
        self.peer: Peer | None = None
        self.alive = False
        self.gone = False
        self.boot = 0
        self.started_at = 0
        self.inbox: deque[Waiting] | None = None
        """What waits for a machine that is slow or stands still; None while it handles all at once."""
        self.told_ahead_ms: int | None = None
        """How far its wall clock was ahead of the monotonic one when the peer was last told; None if that is open."""
        self.wake_at: int | None = None
        self.links: dict[PeerId, Link] = {}
        self.kept: set[PeerId] = set()
        self.addresses: set[PeerId] = set()
        self.runs: dict[int, Run] = {}
        self.fetches: set[int] = set()

    def wall(self, now: int) -> WallMs:
        passed_ms = now // NS_PER_MS
        return WallMs(EPOCH_MS + passed_ms + passed_ms * self.drift_ppm // 1_000_000 + self.skew_ms + self.jump_ms)


def _place_in_range(index: int, rng: Random) -> float:
    """0 is the fastest and 1 the slowest machine; there is one of each."""
    return float(index) if index < 2 else rng.random()


class Machines:
    """All machines, by peer id; starts, crashes and restarts them."""

    def __init__(self, world: World, bootstraps: int) -> None:
        self._world = world
        self._bootstraps = bootstraps
        options = world.options
        others = range(min(bootstraps, options.peers - 1), options.peers)
        self._rare = frozenset(Random(f"rare/{options.seed}").sample(others, options.rare_machines))
        self.all: list[Machine] = []
        self.alive: list[Machine] = []
        """In the order of their numbers; replaced, never changed, when a machine starts or goes down."""
        self._by_id: dict[PeerId, Machine] = {}
        self.crashes = 0

    def __getitem__(self, peer: PeerId) -> Machine:
        return self._by_id[peer]

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._by_id

    def add(self) -> Machine:
        world, index = self._world, len(self.all)
        options = world.options
        machine = Machine(
            index,
            world.signer(f"machine/{index}"),
            Random(f"machine/{options.seed}/{index}"),
            slots_max=options.slots_max,
            bandwidth=options.bandwidth,
        )
        if options.speed_range:
            machine.slowness = options.speed_range ** _place_in_range(index, machine.rng)
        if index in self._rare:
            machine.memory_bytes, machine.slots = RARE_MEMORY_BYTES, _RARE_SLOTS
        for kind in ("skew", "drift", "liar"):
            fault = world.faults.draw(kind, index)
            if fault is None or (kind == "liar" and index < self._bootstraps):
                continue
            world.faults.happened(fault, world.agenda.now, f"peer {index}")
            if kind == "skew":
                machine.skew_ms = fault.rng().randint(-_SKEW_MS, _SKEW_MS)
            elif kind == "drift":
                machine.drift_ppm = fault.rng().randint(-_DRIFT_PPM, _DRIFT_PPM)
            else:
                machine.liar = Liar(world, machine)
        self.all.append(machine)
        self._by_id[machine.peer_id] = machine
        return machine

    def start(self, machine: Machine) -> None:
        """A new peer, with what the journal has kept of the one before."""
        world, now = self._world, self._world.agenda.now
        assert not machine.alive
        bootstrap = tuple(m.peer_id for m in self.all[: self._bootstraps] if m is not machine)
        machine.boot += 1
        machine.alive = True
        machine.started_at = now
        self._count_alive()
        machine.addresses = set(bootstrap)
        machine.peer = world.build_peer(
            signer=machine.signer,
            reader=world.reader,
            profile=Profile(
                mesh=MESH,
                store=machine.store,
                addresses=(f"/memory/{machine.index}/p2p/{machine.peer_id}",),
                cpu_milli=1000 * machine.slots,
                memory_bytes=machine.memory_bytes,
                slots=machine.slots,
                version="simulated",
            ),
            bootstrap=bootstrap,
            rng=Random(f"{world.options.seed}/{machine.index}/{machine.boot}"),
            limits=world.options.limits,
            incarnation=_FIRST_INCARNATION,
            wall=machine.wall(now),
            now=Instant(now),
        )
        machine.told_ahead_ms = machine.wall(now) - now // NS_PER_MS
        boot = machine.boot
        world.trace.note(now, machine.index, f"starts, boot {boot}")
        rows = machine.journal.rows()
        if rows:
            machine.peer.restore(rows)
        world.checkers.starting(machine)
        world.feed(machine, Started())
        self._tick(machine, boot)

    def crash(self, machine: Machine, torn: int = 0) -> None:
        """At once and without a word; runs, fetches and what was not synced are gone with it.

        ``torn``: so many of the records that were not synced are on the disk, for what that is worth.
        """
        self.crashes += 1
        self._world.trace.note(self._world.agenda.now, machine.index, "crashes")
        self._end(machine, torn)

    def stop(self, machine: Machine) -> None:
        """The node ends itself: for its peer it is over, and its connections say so."""
        self._world.trace.note(self._world.agenda.now, machine.index, "stops")
        self._end(machine, 0)

    def _end(self, machine: Machine, torn: int) -> None:
        assert machine.alive
        if not machine.journal.unsynced:
            self._world.checkers.crashing(machine)
        machine.journal.crash(torn)
        machine.alive = False
        self._count_alive()
        machine.peer = None
        machine.inbox = None
        machine.wake_at = None
        machine.runs.clear()
        machine.fetches.clear()
        self._world.network.crashed(machine)

    def _count_alive(self) -> None:
        self.alive = [machine for machine in self.all if machine.alive]

    # -- what may have happened to the disk of a machine that is down. The store id is kept beside the journal, with a
    # counter of its transactions, so that a node sees that its journal is not what it was.

    def wipe(self, machine: Machine) -> None:
        """A new, empty disk."""
        self.forget(machine)
        machine.disk = set()

    def forget(self, machine: Machine) -> None:
        """The journal is gone, with all that it counted; the blobs are there."""
        self.lose(machine)
        machine.journal = Journal()

    def lose(self, machine: Machine, syncs: int = 0) -> None:
        """The last syncs had not reached the disk."""
        assert not machine.alive
        machine.journal.lose(syncs)
        machine.store = machine.rng.randbytes(16)

    def _tick(self, machine: Machine, boot: int) -> None:
        """The wall clock is read every so often; a peer is told unless its own has moved on in the same way."""
        if machine.boot == boot and machine.alive:
            world = self._world
            wall = machine.wall(world.agenda.now)
            ahead_ms = wall - world.agenda.now // NS_PER_MS
            if machine.told_ahead_ms != ahead_ms or machine.inbox is not None:
                world.feed(machine, ClockObserved(wall))
                # what waits in an inbox is read anew when its turn comes
                machine.told_ahead_ms = ahead_ms if machine.inbox is None else None
            world.agenda.after(int(world.options.clock_every_s * NS_PER_S), self._tick, machine, boot)
