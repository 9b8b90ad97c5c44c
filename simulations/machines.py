"""The machines of a world: each one runs a peer, has a disk, slots, a clock, a place, and may crash."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S, Instant, WallMs
from protocol.events import ClockObserved, Started
from protocol.identity import PeerId, Signer
from protocol.peer import Peer
from protocol.profile import Profile
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
_SKEW_MS = 10_000


class Machine:
    """A node: what survives its crashes, and what does not."""

    __slots__ = (
        "addresses",
        "alive",
        "bandwidth",
        "boot",
        "disk",
        "fetches",
        "gone",
        "index",
        "journal",
        "kept",
        "links",
        "peer",
        "peer_id",
        "runs",
        "signer",
        "skew_ms",
        "slots",
        "slowness",
        "store",
        "wake_at",
        "x",
        "y",
    )

    def __init__(self, index: int, signer: Signer, rng: Random, *, slots: int, bandwidth: int, skew_ms: int) -> None:
        self.index = index
        self.signer = signer
        self.peer_id: PeerId = signer.peer_id
        self.x, self.y = rng.random(), rng.random()
        self.slowness = rng.lognormvariate(0.0, 0.4)
        self.slots = slots
        self.bandwidth = bandwidth
        self.skew_ms = skew_ms
        # on disk
        self.store = rng.randbytes(16)
        self.disk: set[str] = set()
        self.journal = Journal()
        # of one boot
        self.peer: Peer | None = None
        self.alive = False
        self.gone = False
        self.boot = 0
        self.wake_at: int | None = None
        self.links: dict[PeerId, Link] = {}
        self.kept: set[PeerId] = set()
        self.addresses: set[PeerId] = set()
        self.runs: dict[int, Run] = {}
        self.fetches: set[int] = set()

    def wall(self, now: int) -> WallMs:
        return WallMs(EPOCH_MS + now // NS_PER_MS + self.skew_ms)


class Machines:
    """All machines, by peer id; starts, crashes and restarts them."""

    def __init__(self, world: World, bootstraps: int) -> None:
        self._world = world
        self._bootstraps = bootstraps
        self.all: list[Machine] = []
        self._by_id: dict[PeerId, Machine] = {}
        self.crashes = 0

    def __getitem__(self, peer: PeerId) -> Machine:
        return self._by_id[peer]

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._by_id

    @property
    def alive(self) -> list[Machine]:
        return [machine for machine in self.all if machine.alive]

    def add(self, signer: Signer) -> Machine:
        options, rng = self._world.options, self._world.rng
        skewed = self._world.faults.strikes("skew")
        machine = Machine(
            len(self.all),
            signer,
            rng,
            slots=rng.randint(1, options.slots_max),
            bandwidth=rng.randint(*options.bandwidth),
            skew_ms=rng.randint(-_SKEW_MS, _SKEW_MS) if skewed else 0,
        )
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
        machine.addresses = set(bootstrap)
        machine.peer = world.build_peer(
            signer=machine.signer,
            reader=world.reader,
            profile=Profile(
                mesh=MESH,
                store=machine.store,
                addresses=(f"/memory/{machine.index}/p2p/{machine.peer_id}",),
                cpu_milli=1000 * machine.slots,
                memory_bytes=8 << 30,
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
        boot = machine.boot
        world.trace.note(now, machine.index, f"starts, boot {boot}")
        rows = machine.journal.rows()
        if rows:
            machine.peer.restore(rows)
        world.checkers.starting(machine)
        world.feed(machine, Started())
        self._tick(machine, boot)

    def crash(self, machine: Machine) -> None:
        """At once and without a word; runs, fetches and what was not synced are gone with it."""
        assert machine.alive
        self.crashes += 1
        self._world.trace.note(self._world.agenda.now, machine.index, "crashes")
        if machine.journal.is_synced:
            self._world.checkers.crashing(machine)
        machine.journal.crash()
        machine.alive = False
        machine.peer = None
        machine.wake_at = None
        machine.runs.clear()
        machine.fetches.clear()
        self._world.network.crashed(machine)

    def wipe(self, machine: Machine) -> None:
        """A new, empty disk in a machine that is down."""
        assert not machine.alive
        machine.disk = set()
        machine.store = self._world.rng.randbytes(16)
        machine.journal = Journal()

    def _tick(self, machine: Machine, boot: int) -> None:
        """The wall clock is read every so often."""
        if machine.boot == boot and machine.alive:
            world = self._world
            world.feed(machine, ClockObserved(machine.wall(world.agenda.now)))
            world.agenda.after(int(world.options.clock_every_s * NS_PER_S), self._tick, machine, boot)
