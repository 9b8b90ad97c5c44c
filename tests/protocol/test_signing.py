"""A signature stands for one record of one kind, byte for byte."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import UnknownKind
from protocol.errors import RemoteProtocolError
from protocol.identity import Ed25519Verifier, PeerId
from protocol.records import AnyRecord, Cancel, Capability, Held, Record
from protocol.signing import RECORD_KINDS, RecordReader, Signed, sign, signing_input
from tests.protocol import samples
from tests.protocol.mesh import signer

RECORDS = samples.every_record()
KINDS = sorted(RECORDS)


def reader() -> RecordReader:
    return RecordReader(Ed25519Verifier())


def test_every_kind_of_record_is_known_and_has_a_sample() -> None:
    declared = {str(kind.__struct_config__.tag) for kind in Record.__subclasses__()}
    assert declared == set(RECORD_KINDS) == set(RECORDS)
    assert set(RECORD_KINDS.values()) == set(AnyRecord.__args__)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_record_opens_as_what_it_is(kind: str) -> None:
    opened = RECORDS[kind]
    assert reader().open_any(opened.signed) == opened
    assert reader().open(opened.signed, type(opened.record)) == opened


@pytest.mark.parametrize(("kind", "wanted"), [*permutations(KINDS, 2)])
def test_a_record_never_passes_as_another_kind(kind: str, wanted: str) -> None:
    with pytest.raises(RemoteProtocolError, match="was expected"):
        reader().open(RECORDS[kind].signed, RECORD_KINDS[wanted])


@pytest.mark.parametrize(("kind", "other"), [*permutations(KINDS, 2)])
def test_a_signature_over_one_kind_does_not_cover_another(kind: str, other: str) -> None:
    """Even if somebody signs a payload under the wrong domain, the payload's own kind decides."""
    opened = RECORDS[kind]
    keys = {key.peer_id: key for key in map(signer, ("ann", "bob", "submitter", "publisher"))}
    key = keys[opened.record.signer]
    crossed = Signed(payload=opened.signed.payload, signature=key.sign(signing_input(other, opened.signed.payload)))
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        reader().open_any(crossed)


def test_a_bare_signature_over_the_payload_does_not_count() -> None:
    payload = RECORDS["capability"].signed.payload
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        reader().open_any(Signed(payload=payload, signature=signer("ann").sign(payload)))


def test_what_is_signed_is_length_prefixed() -> None:
    assert signing_input("held", b"\xa0") == (
        b"\x00\x00\x00\x0ameshnode/1" + b"\x00\x00\x00\x04held" + b"\x00\x00\x00\x01\xa0"
    )


parts = st.tuples(st.text(st.characters(codec="ascii"), max_size=5), st.binary(max_size=5))


@given(one=parts, other=parts)
def test_different_parts_never_make_the_same_input(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assert (signing_input(*one) == signing_input(*other)) == (one == other)


@given(data=st.data())
def test_any_byte_flipped_is_refused(data: st.DataObject) -> None:
    signed = RECORDS[data.draw(st.sampled_from(KINDS))].signed
    whole = bytearray(signed.signature + signed.payload)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    flipped = Signed(payload=bytes(whole[64:]), signature=bytes(whole[:64]))
    with pytest.raises(RemoteProtocolError):
        reader().open_any(flipped)


def test_the_signer_is_the_one_named_inside() -> None:
    record = Cancel(job=bytes(32), submitter=signer("ann").peer_id, issued_at=1)
    with pytest.raises(AssertionError, match="signed by the peer it names"):
        sign(record, signer("bob"))
    payload = sign(record, signer("ann")).signed.payload
    stolen = Signed(payload=payload, signature=signer("bob").sign(signing_input("cancel", payload)))
    with pytest.raises(RemoteProtocolError, match="bad signature on a Cancel"):
        reader().open_any(stolen)


def test_a_record_of_a_later_version_is_told_apart() -> None:
    payload = RECORDS["cancel"].signed.payload.replace(b"fcancel", b"fcancer")
    with pytest.raises(UnknownKind):
        reader().open_any(Signed(payload=payload, signature=bytes(64)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_names_its_signer(kind: str) -> None:
    record: Any = RECORDS[kind].record
    assert record.signer in [getattr(record, name) for name in record.__struct_fields__]


# -- the reader's memory --------------------------------------------------------------------------------------


class Counting:
    """Counts how often a signature is checked."""

    def __init__(self) -> None:
        self.checks = 0

    def verify(self, signer: PeerId, message: bytes, signature: bytes) -> bool:
        self.checks += 1
        return Ed25519Verifier().verify(signer, message, signature)


def held(number: int) -> Signed:
    return samples.held(until=number).signed


def test_a_record_seen_again_is_not_verified_again() -> None:
    counting = Counting()
    one = RecordReader(counting)
    assert one.open(held(1), Held) is one.open(held(1), Held)
    assert counting.checks == 1


def test_the_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    counting = Counting()
    one = RecordReader(counting, records_max=3)
    for number in (1, 2, 3, 1, 4):
        one.open(held(number), Held)
    assert counting.checks == 4
    one.open(held(1), Held)
    assert counting.checks == 4, "used lately, still known"
    one.open(held(2), Held)
    assert counting.checks == 5, "the longest unused was forgotten"


def test_a_forgery_is_neither_remembered_nor_helped_by_memory() -> None:
    counting = Counting()
    one = RecordReader(counting)
    good = held(1)
    one.open(good, Held)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            one.open(samples.forged(good), Held)
    assert counting.checks == 3


def test_a_remembered_record_is_still_no_other_kind() -> None:
    one = reader()
    one.open(held(1), Held)
    with pytest.raises(RemoteProtocolError, match="a Held where a Capability was expected"):
        one.open(held(1), Capability)


def test_the_digest_is_of_the_payload_alone() -> None:
    signed = held(1)
    assert signed.digest == msgspec.structs.replace(signed, signature=bytes(64)).digest
