"""The test vectors that the specifications quote: what this code makes, and checked by hand against the rules."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import base58
import cbor2
import pytest
from nacl.signing import VerifyKey

from protocol.chain import Chain
from protocol.codec import decode, decode_as
from protocol.decrees import Certificate, FinalBody
from protocol.errors import RemoteProtocolError
from protocol.facts import FACT_KINDS, key_of
from protocol.identity import Ed25519Verifier
from protocol.limits import RECORD_BYTES_MAX
from protocol.messages import MESSAGE_KINDS, decode_message, encode_message
from protocol.records import JobSpec, Vote
from protocol.signing import RECORD_KINDS, RecordReader, Signed
from tests.protocol.make_vectors import FOLDER, text_of, vectors

FILES = sorted(vectors())


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_this_code_makes_exactly_these_vectors(name: str) -> None:
    assert (FOLDER / name).read_text() == text_of(vectors()[name]), "a change of the wire, or of a sample?"


def test_there_are_no_other_files() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.json")) == FILES


def public_key(peer_id: str) -> bytes:
    raw = base58.b58decode(peer_id)
    assert raw[:6] == bytes.fromhex("002408011220")
    return bytes(raw[6:])


@pytest.mark.parametrize("vector", read("identity.json"), ids=lambda vector: vector["name"])
def test_identities(vector: dict[str, str]) -> None:
    assert hashlib.sha256(vector["name"].encode()).hexdigest() == vector["seed"]
    assert public_key(vector["peer_id"]).hex() == vector["public_key"]
    key = VerifyKey(bytes.fromhex(vector["public_key"]))
    key.verify(bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"]))


def test_every_kind_of_record_and_message_has_a_vector() -> None:
    assert set(read("records.json")) == set(RECORD_KINDS)
    assert set(read("frames.json")) == set(MESSAGE_KINDS)


@pytest.mark.parametrize("kind", sorted(RECORD_KINDS))
def test_records(kind: str) -> None:
    vector: dict[str, str] = read("records.json")[kind]
    payload = bytes.fromhex(vector["payload"])
    value = cbor2.loads(payload)
    assert value["kind"] == kind
    assert cbor2.dumps(value, canonical=True) == payload
    parts = (b"meshnode/1", kind.encode(), payload)
    signed = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    assert signed.hex() == vector["signing_input"]
    VerifyKey(public_key(vector["signer"])).verify(signed, bytes.fromhex(vector["signature"]))
    assert hashlib.sha256(payload).hexdigest() == vector["digest"]
    assert decode(payload, RECORD_KINDS, max_bytes=RECORD_BYTES_MAX).signer == vector["signer"]


@pytest.mark.parametrize("kind", sorted(MESSAGE_KINDS))
def test_frames(kind: str) -> None:
    frame = bytes.fromhex(read("frames.json")[kind])
    message = decode_message(frame)
    assert type(message) is MESSAGE_KINDS[kind]
    assert encode_message(message) == frame
    assert cbor2.loads(frame)["kind"] == kind


def test_draws_and_ties() -> None:
    vector = read("auction.json")
    announcement = bytes.fromhex(vector["announcement"])
    for lot in vector["lots"]:
        hashed = hashlib.sha256(lot["purpose"].encode() + b"/" + announcement + b"/" + lot["peer"].encode()).digest()
        assert int.from_bytes(hashed[:8], "big") // 2 == lot["lot"]
    for tie in vector["ties"]:
        assert hashlib.sha256(b"tie/" + announcement + b"/" + tie["peer"].encode()).hexdigest() == tie["tie"]
    for one in vector["thresholds"]:
        certain = 2**63 - 1
        expected = certain if one["candidates"] <= one["wanted"] else certain * one["wanted"] // one["candidates"]
        assert one["threshold"] == expected


def test_sketches() -> None:
    vector = read("mesh-size.json")

    def value(peer: str) -> int:
        hashed = hashlib.blake2b(f"{vector['epoch']}/{peer}".encode(), digest_size=8).digest()
        return int.from_bytes(hashed, "big") // 2

    assert all(value(one["peer"]) == one["value"] for one in vector["values"])
    for sketch in vector["sketches_of_peer_0_to_n"]:
        smallest = sorted(value(f"peer-{number}") for number in range(sketch["peers"]))[: vector["k"]]
        assert sketch["values"] == smallest
        full = len(smallest) == vector["k"]
        assert sketch["estimate"] == ((vector["k"] - 1) * 2**63 // smallest[-1] if full else len(smallest))


def test_rendezvous() -> None:
    vector = read("rendezvous.json")
    alias = f"alias/{vector['submitter']}/{vector['alias']}"
    model = f"model/{vector['model']}"
    assert vector["keys"] == {
        "job": vector["job"][:8],
        "alias": hashlib.sha256(alias.encode()).hexdigest()[:8],
        "model": hashlib.sha256(model.encode()).hexdigest()[:8],
    }
    for name, order in vector["nearest_first"].items():
        key = _place(b"key/" + bytes.fromhex(vector["keys"][name]))
        gaps = {peer: abs(key - _place(b"peer/" + peer.encode())) for peer in order}
        assert order == sorted(order, key=lambda peer: min(gaps[peer], 2**64 - gaps[peer]))


def _place(name: bytes) -> int:
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


# -- the record of a job --------------------------------------------------------------------------------------

RECORD = read("record.json")


def certificates(*encoded: str) -> list[Certificate]:
    return [decode_as(bytes.fromhex(one), Certificate, max_bytes=RECORD_BYTES_MAX) for one in encoded]


def chain_of(count: int) -> Chain:
    """The first so many certificates of the vector's chain."""
    reader, spec = RecordReader(Ed25519Verifier()), RECORD["spec"]
    signed = Signed(payload=bytes.fromhex(spec["payload"]), signature=bytes.fromhex(spec["signature"]))
    chain = Chain(reader.open(signed, JobSpec), lambda vote: reader.open(vote, Vote))
    assert chain.extend(certificates(*RECORD["chain"][:count])) == (count > 0)
    return chain


def test_every_kind_of_fact_has_a_key() -> None:
    mark = 0
    for vector in RECORD["facts"]:
        encoded = bytes.fromhex(vector["bytes"])
        value = cbor2.loads(encoded)
        assert value["kind"] == vector["kind"]
        records = [inner["payload"] for inner in value.values() if isinstance(inner, dict) and "payload" in inner]
        assert hashlib.sha256(records[0] if records else encoded).hexdigest()[:16] == vector["key"]
        fact: Any = decode(encoded, FACT_KINDS, max_bytes=RECORD_BYTES_MAX)
        assert key_of(fact).hex() == vector["key"]
        mark ^= int(vector["key"], 16)
    assert [vector["kind"] for vector in RECORD["facts"]] == list(FACT_KINDS)
    assert f"{mark:016x}" == RECORD["mark"]


def test_digests_of_decrees_and_bodies() -> None:
    for name in ("next", "final", "body"):
        encoded = bytes.fromhex(RECORD[name]["bytes"])
        assert cbor2.dumps(cbor2.loads(encoded), canonical=True) == encoded
        assert hashlib.sha256(encoded).hexdigest() == RECORD[name]["digest"]
    assert cbor2.loads(bytes.fromhex(RECORD["final"]["bytes"]))["body"].hex() == RECORD["body"]["digest"]


def test_what_a_chain_says() -> None:
    chain = chain_of(2)
    shown = [
        {
            "holders": [{"peer": holder.peer, "store": holder.store.hex()} for holder in one.holders],
            "steward": one.steward,
        }
        for one in chain.configurations
    ]
    assert shown == RECORD["configurations"]
    assert chain.certifies(decode_as(bytes.fromhex(RECORD["body"]["bytes"]), FinalBody, max_bytes=RECORD_BYTES_MAX))
    for encoded in RECORD["chain"]:
        value = cbor2.loads(bytes.fromhex(encoded))
        voted = hashlib.sha256(cbor2.dumps(value["decree"], canonical=True)).digest()
        assert {cbor2.loads(vote["payload"])["decree"] for vote in value["votes"]} == {voted}


@pytest.mark.parametrize("vector", RECORD["invalid"], ids=lambda vector: vector["why"])
def test_a_certificate_that_is_none(vector: dict[str, Any]) -> None:
    chain = chain_of(vector["after"])
    with pytest.raises(RemoteProtocolError):
        chain.extend(certificates(vector["certificate"]))
    assert len(chain.certificates) == vector["after"]


@pytest.mark.parametrize("vector", RECORD["not_next"], ids=lambda vector: vector["why"])
def test_a_certificate_that_does_not_follow_is_passed_over(vector: dict[str, Any]) -> None:
    chain = chain_of(vector["after"])
    assert not chain.extend(certificates(vector["certificate"]))
