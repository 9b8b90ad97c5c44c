"""Signed envelopes: record bytes, signature, and the domain that keeps one kind from passing as another.

The signature covers the received payload bytes, never a re-encoding of them. What is signed is length-prefixed
(domain, kind, payload), after libp2p's RFC 0002 "signed envelopes".
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

import msgspec

from protocol import codec, records
from protocol.errors import RemoteProtocolError
from protocol.identity import Signer, Verifier
from protocol.limits import DEFAULT_LIMITS, RECORD_BYTES_MAX
from protocol.records import Record
from protocol.wire import Payload, SignatureBytes, Wire

DOMAIN = b"meshnode/1"

RECORD_KINDS: dict[str, type[Record]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        records.Capability,
        records.JobSpec,
        records.Announcement,
        records.Award,
        records.Receipt,
        records.Vote,
        records.Cancel,
        records.Held,
        records.JobPointer,
        records.ModelPointer,
    )
}

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


class Signed(Wire, frozen=True, kw_only=True):
    """The bytes of a record and the signature over them; the signer is named inside."""

    payload: Payload
    signature: SignatureBytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: how other records refer to this one."""
        return hashlib.sha256(self.payload).digest()


class Opened(msgspec.Struct, Generic[R_co], frozen=True):
    """A record whose signature has been checked."""

    record: R_co
    digest: bytes
    signed: Signed


def signing_input(kind: str, payload: bytes) -> bytes:
    """What the signature covers: each part with its length in front (4 bytes, big endian)."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (DOMAIN, kind.encode("ascii"), payload))


def sign(record: R, signer: Signer) -> Opened[R]:
    """Encode and sign; the record must name ``signer`` as its signer."""
    assert record.signer == signer.peer_id, "a record is signed by the peer it names"
    payload = codec.encode(record)
    assert len(payload) <= RECORD_BYTES_MAX, f"a record of {len(payload)} bytes"
    kind = str(record.__struct_config__.tag)
    signed = Signed(payload=payload, signature=signer.sign(signing_input(kind, payload)))
    return Opened(record, signed.digest, signed)


class RecordReader:
    """Opens signed records, remembering the latest good ones: a flooded record is verified once.

    Bounded by ``records_max`` and, as payloads differ in size, by ``bytes_max``.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        records_max: int = DEFAULT_LIMITS.reader_records_max,
        bytes_max: int = DEFAULT_LIMITS.reader_bytes_max,
    ) -> None:
        self._verifier = verifier
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._opened: OrderedDict[tuple[bytes, bytes], Opened[Record]] = OrderedDict()

    def open(self, signed: Signed, kind: type[R]) -> Opened[R]:
        """The record inside, if it is of ``kind`` and properly signed; else RemoteProtocolError."""
        opened = self.open_any(signed)
        if not isinstance(opened.record, kind):
            raise RemoteProtocolError(f"a {type(opened.record).__name__} where a {kind.__name__} was expected")
        return opened  # type: ignore[return-value]

    def open_any(self, signed: Signed) -> Opened[Record]:
        """The record inside, of any known kind."""
        key = (signed.payload, signed.signature)
        if (known := self._opened.get(key)) is not None:
            self._opened.move_to_end(key)
            return known
        record = codec.decode(signed.payload, RECORD_KINDS, max_bytes=RECORD_BYTES_MAX)
        message = signing_input(str(record.__struct_config__.tag), signed.payload)
        if not self._verifier.verify(record.signer, message, signed.signature):
            raise RemoteProtocolError(f"bad signature on a {type(record).__name__} of {record.signer[:16]}")
        opened = Opened(record, signed.digest, signed)
        self._opened[key] = opened
        self._bytes += len(signed.payload)
        while len(self._opened) > self._records_max or self._bytes > self._bytes_max:
            (payload, _), _ = self._opened.popitem(last=False)
            self._bytes -= len(payload)
        return opened
