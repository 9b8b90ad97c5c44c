"""Control connections between machines: latency, order, loss, and the ways in which a connection ends.

As in the product, a connection is made by the first message, delivers in order while it lives, tells both ends when
it breaks (``PeerLost``), and is dropped in silence when it has been idle. Links are made when they are first used:
nothing here grows with the square of the peers.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from protocol import limits
from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.events import GarbageReceived, MessageReceived, PeerLost
from protocol.identity import PeerId
from protocol.messages import Message, decode_message, encode_message
from simulations.decisions import Decision
from simulations.errors import Violation
from simulations.routes import Routes

if TYPE_CHECKING:
    from simulations.machines import Machine
    from simulations.world import World

_IDLE_NS = 120 * NS_PER_S
_DIAL_TIMEOUT_MS = (1_000, 4_000)
_NO_ROUTE_MS = 10_000
"""Until a dial is given up that nobody refuses and nobody answers."""
_STALL_MS = (100, 2_000)
_REPLAY_MS = (2_000, 60_000)
_NOTICE_MS = (1, 20)
"""How long a machine needs to see that a connection broke."""
_CODEC_EVERY = 100
"""Each so many messages go through the real codec, and must come out equal."""


class Link:
    """One connection between two machines."""

    __slots__ = ("arrivals", "handshake", "latency", "open", "refuses", "used")

    def __init__(self, latency: int, now: int, ends: tuple[PeerId, PeerId], *, is_open: bool) -> None:
        self.latency = latency
        """One way, in nanoseconds."""
        self.open = is_open
        """A link that is not open is being dialled in vain, or was cut."""
        self.refuses: PeerId | None = None
        """The end that closed the link and takes nothing from it any more."""
        self.used = now
        self.handshake = now + 2 * latency
        self.arrivals = dict.fromkeys(ends, self.handshake)
        """When the latest message towards each end arrives: none overtakes it."""


class Network:
    def __init__(self, world: World, latency_ms: tuple[int, int], jitter_ms: int) -> None:
        self._world = world
        self._agenda = world.agenda
        self._faults = world.faults
        self.routes = Routes(world)
        self._base_ns = latency_ms[0] * NS_PER_MS
        self._distance_ns = latency_ms[1] * NS_PER_MS / math.sqrt(2)
        self._jitter_ns = jitter_ms * NS_PER_MS
        self.sent: Counter[type[Message]] = Counter()
        self.messages = 0
        self.delivered = 0
        self.sampled_messages = 0
        self.sampled_bytes = 0

    def latency(self, one: Machine, other: Machine) -> int:
        """Nanoseconds one way, without jitter: machines lie on a square, 1 wide."""
        return self._base_ns + int(math.hypot(one.x - other.x, one.y - other.y) * self._distance_ns)

    def send(self, source: Machine, to: PeerId, message: Message) -> None:
        kind = type(message)
        if source.journal.unsynced:
            raise Violation(
                "journal", f"a {kind.__name__} leaves peer {source.index} before the records of its call are kept"
            )
        self.messages = number = self.messages + 1
        self.sent[kind] += 1
        if number % _CODEC_EVERY == 0:
            self._check_codec(message)
        link = source.links.get(to)
        now = self._agenda.now
        if link is None or now - link.used >= _IDLE_NS:
            link = self._link(source, to)
        if link is None or not link.open:
            return
        target, routes = self._world.machines[to], self.routes
        if routes.splits and (split := routes.stopped(source, target)) is not None:
            if split.mutual:
                split.held.append((link, source, to, message, number))
            return
        fault = self._faults.draw("message", source.index)
        if fault is not None and self._befalls(fault, link, source, target, message):
            return
        delay = link.latency + int(source.rng.random() * self._jitter_ns)
        if routes.is_slow:
            delay = routes.slowed(delay)
        arrival = now + delay
        if arrival <= link.arrivals[to]:
            arrival = link.arrivals[to] + 1
        link.arrivals[to] = arrival
        link.used = now
        self._agenda.at(arrival, self._deliver, link, target, target.boot, source.peer_id, message, number)

    def sent_again(self, link: Link, source: Machine, to: PeerId, message: Message, number: int, after: int) -> None:
        """What was kept in a buffer while there was no route."""
        target = self._world.machines[to]
        arrival = max(self._agenda.now + after + link.latency, link.arrivals[to] + 1)
        link.arrivals[to] = arrival
        self._agenda.at(arrival, self._deliver, link, target, target.boot, source.peer_id, message, number)

    def lie(self, source: Machine, to: PeerId, message: Message | None) -> bool:
        """Something that no honest peer would send, None for bytes that are no message; whether it is on its way."""
        link = self._link(source, to)
        target = self._world.machines[to]
        if link is None or self.routes.stopped(source, target) is not None:
            return False
        arrival = max(self._agenda.now + link.latency, link.arrivals[to] + 1)
        link.arrivals[to] = arrival
        self._agenda.at(arrival, self._deliver_lie, link, target, target.boot, source.peer_id, message)
        return True

    def _link(self, source: Machine, to: PeerId) -> Link | None:
        """A connection that is there, or is made now; None if there can be none."""
        link = source.links.get(to)
        if link is None or self._is_idle(link, source, to):
            link = self._connect(source, to)
        return link if link is not None and link.open else None

    # -- faults

    def _befalls(self, fault: Decision, link: Link, source: Machine, target: Machine, message: Message) -> bool:
        """What happens to one message; whether nothing is left to be done with it."""
        now, to = self._agenda.now, target.peer_id
        where = f"peer {source.index} to {target.index}: {type(message).__name__}"
        arguments = (link, target, target.boot, source.peer_id, message, self.messages)
        match fault.kind:
            case "drop":
                self._faults.happened(fault, now, where)
                return True
            case "stall":
                self._faults.happened(fault, now, where)
                held_up = now + link.latency + fault.rng().randint(*_STALL_MS) * NS_PER_MS
                link.arrivals[to] = max(link.arrivals[to], held_up)
            case "duplicate":
                self._faults.happened(fault, now, where)
                arrival = link.arrivals[to] = max(now + link.latency, link.arrivals[to] + 1)
                self._agenda.at(arrival, self._deliver, *arguments)
            case "reorder":
                earliest, latest = max(now, link.handshake) + 1, link.arrivals[to] - 1
                if latest <= earliest:
                    return False  # nothing is on its way that it could overtake
                self._faults.happened(fault, now, where)
                self._agenda.at(fault.rng().randint(earliest, latest), self._deliver, *arguments)
                return True
            case "replay":
                later = fault.rng().randint(*_REPLAY_MS) * NS_PER_MS
                self._agenda.after(later, self._replay, fault, source, target, message, self.messages)
        return False

    def _replay(self, fault: Decision, source: Machine, target: Machine, message: Message, number: int) -> None:
        if self._faults.active and target.alive and self.routes.stopped(source, target) is None:
            where = f"peer {source.index} to {target.index}: {type(message).__name__}"
            self._faults.happened(fault, self._agenda.now, where)
            self._world.feed(target, MessageReceived(source.peer_id, message), number)

    # -- how connections end

    def keep(self, machine: Machine, peer: PeerId, keep: bool) -> None:
        if keep:
            machine.kept.add(peer)
        else:
            machine.kept.discard(peer)

    def close(self, machine: Machine, peer: PeerId) -> None:
        """Cut by one end: what it has sent still arrives, what was on its way to it does not."""
        link = machine.links.get(peer)
        if link is None or not link.open:
            return
        link.refuses = machine.peer_id
        del machine.links[peer]
        self._tell_lost(machine, peer, "closed by us", self._agenda.now)
        self._end_remote(link, machine, peer, link.latency)

    def cut(self, machine: Machine, peer: PeerId) -> None:
        """The connection breaks: what is on its way is lost, and both ends see it soon."""
        link = machine.links.pop(peer)
        other = self._world.machines[peer]
        del other.links[machine.peer_id]
        link.open = False
        for end, lost in ((machine, peer), (other, machine.peer_id)):
            self._tell_lost(end, lost, "the link broke", self._agenda.now + end.rng.randint(*_NOTICE_MS) * NS_PER_MS)

    def crashed(self, machine: Machine) -> None:
        """All connections of a machine end. What it had sent still arrives, and then the news."""
        for peer, link in machine.links.items():
            if link.open:
                self._end_remote(link, machine, peer, link.latency + machine.rng.randint(*_NOTICE_MS) * NS_PER_MS)
        machine.links.clear()
        machine.kept.clear()

    def _end_remote(self, link: Link, machine: Machine, peer: PeerId, notice: int) -> None:
        """One end is gone: the other hears of it after what was sent before, or finds out by itself."""
        other = self._world.machines[peer]
        if self.routes.stopped(machine, other) is not None:
            link.open = False  # half open: whatever is sent into it is lost
            self._agenda.after(_NO_ROUTE_MS * NS_PER_MS, self._give_up, other, other.boot, machine.peer_id, link)
            return
        idle = self._is_idle(link, machine, peer)
        del other.links[machine.peer_id]
        if not idle:
            at = max(self._agenda.now + notice, link.arrivals[peer] + 1)
            self._tell_lost(other, machine.peer_id, "closed by the remote", at)

    def reaches(self, machine: Machine, peer: PeerId) -> bool:
        """Whether a machine has, or could try to make, a connection to ``peer``."""
        link = machine.links.get(peer)
        return (link is not None and link.open) or peer in machine.addresses

    def _connect(self, source: Machine, to: PeerId) -> Link | None:
        now = self._agenda.now
        if to not in source.addresses:
            source.links.pop(to, None)
            self._tell_lost(source, to, "no address is known", now)
            return None
        target = self._world.machines[to]
        latency = self.latency(source, target)
        is_routed = self.routes.can_talk(source, target)
        link = Link(latency, now, (source.peer_id, to), is_open=is_routed and target.alive)
        source.links[to] = link
        if link.open:
            target.links[source.peer_id] = link
        else:
            wait_ms = source.rng.randint(*_DIAL_TIMEOUT_MS) if is_routed else _NO_ROUTE_MS
            self._agenda.after(wait_ms * NS_PER_MS, self._give_up, source, source.boot, to, link)
        return link

    def _give_up(self, source: Machine, boot: int, to: PeerId, link: Link) -> None:
        if source.boot == boot and source.links.get(to) is link:
            del source.links[to]
            self._tell_lost(source, to, "cannot be reached", self._agenda.now)

    def _is_idle(self, link: Link, machine: Machine, peer: PeerId) -> bool:
        if not link.open or self._agenda.now - link.used < _IDLE_NS:
            return False
        return peer not in machine.kept and machine.peer_id not in self._world.machines[peer].kept

    def _deliver(self, link: Link, target: Machine, boot: int, sender: PeerId, message: Message, number: int) -> None:
        if link.open and target.boot == boot and target.alive and link.refuses != target.peer_id:
            self.delivered += 1
            deliver = self._world.turn if target.inbox is None else self._world.feed
            deliver(target, MessageReceived(sender, message), number)

    def _deliver_lie(self, link: Link, target: Machine, boot: int, sender: PeerId, message: Message | None) -> None:
        if link.open and target.boot == boot and target.alive and link.refuses != target.peer_id:
            event = MessageReceived(sender, message) if message is not None else GarbageReceived(sender, "not CBOR")
            self._world.feed(target, event, is_lie=True)

    def _tell_lost(self, machine: Machine, peer: PeerId, reason: str, at: int) -> None:
        self._agenda.at(at, self._world.feed_if, machine, machine.boot, PeerLost(peer, reason))

    def _check_codec(self, message: Message) -> None:
        frame = encode_message(message)
        self.sampled_messages += 1
        self.sampled_bytes += len(frame)
        if len(frame) > limits.FRAME_BYTES_MAX:
            raise Violation("codec", f"a {type(message).__name__} of {len(frame)} bytes does not fit a frame")
        if decode_message(frame) != message:
            raise Violation("codec", f"a {type(message).__name__} changed on its way through the codec")
