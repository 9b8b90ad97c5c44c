"""The transfer protocol's frames and messages; docs/specs/blob-transfer.md is their specification."""

from __future__ import annotations

from typing import Annotated, Protocol, TypeVar

from msgspec import Meta

from meshnode.blobs.dagpb import NODE_BYTES_MAX
from protocol import codec
from protocol.wire import Cid, Count, Name, Size, Text, Wire

PROTOCOL_ID = "/meshnode/blob/1"
MESSAGE_BYTES_MAX = 8 * 1024
CIDS_PER_REQUEST_MAX = 64

_READ_BYTES = 64 * 1024
_LENGTH_BYTES_MAX = 4
_M = TypeVar("_M")

assert MESSAGE_BYTES_MAX <= NODE_BYTES_MAX < 1 << 7 * _LENGTH_BYTES_MAX


class Stream(Protocol):
    """What is needed of a stream; `meshnode.net.streams.Stream` is one."""

    @property
    def peer(self) -> str:
        """The authenticated remote."""

    async def read_some(self, max_bytes: int) -> bytes:
        """At least one byte; ``b""`` at the end."""

    async def write(self, data: bytes) -> None:
        """Send all of ``data``. May be cancelled; the stream is then reset."""

    async def close_write(self) -> None:
        """Say that nothing more will be written."""

    async def aclose(self) -> None:
        """Close in good order. Never raises."""

    async def reset(self) -> None:
        """Drop the stream both ways. Never raises."""


class Message(Wire, frozen=True, kw_only=True, tag_field="kind"):
    """Base of the messages below."""


class Get(Message, frozen=True, kw_only=True, tag="get"):
    """Send the blob's blocks in pre-order, without the first ``skip``."""

    cid: Cid
    skip: Count = 0


class Have(Message, frozen=True, kw_only=True, tag="have"):
    """Which of these do you hold?"""

    cids: Annotated[tuple[Cid, ...], Meta(max_length=CIDS_PER_REQUEST_MAX)]


class Content(Message, frozen=True, kw_only=True, tag="content"):
    """Answer to Get: the blocks follow, a frame each, until the end of the blob of ``size`` bytes."""

    size: Size


class Sizes(Message, frozen=True, kw_only=True, tag="sizes"):
    """Answer to Have: per blob its size, or null."""

    sizes: Annotated[tuple[Size | None, ...], Meta(max_length=CIDS_PER_REQUEST_MAX)]


class Error(Message, frozen=True, kw_only=True, tag="error"):
    """Answer to anything: why not. ``code`` is for programs, ``reason`` for people."""

    code: Name
    reason: Text = ""


NOT_FOUND, BUSY, BAD_REQUEST, UNKNOWN_KIND = "not-found", "busy", "bad-request", "unknown-kind"

REQUESTS: dict[str, type[Get | Have]] = {"get": Get, "have": Have}
CONTENT_ANSWERS: dict[str, type[Content | Error]] = {"content": Content, "error": Error}
SIZES_ANSWERS: dict[str, type[Sizes | Error]] = {"sizes": Sizes, "error": Error}


class FrameError(ValueError):
    """The remote's bytes are not a frame that is allowed here."""


class StreamEnded(Exception):
    """The stream ended before what was waited for had come."""


def frame(body: bytes) -> bytes:
    """``body`` behind its length, an unsigned varint."""
    head, rest = bytearray(), len(body)
    while rest > 0x7F:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    return bytes(head) + body


def message_frame(message: Message) -> bytes:
    return frame(codec.encode(message))


class FrameReader:
    """Frames off a stream, one at a time; holds at most one of them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read_message(self, kinds: dict[str, type[_M]]) -> _M:
        """One message. Raises FrameError, StreamEnded, RemoteProtocolError, UnknownKind."""
        return codec.decode(await self.read(MESSAGE_BYTES_MAX), kinds, max_bytes=MESSAGE_BYTES_MAX)

    async def read(self, max_bytes: int) -> bytes:
        """The body of the next frame. Raises FrameError beyond ``max_bytes``, before reading it; StreamEnded."""
        length = await self._read_length()
        if length > max_bytes:
            raise FrameError(f"a frame of {length} bytes where {max_bytes} are allowed")
        while len(self._buffer) < length:
            await self._fill(length - len(self._buffer))
        body = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        return body

    async def _read_length(self) -> int:
        length = 0
        for position in range(_LENGTH_BYTES_MAX):
            if not self._buffer:
                await self._fill(1)
            byte = self._buffer.pop(0)
            length |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                if byte == 0 and position:
                    break
                return length
        raise FrameError("the length of a frame is not a shortest varint of at most 4 bytes")

    async def _fill(self, wanted: int) -> None:
        data = await self._stream.read_some(max(wanted, _READ_BYTES))
        if not data:
            raise StreamEnded("the stream ended early")
        self._buffer += data
