"""Whatever bytes arrive: a value, ``UnknownKind`` or ``RemoteProtocolError``, and never anything else."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.limits import (
    CID_CHARS_MAX,
    FRAME_BYTES_MAX,
    NESTING_MAX,
    RECORD_BYTES_MAX,
    RECORDS_PER_MESSAGE_MAX,
    TEXT_CHARS_MAX,
)
from protocol.messages import (
    MESSAGE_KINDS,
    Ack,
    Disconnect,
    JoinRefused,
    Message,
    OfferAccepted,
    Ping,
    ShuffleReply,
    decode_message,
    encode_message,
)
from protocol.signing import RECORD_KINDS, Signed
from tests.protocol.samples import every_message, every_record

FRAMES = [encode_message(message) for message in every_message().values()]
ACK = {"kind": "ack", "number": 9, "wall_ms": 1_800_000_000_000}


def packed(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def outcome(data: bytes) -> Message | None:
    """The message, or None; any other exception fails the test."""
    try:
        return decode_message(data)
    except RemoteProtocolError:
        return None


def refusal(data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(data)
    assert not isinstance(caught.value, codec.UnknownKind)
    return str(caught.value)


# -- what is accepted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", every_message().values(), ids=every_message())
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize("opened", every_record().values(), ids=every_record())
def test_every_record_comes_back_as_it_was(opened: object) -> None:
    signed = opened.signed  # type: ignore[attr-defined]
    assert codec.decode(signed.payload, RECORD_KINDS, max_bytes=RECORD_BYTES_MAX) == opened.record  # type: ignore[attr-defined]


def test_a_value_at_its_default_is_not_sent() -> None:
    assert encode_message(Disconnect()) == packed({"kind": "disconnect"})
    assert decode_message(packed({"kind": "disconnect", "leaving": False})) == Disconnect()


def test_a_field_of_a_later_version_is_skipped() -> None:
    later = {**ACK, "mood": {"good": [True, None, b"\x00", -5, "very"]}}
    assert decode_message(packed(later)) == Ack(number=9, wall_ms=1_800_000_000_000)


def test_a_kind_of_a_later_version_is_told_apart_from_garbage() -> None:
    with pytest.raises(codec.UnknownKind, match="unknown kind 'dance'"):
        decode_message(packed({"kind": "dance", "steps": 3}))


def test_a_long_unknown_kind_is_not_repeated_at_length() -> None:
    with pytest.raises(codec.UnknownKind) as caught:
        decode_message(packed({"kind": "x" * 100_000}))
    assert len(str(caught.value)) < 200


# -- arbitrary bytes ------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_a_message_or_refused(data: bytes) -> None:
    outcome(data)


@given(data=st.data())
def test_a_mutated_frame_is_a_message_or_refused(data: st.DataObject) -> None:
    frame = bytearray(data.draw(st.sampled_from(FRAMES)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(("flip", "delete", "insert", "cut"))):
            case "flip":
                frame[at] ^= data.draw(st.integers(1, 255))
            case "delete" if len(frame) > 1:
                del frame[at]
            case "insert":
                frame[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            case "cut":
                del frame[at + 1 :]
    outcome(bytes(frame))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.text(max_size=8) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(sorted({name for kind in MESSAGE_KINDS.values() for name in kind.__struct_fields__})) | st.text(),
    PLAIN,
    max_size=6,
)


@given(kind=st.sampled_from(sorted(MESSAGE_KINDS)), fields=FIELDS)
def test_well_formed_cbor_of_any_shape_is_a_message_or_refused(kind: str, fields: dict[str, object]) -> None:
    outcome(packed({**fields, "kind": kind}))


@given(data=st.binary(max_size=60) | st.sampled_from(FRAMES))
def test_what_is_accepted_has_one_encoding(data: bytes) -> None:
    """Two different frames never mean the same generic value: nobody can vary the bytes of what was signed."""
    if outcome(data) is not None:
        assert packed(cbor2.loads(data)) == data


@given(value=PLAIN.filter(lambda value: not isinstance(value, dict)))
def test_anything_but_a_map_is_refused(value: object) -> None:
    assert refusal(packed(value)) == "not a map with a kind"


# -- bombs, and everything CBOR has that this protocol does not -----------------------------------------------

NOT_ALLOWED = {
    "empty": b"",
    "a tag, 28: shared value": b"\xa2dkindcackfnumber\xd8\x1c\x09",
    "a tag, 29: reference": b"\xa2dkindcackfnumber\xd8\x1d\x00",
    "a tag, 35: regular expression": b"\xa2dkindcackfnumber\xd8\x23ba+",
    "a tag, 0: date": b"\xa2dkindcackfnumber\xc0\x741970-01-01T00:00:00Z"[:40],
    "a tag, 2: bignum": b"\xa2dkindcackfnumber\xc2\x49\x01" + bytes(8),
    "a tag, 258: set": b"\xa2dkindcackfnumber\xd9\x01\x02\x81\x01",
    "a tag, 55799: self-described": b"\xd9\xd9\xf7" + packed(ACK),
    "a tag nobody knows": b"\xa2dkindcackfnumber\xda\x00\x0f\x42\x40\x01",
    "a duplicate key": b"\xa3dkindcackfnumber\x01fnumber\x01",
    "an integer longer than needed": b"\xa2dkindcackfnumber\x18\x09",
    "a length longer than needed": b"\xa2\x78\x04kindcackfnumber\x09",
    "keys out of order": b"\xa3fnumber\x09dkindcackgwall_ms\x01",
    "trailing bytes": packed(ACK) + b"\x00",
    "two values": packed(ACK) * 2,
    "half a float": b"\xa2dkindcackfnumber\xf9\x3c\x00",
    "a float": b"\xa2dkindcackfnumber\xfb\x3f\xf0" + bytes(6),
    "NaN": b"\xa2dkindcackfnumber\xf9\x7e\x00",
    "infinity": b"\xa2dkindcackfnumber\xf9\x7c\x00",
    "undefined": b"\xa2dkindcackfnumber\xf7",
    "a simple value": b"\xa2dkindcackfnumber\xf0",
    "a simple value of two bytes": b"\xa2dkindcackfnumber\xf8\xff",
    "a map of indefinite length": b"\xbfdkindcack\xff",
    "a list of indefinite length": b"\xa2dkindcackfnumber\x9f\x01\xff",
    "text of indefinite length": b"\xa2dkind\x7fcack\xfffnumber\x01",
    "bytes of indefinite length": b"\xa2dkindcackfnumber\x5f\x41\x01\xff",
    "a break on its own": b"\xff",
    "a key that is a number": b"\xa2\x01\x02dkindcack",
    "a key that is bytes": b"\xa2Akadkindcack",
    "a key that is a list": b"\xa2\x80\x01dkindcack",
    "text that is not UTF-8": b"\xa1dkindc\xff\xfe\xfd",
    "a lone surrogate": b"\xa1dkindc\xed\xa0\x80",
    "a list said to be huge": b"\xa2dkindcackfnumber\x9b" + b"\x7f" + b"\xff" * 7,
    "a map said to be huge": b"\xbb\x00\x00\x00\xff" + b"\xff" * 4,
    "text said to be huge": b"\x7b\x00\x00\x00\xff" + b"\xff" * 4,
    "bytes said to be huge": b"\xa2dkindcackfnumber\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
    "nested lists": b"\xa2dkindcackfnumber" + b"\x81" * 100_000 + b"\x00",
    "nested maps": b"\xa1\x61a" * 50_000 + b"\x00",
    "nested tags": b"\xd8\x40" * 100_000 + b"\x00",
    "a kind that is a number": packed({"kind": 7}),
    "no kind": packed({"number": 9}),
}


@pytest.mark.parametrize("data", NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_is_refused(data: bytes) -> None:
    assert len(refusal(data)) < 300


@pytest.mark.parametrize("name", [name for name in NOT_ALLOWED if name.startswith("a tag")])
def test_a_tag_is_refused_before_anything_is_made_of_it(name: str) -> None:
    """A library that knows the tag would compile the expression, or follow the reference, first."""
    assert refusal(NOT_ALLOWED[name]).startswith("not CBOR: error decoding semantic tag")


@pytest.mark.parametrize("value", [1.0, 1.5, float("inf"), cbor2.CBORSimpleValue(16), cbor2.undefined])
def test_what_is_not_allowed_is_refused_in_unknown_fields_too(value: object) -> None:
    refusal(packed({**ACK, "later": value}))
    refusal(packed({**ACK, "later": [{"deep": value}]}))


def test_nesting_is_allowed_up_to_its_limit() -> None:
    def nested(levels: int) -> bytes:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return packed({**ACK, "later": value})

    assert outcome(nested(NESTING_MAX - 2)) is not None
    refusal(nested(NESTING_MAX + 1))


def test_a_frame_over_its_size_is_refused_before_it_is_parsed() -> None:
    padding = FRAME_BYTES_MAX - len(packed({**ACK, "later": b""})) - 4
    assert len(packed({**ACK, "later": bytes(padding)})) == FRAME_BYTES_MAX
    assert outcome(packed({**ACK, "later": bytes(padding)})) is not None
    assert (
        refusal(b"\xff" * (FRAME_BYTES_MAX + 1)) == f"{FRAME_BYTES_MAX + 1} bytes where {FRAME_BYTES_MAX} are allowed"
    )


# -- types and bounds of fields -------------------------------------------------------------------------------

SIGNED = {"payload": b"x", "signature": bytes(64)}
OUT_OF_BOUNDS = {
    "a negative count": {**ACK, "number": -1},
    "a count of 2**31": {**ACK, "number": 1 << 31},
    "a size of 2**53": {**ACK, "wall_ms": 1 << 53},
    "a number as text": {**ACK, "number": "9"},
    "a boolean as a number": {**ACK, "number": True},
    "a missing field": {"kind": "ack", "number": 9},
    "a digest of 31 bytes": {"kind": "offer-accepted", "award": bytes(31)},
    "a digest of 33 bytes": {"kind": "offer-accepted", "award": bytes(33)},
    "a digest as base64 text": {"kind": "offer-accepted", "award": "A" * 43 + "="},
    "a text over its length": {"kind": "join-refused", "reason": "x" * (TEXT_CHARS_MAX + 1), "wall_ms": 1},
    "a signature of 63 bytes": {"kind": "store-pointer", "pointer": {**SIGNED, "signature": bytes(63)}},
    "a payload over its size": {"kind": "store-pointer", "pointer": {**SIGNED, "payload": bytes(RECORD_BYTES_MAX + 1)}},
    "too many records": {"kind": "lookup-reply", "number": 1, "pointers": [SIGNED] * (RECORDS_PER_MESSAGE_MAX + 1)},
    "no slots": {**cbor2.loads(encode_message(every_message()["bid"])), "slots": 0},
    "hops without end": {**cbor2.loads(encode_message(every_message()["announce"])), "hops": 65},
    "neither job nor model": {**cbor2.loads(encode_message(every_message()["lookup"])), "what": "file"},
}


@pytest.mark.parametrize("value", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
def test_a_field_out_of_bounds_is_refused_with_its_place(value: dict[str, object]) -> None:
    assert refusal(packed(value)).startswith(f"{value['kind']}: ")


@pytest.mark.parametrize("cid", ["", "bafk\n", "bafk\0", "b\u00e4fk", "x" * (CID_CHARS_MAX + 1)])
def test_a_cid_is_short_printable_ascii(cid: str) -> None:
    record = every_record()["model-pointer"].record
    changed = msgspec.structs.replace(record, manifest=msgspec.structs.replace(record.manifest, cid=cid))
    with pytest.raises(RemoteProtocolError, match=r"model-pointer: .*manifest\.cid"):
        codec.decode(codec.encode(changed), RECORD_KINDS, max_bytes=RECORD_BYTES_MAX)


@pytest.mark.parametrize(
    "message",
    [
        JoinRefused(reason="x" * TEXT_CHARS_MAX, wall_ms=(1 << 53) - 1),
        OfferAccepted(award=bytes(32)),
        Ping(number=(1 << 31) - 1, wall_ms=0),
        ShuffleReply(records=(Signed(payload=b"", signature=bytes(64)),) * RECORDS_PER_MESSAGE_MAX, epoch=0, sketch=()),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_bounds_themselves_are_allowed(message: Message) -> None:
    assert decode_message(encode_message(message)) == message
