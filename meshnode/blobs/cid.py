"""Content identifiers: the name of a block is the hash of its bytes.

Written as CIDv1 in base32 (multibase ``b``), SHA-256 only: ``bafkrei…`` names raw bytes, ``bafybei…`` a dag-pb node.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

import base58

RAW = 0x55
DAG_PB = 0x70
_CODECS = (RAW, DAG_PB)

_SHA2_256 = b"\x12\x20"  # multihash: function sha2-256, 32 bytes
BINARY_BYTES = 36
_TEXT_CHARS = 59
_V0_CHARS = 46


@dataclass(frozen=True, slots=True)
class Cid:
    """What a CID says: how to read the block (RAW or DAG_PB) and the SHA-256 of its bytes."""

    codec: int
    digest: bytes

    def __str__(self) -> str:
        return "b" + base64.b32encode(bytes(self)).decode().rstrip("=").lower()

    def __bytes__(self) -> bytes:
        return bytes((1, self.codec)) + _SHA2_256 + self.digest

    @classmethod
    def of(cls, codec: int, block: bytes) -> Cid:
        """The name of ``block``."""
        return cls(codec, hashlib.sha256(block).digest())

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """Read the binary form of CIDv1. Raises ValueError."""
        if len(data) != BINARY_BYTES:
            raise ValueError(f"a binary CID has {BINARY_BYTES} bytes, not {len(data)}")
        if data[0] != 1:
            raise ValueError(f"CID version {data[0]} is not supported")
        if data[1] not in _CODECS:
            raise ValueError(f"CID codec 0x{data[1]:02x} is neither raw (0x55) nor dag-pb (0x70)")
        if data[2:4] != _SHA2_256:
            raise ValueError("the CID's hash is not SHA-256")
        return cls(data[1], data[4:])


def parse(text: str) -> Cid:
    """Read a CID. Raises ValueError, saying what is wrong.

    CIDv0 (``Qm…``) is read too: it is an older spelling of a dag-pb CIDv1, and comes out as that.
    """
    if text.startswith("Qm"):
        return _parse_v0(text)
    shown = repr(text[:80])
    if not text.startswith("b"):
        raise ValueError(f"{shown} is not a CID: it starts with neither 'b' (CIDv1, base32) nor 'Qm' (CIDv0)")
    if len(text) != _TEXT_CHARS:
        raise ValueError(f"{shown} is not a CID: {len(text)} characters instead of {_TEXT_CHARS}")
    try:
        data = base64.b32decode(text[1:].upper() + "=" * 6)
    except (binascii.Error, ValueError):
        raise ValueError(f"{shown} is not a CID: not base32") from None
    try:
        cid = Cid.from_bytes(data)
    except ValueError as error:
        raise ValueError(f"{shown} is not a CID for blobs: {error}") from None
    if str(cid) != text:  # upper case, or bits set behind the last byte
        raise ValueError(f"{shown} is not a CID in its canonical spelling, {cid}")
    return cid


def _parse_v0(text: str) -> Cid:
    shown = repr(text[:80])
    if len(text) != _V0_CHARS:
        raise ValueError(f"{shown} is not a CIDv0: {len(text)} characters instead of {_V0_CHARS}")
    try:
        data = base58.b58decode(text)
    except ValueError:
        raise ValueError(f"{shown} is not a CIDv0: not base58") from None
    if len(data) != 34 or not data.startswith(_SHA2_256):
        raise ValueError(f"{shown} is not a CIDv0: its hash is not SHA-256")
    return Cid(DAG_PB, data[2:])


def canonical(text: str) -> str:
    """The one spelling of a CID that files and messages use. Raises ValueError."""
    return str(parse(text))


def digest_of(text: str) -> bytes:
    """The 32-byte SHA-256 in a CID. Raises ValueError."""
    return parse(text).digest
