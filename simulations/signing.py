"""A stand-in for Ed25519 behind the same interfaces: a keyed hash, some thirty times cheaper.

One secret key makes all signatures of a world; a signer's name goes into the hash. Only its own ``KeyedSigner`` signs
for a peer, so nobody in the world can forge.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

from protocol.errors import RemoteProtocolError
from protocol.identity import SEED_BYTES, SIGNATURE_BYTES, PeerId, Verifier, peer_id_of
from protocol.records import Record
from protocol.signing import Opened, RecordReader, Signed

R = TypeVar("R", bound=Record)

_RECORDS_REMEMBERED = 1 << 17
_BYTES_REMEMBERED = 1 << 30


class KeyedSigner:
    def __init__(self, key: bytes, seed: bytes) -> None:
        self._key = key
        self._peer_id = peer_id_of(hashlib.blake2b(seed, digest_size=SEED_BYTES).digest())

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    def sign(self, message: bytes) -> bytes:
        return _signature(self._key, self._peer_id, message)


class KeyedVerifier:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def verify(self, signer: PeerId, message: bytes, signature: bytes) -> bool:
        return signature == _signature(self._key, signer, message)


class SharedReader(RecordReader):
    """One reader opens the records of a whole world: opening is pure, so all peers may share what it remembers.

    In a world the same object goes from peer to peer, so what was opened is mostly known by its identity.
    """

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier, records_max=_RECORDS_REMEMBERED, bytes_max=_BYTES_REMEMBERED)
        self._same: dict[int, Opened[Record]] = {}
        """By the identity of the signed object, which each of these keeps alive."""

    def open(self, signed: Signed, kind: type[R]) -> Opened[R]:
        opened = self._same.get(id(signed))
        if opened is None or opened.signed is not signed:
            opened = self.open_any(signed)
            if opened.signed is signed:
                if len(self._same) >= _RECORDS_REMEMBERED:
                    self._same.clear()
                self._same[id(signed)] = opened
        if not isinstance(opened.record, kind):
            raise RemoteProtocolError(f"a {type(opened.record).__name__} where a {kind.__name__} was expected")
        return opened  # type: ignore[return-value]


def _signature(key: bytes, signer: PeerId, message: bytes) -> bytes:
    return hashlib.blake2b(signer.encode() + message, digest_size=SIGNATURE_BYTES, key=key).digest()
