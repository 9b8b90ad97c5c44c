"""Peer ids are libp2p's."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.identity import Ed25519Signer, Ed25519Verifier, PeerId, peer_id_of, public_key_of

VERIFIER = Ed25519Verifier()

# libp2p specs, peer-ids/peer-ids.md, "Test vectors", Ed25519: the public key as protobuf, {1: Ed25519, 2: key}
SPEC_PROTOBUF = bytes.fromhex("080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
SPEC_PRIVATE = bytes.fromhex(
    "08011240"
    "7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
    "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
)
# RFC 8032, section 7.1, test 2: one byte signed
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_the_key_of_the_libp2p_specification() -> None:
    """An id is base58btc of: identity multihash, 36 bytes, the protobuf of the key."""
    signer = Ed25519Signer(SPEC_PRIVATE[4:36])
    assert signer.peer_id == base58.b58encode(b"\x00\x24" + SPEC_PROTOBUF).decode()
    assert signer.peer_id == "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    assert public_key_of(signer.peer_id) == SPEC_PROTOBUF[4:]


def test_a_peer_id_that_others_publish() -> None:
    """The example id of the libp2p specification, ``peer-ids.md``, "Ed25519"."""
    public = public_key_of("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
    assert len(public) == 32
    assert peer_id_of(public) == "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"


def test_a_signature_of_rfc_8032() -> None:
    signer = Ed25519Signer(RFC_SEED)
    assert public_key_of(signer.peer_id) == RFC_PUBLIC
    assert signer.sign(b"\x72") == RFC_SIGNATURE
    assert VERIFIER.verify(signer.peer_id, b"\x72", RFC_SIGNATURE)


@given(public=st.binary(min_size=32, max_size=32))
def test_the_key_can_be_read_back_from_the_id(public: bytes) -> None:
    assert public_key_of(peer_id_of(public)) == public


@given(public=st.binary(max_size=64).filter(lambda key: len(key) != 32))
def test_a_key_of_another_length_has_no_id(public: bytes) -> None:
    with pytest.raises(ValueError, match="has 32 bytes"):
        peer_id_of(public)


@given(text=st.text(max_size=80))
def test_any_other_text_is_no_peer_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a peer id|not the peer id"):
        public_key_of(text)


RSA_ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize("text", ["", RSA_ID, "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p", "\n12D3Koo"])
def test_what_is_no_ed25519_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not"):
        public_key_of(text)


@given(message=st.binary(max_size=40), at=st.integers(0, 63), bit=st.integers(0, 7))
def test_a_changed_signature_does_not_verify(message: bytes, at: int, bit: int) -> None:
    signer = Ed25519Signer(RFC_SEED)
    signature = bytearray(signer.sign(message))
    assert VERIFIER.verify(signer.peer_id, message, bytes(signature))
    assert not VERIFIER.verify(signer.peer_id, message + b"x", bytes(signature))
    signature[at] ^= 1 << bit
    assert not VERIFIER.verify(signer.peer_id, message, bytes(signature))


@given(signer=st.text(max_size=60), message=st.binary(max_size=8), signature=st.binary(max_size=80))
def test_bad_input_is_false_and_no_exception(signer: str, message: bytes, signature: bytes) -> None:
    assert not VERIFIER.verify(PeerId(signer), message, signature)
    assert not VERIFIER.verify(Ed25519Signer(RFC_SEED).peer_id, message, signature)
