"""The network as the rest of the node sees it: peers by id, streams by protocol, errors of our own.

async with Network.start(seed, listen=["/ip4/0.0.0.0/tcp/4001"]) as network:
    network.handle("/example/1", answer)
    peer = await network.connect("/ip4/10.0.0.7/tcp/4001/p2p/12D3Koo...")
    async with await network.open_stream(peer, "/example/1") as stream:
        ...
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.health.ping_probe import ping_connection
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from multiaddr import Multiaddr

from meshnode.net.addresses import AddressBook, concrete, parse_address, parse_peer_id
from meshnode.net.errors import (
    BadAddress,
    DialFailed,
    ListenFailed,
    NetworkError,
    NoAddress,
    StreamTimedOut,
    translate,
    translated,
)
from meshnode.net.host import MAX_CONNECTIONS, make_host, run_host, watch_connections
from meshnode.net.streams import Stream
from meshnode.net.yamux import abort

log = logging.getLogger(__name__)

Handler = Callable[[Stream], Awaitable[None]]

_DIAL_STAGGER_S = 0.25
_MAX_DIALS_AT_ONCE = 32
_NEGOTIATION_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Bounds of one network. Times in seconds."""

    max_connections: int = MAX_CONNECTIONS
    max_peers_known: int = 4096
    max_addresses_per_peer: int = 8
    dial_timeout_s: float = 10.0
    ping_interval_s: float = 5.0
    ping_timeout_s: float = 5.0


class Network:
    """One libp2p host and everything that runs on it. Made by `Network.start`."""

    def __init__(self, host: BasicHost, nursery: trio.Nursery, limits: NetworkLimits, announce: Sequence[str]) -> None:
        self._host = host
        self._swarm = host.get_network()
        self._nursery = nursery
        self._limits = limits
        self._announce = tuple(announce)
        self._book = AddressBook(max_peers=limits.max_peers_known, max_per_peer=limits.max_addresses_per_peer)
        self._dialing: dict[str, trio.Event] = {}
        self._dial_slots = trio.CapacityLimiter(_MAX_DIALS_AT_ONCE)
        self._multiselect = MultiselectClient()
        self._inbound: Counter[tuple[str, str]] = Counter()
        self.peer_id = str(host.get_id())
        """Our own peer id, "12D3Koo..."."""

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        seed: bytes,
        *,
        listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
        announce: Sequence[str] | None = None,
        limits: NetworkLimits | None = None,
    ) -> AsyncIterator[Network]:
        """Listen on every address of `listen` and run until the block is left, then close everything.

        `seed` is the 32-byte Ed25519 seed of the node's identity. `announce` replaces the addresses that
        `addresses` would find. Raises BadAddress for an address that is none, ListenFailed for one that cannot be
        listened on, before anything has started.
        """
        limits = limits or NetworkLimits()
        wanted = [parse_address(address)[0] for address in listen]
        announced = [str(parse_address(address)[0]) for address in announce or ()]
        for where in wanted:
            await _refuse_taken_port(where)
        host = make_host(seed, max_connections=limits.max_connections)
        async with run_host(host):
            for where in wanted:
                if not await host.get_network().listen(where):
                    raise ListenFailed(f"cannot listen on {where}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    lambda: watch_connections(
                        host.get_network(), interval_s=limits.ping_interval_s, timeout_s=limits.ping_timeout_s
                    )
                )
                try:
                    yield cls(host, nursery, limits, announced)
                finally:
                    nursery.cancel_scope.cancel()

    @property
    def addresses(self) -> list[str]:
        """Where others can dial us, each with a concrete host and our /p2p/ suffix, most useful first."""
        places: list[str] = list(self._announce)
        if not places:
            for listener in list(self._swarm.listeners.values()):
                for bound in listener.get_addrs():
                    places += [str(where) for where in concrete(bound)]
        return [f"{place}/p2p/{self.peer_id}" for place in dict.fromkeys(places)]

    def connections(self) -> list[str]:
        """The peers we have an open connection with, sorted."""
        return sorted(str(peer) for peer in self._swarm.connections if self._open_connections(peer))

    def learn_addresses(self, peer: str, addresses: Iterable[str]) -> bool:
        """Remember where `peer` can be dialled. Unusable addresses are left out, and make the answer False."""
        return self._book.learn(peer, addresses, in_use=self.connections())

    async def connect(self, address: str) -> str:
        """Connect to `address` (with /p2p/), check that the peer answers, and return its id.

        Raises BadAddress or DialFailed.
        """
        where, peer = parse_address(address)
        if peer is None:
            raise BadAddress(f"{address!r} does not say whom to expect there: it needs /p2p/PEER")
        if not self._book.learn(peer, [str(where)], in_use=self.connections()):
            raise BadAddress(f"{address!r} cannot be dialled")
        await self._dial(peer)
        # The remote may drop a connection after our side saw it established: believe only an answer.
        for conn in self._open_connections(parse_peer_id(peer)):
            if (await ping_connection(conn, ping_timeout=self._limits.dial_timeout_s)).success:
                return peer
            await abort(conn)
        raise DialFailed(f"{peer} was reached at {where} but does not answer")

    async def disconnect(self, peer: str) -> None:
        """Drop every connection with `peer`; its streams are lost. Nothing happens if there is none."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for conn in self._swarm.get_connections(parse_peer_id(peer)):
                    nursery.start_soon(abort, conn)

    async def open_stream(self, peer: str, protocol: str, timeout_s: float = 10.0) -> Stream:
        """A stream to `peer` on which the remote has agreed to speak `protocol`, over a new connection if need be.

        Raises DialFailed (NoAddress if we never learnt where the peer is), ProtocolRefused, StreamTimedOut,
        BadAddress if `peer` is no peer id.
        """
        opening = _Opening(parse_peer_id(peer), protocol)
        try:
            with trio.move_on_after(timeout_s) as scope:
                await self._dial(peer)
                # Cut in the middle, the library would leave half a stream behind, so a task of ours sees it through
                # even when nobody waits any more.
                self._nursery.start_soon(self._negotiate, opening)
                await opening.done.wait()
        finally:
            opening.abandoned = not opening.done.is_set()
        if scope.cancelled_caught and not opening.done.is_set():
            raise StreamTimedOut(f"{peer} did not agree to {protocol} within {timeout_s:g} s")
        if opening.error is not None:
            raise opening.error
        return Stream(opening.raw, protocol)

    def handle(self, protocol: str, handler: Handler, *, max_streams_per_peer: int = 16) -> None:
        """Give every inbound stream of `protocol` to `handler`, in a task of its own.

        An exception in the handler resets that stream and is logged. A peer with `max_streams_per_peer` such
        streams open has further ones reset.
        """

        async def accept(raw: Any) -> None:
            key = (str(raw.muxed_conn.peer_id), protocol)
            if self._inbound[key] >= max_streams_per_peer:
                await raw.reset()
                return
            self._inbound[key] += 1
            # Our nursery, not the library's: a handler may live as long as its stream.
            self._nursery.start_soon(self._serve, handler, Stream(raw, protocol))

        self._host.set_stream_handler(TProtocol(protocol), accept)

    def stop_handling(self, protocol: str) -> None:
        """Refuse `protocol` from now on. Streams that are open stay with their handler."""
        self._host.remove_stream_handler(TProtocol(protocol))

    async def _serve(self, handler: Handler, stream: Stream) -> None:
        try:
            async with stream:
                await handler(stream)
        except NetworkError as error:
            log.debug("%r ended: %s", stream, error)
        except Exception:
            log.exception("the handler of %r failed", stream)
        finally:
            key = (stream.peer, stream.protocol)
            self._inbound[key] -= 1
            if not self._inbound[key]:
                del self._inbound[key]

    async def _negotiate(self, opening: _Opening) -> None:
        try:
            raw = await self._swarm.new_stream(opening.peer)
            try:
                with trio.fail_after(_NEGOTIATION_LIMIT_S):
                    await self._multiselect.handshake(wire := MultiselectCommunicator(raw))
                    await self._multiselect.try_select(wire, TProtocol(opening.protocol))
                raw.set_protocol(TProtocol(opening.protocol))
                opening.raw = raw
            finally:
                if opening.raw is None or opening.abandoned:
                    await Stream(raw, opening.protocol).reset()
        except Exception as error:
            ours = translate(error)
            if ours is None:
                log.exception("opening a stream to %s failed", opening.peer)
                ours = DialFailed(repr(error))
            opening.error = type(ours)(f"{opening.protocol} with {opening.peer}: {ours}")
        opening.done.set()

    async def _dial(self, peer: str) -> None:
        """Return with a connection to `peer` open. However many want one, one dials."""
        peer_id = parse_peer_id(peer)
        if peer == self.peer_id:
            raise DialFailed(f"{peer} is this node itself")
        while not self._open_connections(peer_id):
            if (other := self._dialing.get(peer)) is not None:
                await other.wait()
                continue
            done = self._dialing[peer] = trio.Event()
            try:
                await self._dial_addresses(peer_id)
            finally:
                del self._dialing[peer]
                done.set()

    async def _dial_addresses(self, peer_id: ID) -> None:
        """Try every known address, each a little after the one before, until one answers with the right key.

        The library's own dialling would try one TCP address of a peer, and after a failure none for a minute.
        """
        places = self._book.of(str(peer_id))
        if not places:
            raise NoAddress(f"no address of {peer_id} is known")
        failures: list[str] = []

        async def attempt(where: Multiaddr, failed: trio.Event, everything: trio.CancelScope) -> None:
            with trio.move_on_after(self._limits.dial_timeout_s) as scope:
                try:
                    with translated(str(where)):
                        await self._swarm.dial_addr(where, peer_id)
                    everything.cancel()
                    return
                except NetworkError as error:
                    failures.append(str(error))
            if scope.cancelled_caught:
                failures.append(f"{where}: no answer within {self._limits.dial_timeout_s:g} s")
            failed.set()

        async with self._dial_slots, trio.open_nursery() as nursery:
            for where in places:
                failed = trio.Event()
                nursery.start_soon(attempt, where, failed, nursery.cancel_scope)
                with trio.move_on_after(_DIAL_STAGGER_S):
                    await failed.wait()
        if not self._open_connections(peer_id):
            raise DialFailed(f"cannot reach {peer_id}: {'; '.join(failures) or 'the connection closed at once'}")

    def _open_connections(self, peer_id: ID) -> list[Any]:
        return [conn for conn in self._swarm.get_connections(peer_id) if not conn.is_closed]


class _Opening:
    """A stream on its way to being open, and whether anybody still wants it."""

    def __init__(self, peer: ID, protocol: str) -> None:
        self.peer = peer
        self.protocol = protocol
        self.done = trio.Event()
        self.raw: Any = None
        self.error: NetworkError | None = None
        self.abandoned = False


async def _refuse_taken_port(where: Multiaddr) -> None:
    """The library listens with SO_REUSEPORT: a second node on a taken port would silently get half its visitors."""
    protocol = next(iter(where.protocols())).name
    if protocol not in ("ip4", "ip6"):
        raise BadAddress(f"{where} cannot be listened on: it needs /ip4/ or /ip6/")
    family = socket.AF_INET if protocol == "ip4" else socket.AF_INET6
    with trio.socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            await probe.bind((where.value_for_protocol(protocol), int(where.value_for_protocol("tcp"))))
        except OSError as error:
            raise ListenFailed(f"cannot listen on {where}: {error.strerror or error}") from error
