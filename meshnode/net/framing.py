"""Frames on a byte stream: an unsigned varint length, then that many bytes. No I/O here.

The length uses the shortest LEB128 form and is at most 4 bytes long (28 bits), so a frame has exactly one
encoding and a length is refused before anything is allocated for it.
"""

from __future__ import annotations

from meshnode.net.errors import FramingError

_LENGTH_BYTES = 4
LARGEST_FRAME = (1 << 7 * _LENGTH_BYTES) - 1
"""Bytes; what the length field can say. Users of frames state a smaller maximum."""


def encode_frame(payload: bytes) -> bytes:
    """The frame of `payload`. Raises ValueError beyond LARGEST_FRAME bytes."""
    length = len(payload)
    if length > LARGEST_FRAME:
        raise ValueError(f"a frame of {length} bytes is over the largest, {LARGEST_FRAME}")
    head = bytearray()
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + payload


class FrameDecoder:
    """Cuts a byte stream into payloads, holding at most one unfinished frame.

    Once `feed` has raised, the stream is without meaning and so is the decoder.
    """

    def __init__(self, max_payload: int) -> None:
        if not 0 <= max_payload <= LARGEST_FRAME:
            raise ValueError(f"max_payload must be within 0 and {LARGEST_FRAME}, not {max_payload}")
        self._max_payload = max_payload
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes held of a frame that has not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes, in order. Raises FramingError; never anything else."""
        self._buffer += data
        payloads: list[bytes] = []
        start = 0
        while (head := self._read_length(start)) is not None:
            body, length = head
            if len(self._buffer) - body < length:
                break
            payloads.append(bytes(self._buffer[body : body + length]))
            start = body + length
        del self._buffer[:start]
        return payloads

    def _read_length(self, start: int) -> tuple[int, int] | None:
        """(where the payload begins, its length), or None if the length has not fully arrived."""
        length = 0
        for index, byte in enumerate(self._buffer[start : start + _LENGTH_BYTES]):
            length |= (byte & 0x7F) << 7 * index
            if byte & 0x80:
                continue
            if byte == 0 and index > 0:
                raise FramingError("a frame length is not in its shortest form")
            if length > self._max_payload:
                raise FramingError(f"a frame of {length} bytes is over the limit of {self._max_payload}")
            return start + index + 1, length
        if len(self._buffer) - start >= _LENGTH_BYTES:
            raise FramingError(f"a frame length is longer than {_LENGTH_BYTES} bytes")
        return None
