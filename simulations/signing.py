"""A stand-in for Ed25519 behind the same interfaces: a keyed hash, some thirty times cheaper.

One secret key makes all signatures of a world; a signer's name goes into the hash. Only its own ``KeyedSigner`` signs
for a peer, so nobody in the world can forge.
"""

from __future__ import annotations

import hashlib

from protocol.identity import SEED_BYTES, SIGNATURE_BYTES, PeerId, peer_id_of


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


def _signature(key: bytes, signer: PeerId, message: bytes) -> bytes:
    return hashlib.blake2b(signer.encode() + message, digest_size=SIGNATURE_BYTES, key=key).digest()
