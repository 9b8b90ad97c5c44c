import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.blobs.cid import DAG_PB, RAW, Cid
from meshnode.blobs.dagpb import NODE_BYTES_MAX, BadNode, Link, Node, decode, encode

cids = st.builds(Cid, st.sampled_from([RAW, DAG_PB]), st.binary(min_size=32, max_size=32))
links = st.builds(Link, cids, st.integers(0, 1 << 40), st.integers(0, (1 << 63) - 1))
nodes = st.builds(Node, st.lists(links, min_size=1, max_size=6).map(tuple))


@given(nodes)
def test_what_is_written_is_read(node: Node) -> None:
    assert decode(encode(node)) == node


@given(st.binary(max_size=300))
def test_any_bytes_are_a_node_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadNode):
        assert encode(decode(data)) == data


@given(nodes, st.data())
def test_a_changed_node_is_another_node_or_refused(node: Node, data: st.DataObject) -> None:
    block = bytearray(encode(node))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(block) - 1))
        match data.draw(st.sampled_from(["flip", "insert", "delete", "repeat"])):
            case "flip":
                block[at] ^= 1 << data.draw(st.integers(0, 7))
            case "insert":
                block.insert(at, data.draw(st.integers(0, 255)))
            case "delete" if len(block) > 1:
                del block[at]
            case "repeat":
                block[at:at] = block[at : at + 4]
    with contextlib.suppress(BadNode):
        assert encode(decode(bytes(block))) == bytes(block)


NODE = Node((Link(Cid.of(RAW, b"abcd"), 4, 4), Link(Cid.of(RAW, b"e"), 1, 1)))
LINKS, DATA = encode(NODE)[: 2 * 44], encode(NODE)[2 * 44 :]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (b"", "without links|file size"),
        (DATA + LINKS, "canonical"),
        (LINKS + DATA + b"\x18\x01", "no field 3"),
        (LINKS + DATA + DATA, "canonical"),
        (LINKS + bytes.fromhex("0a0808021806200420 01"), "add up to 5, not to the file size 6"),
        (LINKS + bytes.fromhex("0a06080218042004"), "2 links, but 1"),
        (LINKS + bytes.fromhex("0a08080118052004 2001"), "not the node of a file"),
        (LINKS + bytes.fromhex("0a0908021885002004 2001"), "canonical"),  # 5 in two bytes
        (LINKS + bytes.fromhex("0a0a08021805200420012800"), "canonical"),  # hashType
        (LINKS + bytes.fromhex("0aff01"), "runs over the end"),
        (LINKS + b"\x0a" + b"\xff" * 12, "does not end"),
        (b"\x0d\0\0\0\0", "wire type 5"),
        (bytes(NODE_BYTES_MAX + 1), "allowed"),
        (b"\x12\x02\x0a\x00" + DATA, "without a hash or a size"),
        (LINKS[:44].replace(b"\x12\x20", b"\x13\x20", 1) + DATA, "SHA-256"),
    ],
)
def test_what_is_wrong_is_said(block: bytes, says: str) -> None:
    with pytest.raises(BadNode, match=says):
        decode(block)
