"""One test per defect of py-libp2p 0.8.1 that we guard against. Each fails without its guard.

GossipSub's defects need no guard: the host does not speak it, which is checked too.
"""

import gc
import os
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux import yamux as yamux_module
from multiaddr import Multiaddr

import meshnode.net.host as our_host
import meshnode.net.yamux as our_yamux
from meshnode.net import (
    DialFailed,
    ListenFailed,
    Network,
    NetworkLimits,
    ProtocolRefused,
    Stream,
    StreamLost,
)

ECHO = "/echo/1"
SINK = "/sink/1"

_NO_EFFECT = struct.pack("!BBHII", 0, 2, 2, 0, 0)
"""A yamux frame: the answer to a ping that was not sent."""


async def echo(stream: Stream) -> None:
    while data := await stream.read_some():
        await stream.write(data)


async def never_read(stream: Stream) -> None:
    await trio.sleep_forever()


async def assert_echoes(network: Network, peer: str) -> None:
    with trio.fail_after(20):
        async with await network.open_stream(peer, ECHO) as stream:
            await stream.write(b"still here")
            assert await stream.read_exactly(10) == b"still here"


async def read_one(network: Network, peer: str, protocol: str) -> None:
    """A reset may come while the byte is read, or overtake the remote's agreement to the protocol."""
    await (await network.open_stream(peer, protocol)).read_exactly(1)


async def forever(step: Callable, *args: object) -> None:
    while True:
        await step(*args)


def host_of(network: Network) -> BasicHost:
    return network._host


def connection(network: Network, peer: str) -> Any:
    (conn,) = (c for c in host_of(network).get_network().get_connections() if str(c.muxed_conn.peer_id) == peer)
    return conn


@pytest.mark.trio
async def test_fact_1_an_exception_in_a_handler_does_not_end_the_host(networks: Callable) -> None:
    async def raising(stream: Any) -> None:
        raise RuntimeError("a bug in a handler")

    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        # Straight on the host: the library's own handlers must be guarded, too.
        host_of(b).set_stream_handler(TProtocol("/raises/1"), raising)
        with pytest.raises(StreamLost):
            await read_one(a, b.peer_id, "/raises/1")
        await assert_echoes(a, b.peer_id)


@pytest.mark.trio
async def test_facts_2_3_8_9_the_host_speaks_ping_and_nothing_else(networks: Callable) -> None:
    async with networks(2) as (a, b):
        assert set(host_of(b).get_mux().handlers) == {PING}
        for protocol in ("/meshsub/1.1.0", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/kad/1.0.0"):
            with pytest.raises(ProtocolRefused):
                await a.open_stream(b.peer_id, protocol)


@pytest.mark.trio
async def test_the_host_dials_nobody_by_itself(networks: Callable) -> None:
    async with networks(2) as (a, b):
        known = host_of(a).get_peerstore()
        known.add_addrs(host_of(b).get_id(), [Multiaddr(b.addresses[0])], 1000)
        await host_of(a).get_network().auto_connector.maybe_connect()
        assert a.connections() == []


@pytest.mark.trio
async def test_fact_4_places_for_inbound_connections_are_given_back(networks: Callable, until: Callable) -> None:
    places = 4
    async with networks(2, NetworkLimits(max_connections=places)) as (a, b):
        swarm = host_of(a).get_network()
        await b.connect(a.addresses[0])
        await b.disconnect(a.peer_id)
        await until(lambda: not a.connections() and swarm._inbound_limiter.borrowed_tokens == 0)
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(2 * places):
            await b.connect(a.addresses[0])
            await b.disconnect(a.peer_id)
            assert b.connections() == []
            await until(lambda: not swarm.get_connections() and swarm._inbound_limiter.borrowed_tokens == 0)
        # No task is left parked for a connection that has ended.
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)


@pytest.mark.trio
async def test_fact_4_more_than_256_inbound_connections_are_held(
    networks: Callable, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(our_host, "MAX_CONNECTIONS_PER_PEER", 1000)
    dialers, each = 6, 44
    async with networks(1 + dialers, NetworkLimits(ping_interval_s=1e6)) as (server, *others):
        where = Multiaddr(server.addresses[0])
        for dialer in others:
            for _ in range(each):
                await host_of(dialer).get_network().dial_addr(where, host_of(server).get_id())
        await until(lambda: len(host_of(server).get_network().get_connections()) == dialers * each)


@pytest.mark.trio
async def test_one_peer_cannot_hold_all_connections(networks: Callable, until: Callable) -> None:
    async with networks(2) as (a, b):
        swarm_a, swarm_b = (host_of(network).get_network() for network in (a, b))
        for _ in range(8):
            with suppress(Exception):  # which one, depends on how far the dial had come
                await swarm_a.dial_addr(Multiaddr(b.addresses[0]), host_of(b).get_id())
        await until(lambda: len(swarm_a.get_connections()) == len(swarm_b.get_connections()))
        assert 1 <= len(swarm_b.get_connections()) <= our_host.MAX_CONNECTIONS_PER_PEER


@pytest.mark.trio
async def test_fact_5_cancelled_writes_do_not_break_the_connection(networks: Callable) -> None:
    async def drain(stream: Stream) -> None:
        while await stream.read_some():
            pass

    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        b.handle("/drain/1", drain, max_streams_per_peer=100)
        sibling = await a.open_stream(b.peer_id, ECHO)
        conn = connection(a, b.peer_id)
        cut_short = 0
        for attempt in range(30):
            stream = await a.open_stream(b.peer_id, "/drain/1")
            with trio.move_on_after(0.0005 * (attempt % 10)) as scope:
                await stream.write(bytes(2_000_000))
            cut_short += scope.cancelled_caught
            await stream.reset()
        assert cut_short > 10
        await sibling.write(b"x" * 1000)
        assert await sibling.read_exactly(1000) == b"x" * 1000
        assert connection(a, b.peer_id) is conn
        await sibling.reset()


@pytest.mark.trio
async def test_fact_5_a_remote_that_takes_nothing_costs_its_own_connection_only(
    networks: Callable, child: Callable, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(our_yamux, "WRITE_LIMIT_S", 1.0)
    async with networks(2, NetworkLimits(ping_interval_s=1e6)) as (a, b), child() as (process, address):
        b.handle(ECHO, echo)
        peer = await a.connect(address)
        stream = await a.open_stream(peer, SINK)
        process.send_signal(signal.SIGSTOP)
        # Frames without effect, until the buffers of both kernels are full. The library would wait without end.
        muxed = connection(a, peer).muxed_conn
        with pytest.raises(our_yamux.FrameTimedOut), trio.fail_after(20):
            await forever(muxed._write_frame, _NO_EFFECT * 5000)
        with pytest.raises(StreamLost):
            await stream.write(b"x")
        await until(lambda: peer not in a.connections())
        await assert_echoes(a, b.peer_id)


@pytest.mark.trio
async def test_fact_6_a_window_that_stays_empty_costs_the_stream_only(networks: Callable) -> None:
    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        b.handle(SINK, never_read)
        async with await a.open_stream(b.peer_id, SINK) as stream:
            with pytest.raises(StreamLost):  # after the library's 5 s
                await stream.write(bytes(2 * our_yamux.WINDOW_LIMIT))
        await assert_echoes(a, b.peer_id)


@pytest.mark.trio
async def test_fact_7_plaintext_is_refused(networks: Callable) -> None:
    async with networks(1) as (a,):
        keys = create_new_key_pair()
        liar = new_host(key_pair=keys, sec_opt={TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(keys)})
        async with liar.run([]):
            with pytest.raises(Exception, match="unable to connect"), trio.fail_after(20):
                await liar.connect(info_from_p2p_addr(Multiaddr(a.addresses[0])))
            await liar.close()
        assert a.connections() == []


@pytest.mark.trio
async def test_facts_10_11_the_librarys_own_dialling_is_not_used(
    networks: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unused(*args: Any) -> Any:
        raise AssertionError("waits 250 ms for nothing, tries one address, blocks a failed peer for 60 s")

    monkeypatch.setattr(Swarm, "dial_peer", unused)
    async with networks(2) as (a, b):
        b.handle(ECHO, echo)
        await assert_echoes(a, b.peer_id)


@pytest.mark.trio
async def test_fact_11_a_restarted_peer_is_reachable_at_once(networks: Callable, seed: Callable) -> None:
    identity = seed()
    async with networks(1) as (a,):
        async with Network.start(identity) as b:
            where = b.addresses[0]
            assert await a.connect(where) == b.peer_id
        with pytest.raises(DialFailed):
            await a.connect(where)
        with pytest.raises(DialFailed):
            await a.open_stream(b.peer_id, ECHO)
        port = where.split("/")[4]
        async with Network.start(identity, listen=[f"/ip4/127.0.0.1/tcp/{port}"]) as again:
            again.handle(ECHO, echo)
            await assert_echoes(a, b.peer_id)


def test_small_reads_do_not_send_window_updates_of_their_own() -> None:
    assert not yamux_module._yamux_release_on_read()


@pytest.mark.trio
async def test_a_silent_remote_is_noticed_and_a_stuck_one_does_not_stop_the_watch(
    networks: Callable, child: Callable, until: Callable
) -> None:
    limits = NetworkLimits(ping_interval_s=0.3, ping_timeout_s=1.5)
    async with networks(1, limits) as (a,), child() as (one, first), child() as (two, second):
        stuck, silent = await a.connect(first), await a.connect(second)
        stream = await a.open_stream(silent, ECHO)
        for process in (one, two):
            process.send_signal(signal.SIGSTOP)
        # The first peer's connection is held by a frame that cannot be written.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection(a, stuck).muxed_conn._write_frame, _NO_EFFECT * 1_000_000)
            with pytest.raises(StreamLost), trio.fail_after(20):
                await stream.read_some()
            await until(lambda: a.connections() == [])
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_remote_that_ignores_the_windows_loses_its_connection(
    networks: Callable, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(our_yamux, "UNREAD_LIMIT", 1_000_000)
    async with networks(2) as (a, b):
        b.handle(SINK, never_read)
        stream = await a.open_stream(b.peer_id, SINK)
        (held,) = host_of(b).get_network().get_connections()
        stream._raw.muxed_stream.send_window = 1 << 40

        async def write_and_measure() -> None:
            await stream.write(bytes(1_000_000))
            assert sum(map(len, held.muxed_conn.stream_buffers.values())) <= 1_000_000

        with pytest.raises(StreamLost), trio.fail_after(20):
            await forever(write_and_measure)
        await until(lambda: b.connections() == [])


@pytest.mark.trio
async def test_a_huge_line_of_protocol_negotiation_is_refused() -> None:
    class Remote:
        """Announces a line of 128 TiB and has as much of it as is asked for."""

        head = bytearray(b"\xff\xff\xff\xff\xff\xff\x1f")

        async def read(self, count: int) -> bytes:
            if self.head:
                return bytes([self.head.pop(0)])
            raise AssertionError(f"{count} bytes were asked for")

    with pytest.raises(MultiselectCommunicatorError):
        await MultiselectCommunicator(Remote()).read()


@pytest.mark.trio
async def test_a_taken_port_is_refused(networks: Callable, seed: Callable) -> None:
    async with networks(1) as (a,):
        taken = a.addresses[0].partition("/p2p/")[0]
        with pytest.raises(ListenFailed, match="already in use"):
            async with Network.start(seed(), listen=[taken]):
                pass


@pytest.mark.trio
async def test_closing_leaves_no_task_and_no_descriptor(networks: Callable) -> None:
    async def once() -> None:
        async with networks(3) as (a, b, c):
            b.handle(ECHO, echo)
            b.handle(SINK, never_read)
            await assert_echoes(a, b.peer_id)
            await c.open_stream(b.peer_id, SINK)
            await a.connect(c.addresses[0])

    await once()  # what is loaded or opened once for the process stays
    gc.collect()
    tasks, descriptors = trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await once()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert len(os.listdir("/proc/self/fd")) == descriptors
