"""One libp2p host, made safe to leave running: every workaround for py-libp2p 0.8.1 that is not in `yamux.py`.

The version is pinned exactly, and `tests/meshnode/net/test_host_guards.py` holds one test per guard: an upgrade
that makes a guard needless, or breaks it, shows there.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# With the default, every small read sends a window update of its own: half of all frames.
os.environ["PY_YAMUX_RELEASE_ON_READ"] = "0"

import libp2p.network.swarm as swarm_module
import libp2p.protocol_muxer.multiselect_communicator as communicator_module
import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.health.ping_probe import ping_connection
from libp2p.network.swarm import Swarm
from libp2p.rcmgr import ResourceLimits, new_resource_manager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from meshnode.net.yamux import GuardedYamux, abort

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 2000
"""Open connections of one host, in both directions together. About 70 kB each."""

MAX_CONNECTIONS_PER_PEER = 4
"""Two peers that dial each other at once hold two; a peer that came back before its loss was noticed, more."""

MAX_INBOUND_STREAMS_PER_PEER = 256
"""Streams one peer may have open towards us, over all protocols and those still choosing one."""

_MAX_STREAMS = 20_000

# A full connect attempt is tried once: the retries, with their jitter, are ours.
_RETRY = RetryConfig(max_retries=0)

# The wait for a second address to dial does not end when the first has answered.
swarm_module._HAPPY_EYEBALLS_DELAY = 0.0

_MAX_PROTOCOL_LINE = 1024


async def _read_protocol_line(stream: INetStream) -> bytes:
    """One line of protocol negotiation. The library's own reader takes any length the remote states."""
    line = await read_varint_prefixed_bytes_limited(stream, _MAX_PROTOCOL_LINE)
    if not line.endswith(b"\n"):
        raise ParseError("a line of protocol negotiation does not end in a newline")
    return line[:-1]


communicator_module.read_delim = _read_protocol_line

# The library reports ordinary churn, such as a peer that is not up, as errors. What matters reaches us as exceptions.
logging.getLogger("libp2p").setLevel(logging.CRITICAL)


def make_host(seed: bytes, *, max_connections: int = MAX_CONNECTIONS) -> BasicHost:
    """A host for the Ed25519 key of `seed` (32 bytes): TCP, noise, yamux and ping, nothing else.

    Nothing listens or runs before `run_host`.
    """
    if len(seed) != 32:
        raise ValueError(f"an Ed25519 seed has 32 bytes, not {len(seed)}")
    key = ed25519_key_pair(seed)
    host = new_host(
        key_pair=key,
        # The default also offers plaintext, with which a peer can claim any id.
        sec_opt={NOISE: Noise(key, noise_privkey=x25519_key_pair().private_key)},
        muxer_opt={TProtocol(YAMUX): GuardedYamux},
        negotiate_timeout=10,
        resource_manager=new_resource_manager(
            limits=ResourceLimits(max_connections=max_connections, max_streams=_MAX_STREAMS),
            # The default admits 256 inbound connections and lets one peer hold them all.
            connection_limits=ConnectionLimits(
                max_established_inbound=max_connections,
                max_established_outbound=max_connections,
                max_established_total=max_connections,
                max_established_per_peer=MAX_CONNECTIONS_PER_PEER,
            ),
            # Each of these refuses connections by rules of its own.
            enable_memory_limits=False,
            enable_memory_pooling=False,
            enable_circuit_breaker=False,
            enable_graceful_degradation=False,
            enable_metrics=False,
        ),
        connection_config=ConnectionConfig(
            max_connections=max_connections,
            high_watermark=max_connections,
            min_connections=0,
            low_watermark=0,
            max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
            # Its checks run one after the other, so one stuck peer would end them for all: see `watch_connections`.
            enable_health_monitoring=False,
        ),
    )
    swarm = host.get_network()
    swarm.retry_config = _RETRY
    # Whom to be connected to is decided elsewhere: the host dials nobody by itself. (Watermarks of 0 still mean
    # "dial until half of the most connections are there".)
    swarm.auto_connector.maybe_connect = _do_nothing
    _forget_identify(host)
    _guard_streams(host)
    _release_ended_connections(swarm)
    return host


@asynccontextmanager
async def run_host(host: BasicHost) -> AsyncIterator[None]:
    """Run a host; on the way out close all it holds, which leaving the library's `run` alone does not."""
    async with host.run([]):
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for conn in host.get_network().get_connections():
                        nursery.start_soon(abort, conn)
                await host.close()


async def watch_connections(swarm: Swarm, *, interval_s: float, timeout_s: float) -> None:
    """Ping every connection that was silent for `interval_s`; abort it if no answer comes within `timeout_s`.

    This is what notices a remote that is stopped, or a network that swallows packets: TCP alone takes minutes.
    """
    being_checked: set[int] = set()

    async def check(conn: Any) -> None:
        try:
            if not (await ping_connection(conn, ping_timeout=timeout_s)).success:
                log.info("%s does not answer; its connection is closed", conn.muxed_conn.peer_id)
                await abort(conn)
        except Exception:
            log.exception("checking the connection to %s failed", conn.muxed_conn.peer_id)
        finally:
            being_checked.discard(id(conn))

    async with trio.open_nursery() as nursery:
        while True:
            await trio.sleep(interval_s)
            silent_since = trio.current_time() - interval_s
            for conn in swarm.get_connections():
                if id(conn) not in being_checked and conn.muxed_conn.heard_at <= silent_since:
                    being_checked.add(id(conn))
                    nursery.start_soon(check, conn)


async def _do_nothing() -> None:
    pass


def _forget_identify(host: BasicHost) -> None:
    """Take out the identify protocols: a round trip per connection in tasks that no close waits for, with which any
    peer writes addresses into the library's peer store. Our addresses come as signed records."""
    for protocol in list(host.get_mux().handlers):
        if protocol not in (None, PING):
            host.remove_stream_handler(protocol)
    swarm = host.get_network()
    for notifee in list(swarm.notifees):
        if type(notifee).__name__ == "_IdentifyNotifee":
            swarm.remove_notifee(notifee)


def _guard_streams(host: BasicHost) -> None:
    """An exception that leaves a stream handler cancels the whole host; here it resets the one stream."""
    inner = host._swarm_stream_handler
    open_streams: Counter[Any] = Counter()

    async def guarded(stream: Any) -> None:
        peer = stream.muxed_conn.peer_id
        if open_streams[peer] >= MAX_INBOUND_STREAMS_PER_PEER:
            await _reset(stream)
            return
        open_streams[peer] += 1
        try:
            await inner(stream)
        except Exception as error:  # never BaseException: cancellation must pass
            log.debug("a stream from %s (%s) failed: %r", peer, stream.get_protocol(), error)
            await _reset(stream)
        finally:
            open_streams[peer] -= 1
            if not open_streams[peer]:
                del open_streams[peer]

    host.get_network().set_stream_handler(guarded)


async def _reset(stream: Any) -> None:
    try:
        await stream.reset()
    except Exception as error:
        log.debug("resetting a stream failed: %r", error)


class _ConnectionEnded(Exception):
    """Lets the library's handler of an inbound connection finish."""


def _release_ended_connections(swarm: Swarm) -> None:
    """Give back what an inbound connection held once it has ended.

    The library's handler then parks for the life of the host, with its place among the inbound connections: after
    as many connections as there are places, ever, the host accepts no more.
    """
    inner = swarm.upgrade_inbound_raw_conn

    async def upgrade_and_wait(raw_conn: Any, maddr: Any) -> Any:
        muxed = await inner(raw_conn, maddr)
        await muxed.event_closed.wait()
        raise _ConnectionEnded

    swarm.upgrade_inbound_raw_conn = upgrade_and_wait
