"""A stream to a peer: bytes both ways, with an end that can be told from a loss.

What is different from the library's stream: the end of the data is `b""`, and a connection that died is StreamLost
(the library reports both as end of file).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio
from libp2p.network.stream.exceptions import StreamEOF

from meshnode.net.errors import StreamLost, translated

READ_SIZE = 64 * 1024
"""Bytes asked for at once when the caller does not say."""

WRITE_CHUNK = 64 * 1024 - 12
"""Bytes that fit a single frame of the multiplexer, with its header."""

_LINGER_S = 5.0
_RESET_LIMIT_S = 2.0


class Stream:
    """One stream. Use it as an async context manager: leaving it closes it, an exception resets it.

    Not made here: `Network.open_stream` and the handlers given to `Network.handle` receive them. Methods raise
    StreamLost when the stream or its connection is gone. One task may read while another writes.
    """

    def __init__(self, raw: Any, protocol: str) -> None:
        self.peer = str(raw.muxed_conn.peer_id)
        self.protocol = protocol
        self._raw = raw
        self._at_end = False
        self._write_closed = False
        self._unreadable = ""

    def __repr__(self) -> str:
        return f"<Stream {self.protocol} with {self.peer}>"

    async def read_some(self, max_bytes: int = READ_SIZE) -> bytes:
        """At least one byte and at most `max_bytes`, as soon as there are any; `b""` at the end of the stream.

        A read that was cancelled may have taken bytes with it, so afterwards the stream can only be reset.
        """
        if self._at_end:
            return b""
        if self._unreadable:
            raise StreamLost(f"{self!r}: {self._unreadable}")
        self._unreadable = "an earlier read was cancelled or is still waiting"
        with translated(repr(self)):
            try:
                data: bytes = await self._raw.read(max_bytes)
            except StreamEOF:
                self._check_clean_end()
                self._at_end = True
                data = b""
        self._unreadable = ""
        return data

    async def read_exactly(self, count: int) -> bytes:
        """`count` bytes. Raises StreamLost if the stream ends before."""
        data = bytearray()
        while len(data) < count:
            part = await self.read_some(min(count - len(data), READ_SIZE))
            if not part:
                raise StreamLost(f"{self!r} ended after {len(data)} of {count} bytes")
            data += part
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Hand `data` to the connection, waiting while the remote's window is empty (5 s at most, then StreamLost).

        Cancelled, it may have written a part, so afterwards the stream can only be reset; the connection and its
        other streams are unharmed. If the remote's machine takes nothing at all for too long, StreamTimedOut.
        """
        with translated(repr(self)):
            for start in range(0, len(data), WRITE_CHUNK):
                await self._raw.write(data[start : start + WRITE_CHUNK])

    async def close_write(self) -> None:
        """Say that nothing more will be written. Reading goes on."""
        if not self._write_closed:
            self._write_closed = True
            with translated(repr(self)):
                await self._raw.close_write()

    async def reset(self) -> None:
        """Drop the stream in both directions at once, also under cancellation. Never raises."""
        self._write_closed = True
        self._unreadable = "it was reset on our side"
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _RESET_LIMIT_S):
            await self._raw.reset()

    async def aclose(self) -> None:
        """Close in good order: end our side, wait a few seconds for the remote to end its own, else reset.

        What the remote still sends in that time is thrown away.
        """
        try:
            await self.close_write()
            with trio.move_on_after(_LINGER_S):
                while await self.read_some():
                    pass
        except StreamLost:
            pass
        finally:
            if self._at_end:
                with trio.CancelScope(shield=True):
                    await self._raw.remove()
            else:
                await self.reset()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.aclose() if error is None else self.reset())

    def _check_clean_end(self) -> None:
        # The library empties a dead connection's streams and then calls their end an end of file. A remote that
        # ended the stream and hung up at once looks the same; what was not read by then is lost in either case.
        if self._raw.muxed_stream.reset_received or self._raw.muxed_conn.event_shutting_down.is_set():
            raise StreamLost("the connection is gone")
