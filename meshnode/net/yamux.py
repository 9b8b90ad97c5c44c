"""The library's stream multiplexer with the holes closed that a remote, or a cancelled task, could fall through.

One object is one connection. Three things differ from the original:

* A frame, once begun, is written to its end. Noise numbers its messages, and a cancelled write leaves a number
  used up or half a message on the wire: the remote can then decrypt nothing more, and every stream of the
  connection dies for one task's time-out.
* A frame that cannot be written within WRITE_LIMIT_S ends the connection, so a remote that stopped reading holds
  nobody for ever.
* What a remote may make us buffer is bounded. The original lets it run past the receive window with a warning.
"""

from __future__ import annotations

import logging
import math

import trio
from libp2p.abc import INetConn
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.yamux import yamux

log = logging.getLogger(__name__)

WRITE_LIMIT_S = 10.0
"""Seconds one frame (64 KiB at most) may take to reach the kernel."""

UNREAD_LIMIT = 64 * 1024 * 1024
"""Bytes, over all streams of one connection, that may have arrived and not been read.

Sixteen streams with the largest window each: an honest remote waits for window long before."""

WINDOW_LIMIT = 4 * 1024 * 1024
"""Bytes to which the receive window of one stream may grow (from 256 KiB, while its reader keeps up)."""

yamux.MAX_WINDOW_SIZE = WINDOW_LIMIT

_CLOSE_LIMIT_S = 5.0


class FrameTimedOut(RawConnError):
    """A frame could not be written; its connection has been closed."""


class GuardedYamux(yamux.Yamux):
    """One multiplexed connection."""

    heard_at = -math.inf
    """When data last came from the remote, in trio's time."""

    async def start(self) -> None:
        # An exception that leaves here would cancel the whole host.
        try:
            await super().start()
        except Exception:
            log.exception("the multiplexer of %s failed; its connection is closed", self.peer_id)
            await self._cleanup_on_error()

    async def _write_frame(self, data: bytes) -> None:
        async with self._write_lock:  # may be cancelled while waiting: nothing has been written yet
            with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_LIMIT_S) as writing:
                await self.secured_conn.write(data)
            if writing.cancelled_caught:
                await cut(self)
                raise FrameTimedOut(f"nothing could be written for {WRITE_LIMIT_S:g} s")
        await trio.lowlevel.checkpoint()

    async def _read_data_body(self, length: int) -> bytes:
        unread = sum(map(len, self.stream_buffers.values()))
        if unread + length > UNREAD_LIMIT:
            log.warning("%s sent past its windows; its connection is closed", self.peer_id)
            raise trio.TooSlowError  # the one error here for which the caller closes the connection
        body: bytes = await super()._read_data_body(length)
        self.heard_at = trio.current_time()
        return body


# The library makes a Yamux by name, whatever class it was configured with.
muxer_multistream.Yamux = GuardedYamux


async def cut(muxed: GuardedYamux) -> None:
    """Close the socket under a connection, now, whoever is blocked on it; then end its streams."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_LIMIT_S):
        try:
            await muxed.secured_conn.close()
            await muxed._cleanup_on_error()
        except Exception as error:
            log.debug("closing the connection to %s: %s", muxed.peer_id, error)


async def abort(conn: INetConn) -> None:
    """End a connection without waiting for the remote; its streams are lost. Safe to call twice.

    The orderly close says goodbye first, and waits behind any write that is stuck.
    """
    await cut(conn.muxed_conn)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_LIMIT_S):
        try:
            await conn.close()
            # When the loss was noticed elsewhere at the same time, the line above returned at once, and the connection
            # is still counted.
            conn.swarm.remove_conn(conn)
        except Exception as error:
            log.debug("closing the connection to %s: %s", conn.muxed_conn.peer_id, error)
