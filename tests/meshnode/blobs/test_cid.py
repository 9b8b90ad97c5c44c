import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.bitswap.cid import CODEC_DAG_PB, CODEC_RAW, cid_to_text, compute_cid_v0, compute_cid_v1

from meshnode.blobs.cid import DAG_PB, RAW, Cid, canonical, digest_of, parse

HELLO = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"
cids = st.builds(Cid, st.sampled_from([RAW, DAG_PB]), st.binary(min_size=32, max_size=32))


def test_hello_has_its_usual_name() -> None:
    assert str(Cid.of(RAW, b"hello")) == HELLO
    assert digest_of(HELLO).hex() == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@given(st.binary(max_size=100))
def test_names_equal_those_of_another_implementation(block: bytes) -> None:
    assert str(Cid.of(RAW, block)) == cid_to_text(compute_cid_v1(block, CODEC_RAW))
    assert str(Cid.of(DAG_PB, block)) == cid_to_text(compute_cid_v1(block, CODEC_DAG_PB))
    assert parse(cid_to_text(compute_cid_v0(block))) == Cid.of(DAG_PB, block)


@given(cids)
def test_what_is_written_is_read(cid: Cid) -> None:
    assert parse(str(cid)) == cid
    assert Cid.from_bytes(bytes(cid)) == cid
    assert canonical(str(cid)) == str(cid)


@given(
    st.text(max_size=80) | st.from_regex(r"b[a-z2-7]{58}", fullmatch=True) | st.from_regex(r"Qm\w{44}", fullmatch=True)
)
def test_any_text_is_a_cid_or_a_value_error(text: str) -> None:
    try:
        cid = parse(text)
    except ValueError:
        return
    assert str(cid) == text or text.startswith("Qm")


@given(cids, st.data())
def test_a_changed_character_is_another_name_or_none(cid: Cid, data: st.DataObject) -> None:
    text = str(cid)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("abz27AZ0189-=. ")) + text[at + 1 :]
    if changed != text:
        with contextlib.suppress(ValueError):
            assert parse(changed) != cid


@given(st.binary(max_size=40))
def test_any_bytes_are_a_cid_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert bytes(Cid.from_bytes(data)) == data


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither"),
        ("../../etc/passwd", "neither"),
        (HELLO[:-1], "58 characters"),
        (HELLO.upper(), "neither"),
        (HELLO[:20] + "1" + HELLO[21:], "not base32"),
        (HELLO[:-1] + "r", "canonical"),  # bits behind the last byte
        ("bafyreigdmqpykrgxyaxtlafqpqhzrb7qy2rh75nldvfd4tucqmqqme5yje", "neither raw"),  # dag-cbor
        ("Qm123", "5 characters"),
        ("Qm" + "0" * 44, "not base58"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)
