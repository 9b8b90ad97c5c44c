"""Which way messages get through, and how fast: partitions, half partitions, and times in which all is slow.

Nobody is told that a route is gone. What is sent over a connection that was there stays in its buffer and comes late,
when the route is back in time, or goes with the connection when that is given up; nothing new can be dialled.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from protocol.identity import PeerId
from protocol.messages import Message
from simulations.decisions import Decision

if TYPE_CHECKING:
    from simulations.machines import Machine
    from simulations.network import Link
    from simulations.world import World

_SHORT_MS = (500, 8_000)
_LONG_MS = (8_000, 45_000)
_SPIKE_MS = (1_000, 8_000)
_SPIKE_FACTOR = (3, 20)
_SILENCE_MS = (10_000, 15_000)
"""A node pings a connection that was silent for 5 s, and gives it up 5 s later; it looks every few seconds."""
_RETRANSMIT_MS = (200, 3_000)


class Split:
    """Machines that cannot reach others: those in ``far`` not the rest, and the rest not them if it is ``mutual``."""

    __slots__ = ("decision", "far", "happened", "held", "mutual", "open", "retransmit_ns", "silence_ns")

    def __init__(self, decision: Decision, far: frozenset[int], rng: Random, *, mutual: bool) -> None:
        self.decision = decision
        self.far = far
        self.mutual = mutual
        self.open = True
        self.happened = False
        self.silence_ns = rng.randint(*_SILENCE_MS) * NS_PER_MS
        self.retransmit_ns = rng.randint(*_RETRANSMIT_MS) * NS_PER_MS
        self.held: list[tuple[Link, Machine, PeerId, Message, int]] = []
        """What waits in buffers, in the order in which it was sent."""

    def stops(self, source: int, target: int) -> bool:
        if source in self.far:
            return target not in self.far
        return self.mutual and target in self.far


class Routes:
    """The splits that are open now, and by how much the network is slowed down."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.splits: list[Split] = []
        self._spike: Decision | None = None
        self._spike_happened = False
        self._factor = 1

    @property
    def is_slow(self) -> bool:
        return self._spike is not None

    def stopped(self, source: Machine, target: Machine) -> Split | None:
        """The split that keeps what ``source`` sends from ``target``; it has taken effect then."""
        for split in self.splits:
            if split.stops(source.index, target.index):
                self._note(split)
                return split
        return None

    def can_talk(self, one: Machine, other: Machine) -> bool:
        """Whether both hear each other, as a new connection needs it, and a transfer."""
        return not self.splits or (self.stopped(one, other) is None and self.stopped(other, one) is None)

    def slowed(self, delay: int) -> int:
        """A delay as it is now."""
        if self._spike is not None and not self._spike_happened:
            self._spike_happened = True
            self._world.faults.happened(self._spike, self._world.agenda.now, f"latency times {self._factor}")
        return delay * self._factor

    # -- begin and end

    def split(self, decision: Decision) -> None:
        """A random group of machines is cut off, both ways or in one direction."""
        world, rng = self._world, decision.rng()
        count = len(world.machines.all)
        if count < 2:
            return
        far = frozenset(rng.sample(range(count), rng.randint(1, count // 2)))
        split = Split(decision, far, rng, mutual=decision.kind == "partition")
        self.splits.append(split)
        world.agenda.after(rng.randint(*rng.choice((_SHORT_MS, _LONG_MS))) * NS_PER_MS, self._heal, split)
        for machine in world.machines.all:
            for peer, link in machine.links.items():
                if link.open and split.stops(machine.index, world.machines[peer].index):
                    self.expect_silence(split, machine, peer, link)

    def expect_silence(self, split: Split, machine: Machine, peer: PeerId, link: Link) -> None:
        """The connection is given up, by both ends, if the split lasts."""
        self._world.agenda.after(split.silence_ns, self._give_up, split, machine, peer, link)

    def _give_up(self, split: Split, machine: Machine, peer: PeerId, link: Link) -> None:
        if split.open and link.open and machine.links.get(peer) is link:
            self._note(split)
            self._world.network.cut(machine, peer)

    def _heal(self, split: Split) -> None:
        """The route is back: what still waits in buffers is sent again, by and by."""
        if split.open:
            split.open = False
            self.splits.remove(split)
            for link, source, to, message, number in split.held:
                if link.open:
                    self._world.network.sent_again(link, source, to, message, number, split.retransmit_ns)

    def spike(self, decision: Decision) -> None:
        """The whole network is slow for a while."""
        if self._spike is None:
            rng = decision.rng()
            self._spike, self._spike_happened, self._factor = decision, False, rng.randint(*_SPIKE_FACTOR)
            self._world.agenda.after(rng.randint(*_SPIKE_MS) * NS_PER_MS, self._calm, decision)

    def _calm(self, decision: Decision) -> None:
        if self._spike is decision:
            self._spike = None

    def end(self) -> None:
        """All is well from now on."""
        self._spike = None
        for split in list(self.splits):
            self._heal(split)

    def _note(self, split: Split) -> None:
        if not split.happened:
            split.happened = True
            peers = " ".join(str(index) for index in sorted(split.far))
            self._world.faults.happened(split.decision, self._world.agenda.now, f"peers {peers}")
