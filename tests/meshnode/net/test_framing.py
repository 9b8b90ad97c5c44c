"""Frames survive any cutting of the byte stream, and nothing else than frames or FramingError comes of garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.net import FrameDecoder, FramingError, encode_frame

LIMIT = 300


@pytest.mark.parametrize(
    ("payload", "encoded"),
    [(b"", b"\x00"), (b"a", b"\x01a"), (b"x" * 127, b"\x7f" + b"x" * 127), (b"x" * 300, b"\xac\x02" + b"x" * 300)],
)
def test_a_frame_is_a_varint_length_and_the_payload(payload: bytes, encoded: bytes) -> None:
    assert encode_frame(payload) == encoded
    assert FrameDecoder(LIMIT).feed(encoded) == [payload]


@given(st.lists(st.binary(max_size=LIMIT), max_size=20), st.data())
def test_any_chunking_gives_the_same_frames(payloads: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(encode_frame, payloads))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=50)))
    decoder = FrameDecoder(LIMIT)
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        received += decoder.feed(wire[start:end])
    assert received == payloads
    assert decoder.pending == 0


@given(st.lists(st.binary(max_size=64), max_size=30))
def test_garbage_gives_frames_or_a_framing_error_and_little_is_held(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(LIMIT)
    try:
        for chunk in chunks:
            for payload in decoder.feed(chunk):
                assert len(payload) <= LIMIT
            assert decoder.pending <= LIMIT + 4
    except FramingError:
        pass


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        (b"\xad\x02", "301 bytes is over the limit of 300"),
        (b"\xff\xff\xff\x7f", "over the limit"),
        (b"\x80\x00", "shortest form"),
        (b"\x81\x80\x00", "shortest form"),
        (b"\x80\x80\x80\x80", "longer than 4 bytes"),
        (b"\x01a\xff\xff\xff\xff\xff", "longer than 4 bytes"),
    ],
)
def test_a_bad_length_is_refused_before_its_payload_arrives(wire: bytes, complaint: str) -> None:
    with pytest.raises(FramingError, match=complaint):
        FrameDecoder(LIMIT).feed(wire)


def test_an_oversize_payload_is_not_encoded() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 28

    with pytest.raises(ValueError, match="over the largest"):
        encode_frame(Huge())
