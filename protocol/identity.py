"""Who speaks: Ed25519 keys and the libp2p peer ids made from them.

A peer id is libp2p's: base58btc of the identity multihash of the public key's protobuf, so that the key can be read
back from the id and nobody needs a directory of keys (libp2p specs, ``peer-ids/peer-ids.md``). Submitters and
publishers are named in the same way.
"""

from __future__ import annotations

from typing import NewType, Protocol

import base58
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

PeerId = NewType("PeerId", str)

SEED_BYTES = 32
SIGNATURE_BYTES = 64
_PUBLIC_KEY_BYTES = 32
# identity multihash (0x00) of 36 bytes: protobuf {1: key type Ed25519 = 1, 2: 32 bytes}
_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))


class Signer(Protocol):
    """A private key that can only sign."""

    @property
    def peer_id(self) -> PeerId: ...

    def sign(self, message: bytes) -> bytes: ...


class Verifier(Protocol):
    """Tells whether ``signer`` signed ``message``; False for any bad input, never an exception."""

    def verify(self, signer: PeerId, message: bytes, signature: bytes) -> bool: ...


def peer_id_of(public_key: bytes) -> PeerId:
    """The peer id of a 32-byte Ed25519 public key."""
    if len(public_key) != _PUBLIC_KEY_BYTES:
        raise ValueError(f"an Ed25519 public key has {_PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
    return PeerId(base58.b58encode(_PREFIX + public_key).decode("ascii"))


def public_key_of(peer_id: str) -> bytes:
    """The 32-byte public key inside a peer id; ValueError if it is not the id of an Ed25519 key."""
    try:
        raw: bytes = base58.b58decode(peer_id)
    except ValueError:
        raise ValueError(f"not a peer id: {peer_id[:80]!r}") from None
    if len(raw) != len(_PREFIX) + _PUBLIC_KEY_BYTES or not raw.startswith(_PREFIX):
        raise ValueError(f"not the peer id of an Ed25519 key: {peer_id[:80]!r}")
    return raw[len(_PREFIX) :]


class Ed25519Signer:
    """Signs with a 32-byte seed. Signatures are deterministic (RFC 8032), so signing is a pure function."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self._peer_id = peer_id_of(bytes(self._key.verify_key))

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    def sign(self, message: bytes) -> bytes:
        return bytes(self._key.sign(message).signature)


class Ed25519Verifier:
    """Checks signatures against the key inside the signer's peer id."""

    def verify(self, signer: PeerId, message: bytes, signature: bytes) -> bool:
        try:
            VerifyKey(public_key_of(signer)).verify(message, signature)
        except (ValueError, BadSignatureError):
            return False
        return True
