"""One inner node of a file's DAG: dag-pb around UnixFS, to and from its only encoding.

    PBNode { 2: repeated PBLink { 1: bytes Hash, 2: string Name = "", 3: uint64 Tsize }, then
             1: bytes Data = UnixFS { 1: Type = File, 3: filesize, 4: repeated blocksizes } }

Protobuf has many encodings of one value; dag-pb fixes one. Decoding reads the fields and compares the bytes with the
encoding of what was read, which refuses all the others at once: long varints, unknown fields, another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshnode.blobs.cid import Cid

NODE_BYTES_MAX = 16 * 1024
"""174 links with the largest numbers take under 13 KiB."""

_SIZE_LIMIT = 1 << 63
_FILE = 2
_VARINT, _BYTES = 0, 2


class BadNode(ValueError):
    """Bytes that are not the encoding of a file's inner node."""


@dataclass(frozen=True, slots=True)
class Link:
    """A child: its name, the bytes of the file below it, and the encoded bytes of all blocks below it."""

    cid: Cid
    file_bytes: int
    dag_bytes: int


@dataclass(frozen=True, slots=True)
class Node:
    links: tuple[Link, ...]

    @property
    def file_bytes(self) -> int:
        """How much of the file is below this node."""
        return sum(link.file_bytes for link in self.links)


def encode(node: Node) -> bytes:
    out = bytearray()
    for link in node.links:
        body = _field(1, bytes(link.cid)) + _field(2, b"") + _number(3, link.dag_bytes)
        out += _field(2, body)
    data = _number(1, _FILE) + _number(3, node.file_bytes)
    data += b"".join(_number(4, link.file_bytes) for link in node.links)
    return bytes(out + _field(1, data))


def decode(block: bytes) -> Node:
    """Read an untrusted node. Raises BadNode for anything that ``encode`` does not produce."""
    if len(block) > NODE_BYTES_MAX:
        raise BadNode(f"a node of {len(block)} bytes where {NODE_BYTES_MAX} are allowed")
    links: list[tuple[Cid, int]] = []
    data = b""
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            links.append(_link(value))
        elif number == 1 and isinstance(value, bytes):
            data = value
        else:
            raise BadNode(f"a node has no field {number} like this")
    file_bytes, sizes = _unixfs(data)
    if len(sizes) != len(links):
        raise BadNode(f"{len(links)} links, but {len(sizes)} block sizes")
    if not links:
        raise BadNode("a node without links")
    node = Node(tuple(Link(cid, size, dag) for (cid, dag), size in zip(links, sizes, strict=True)))
    if node.file_bytes != file_bytes:
        raise BadNode(f"block sizes add up to {node.file_bytes}, not to the file size {file_bytes}")
    if encode(node) != block:
        raise BadNode("not the canonical encoding of its fields")
    return node


def _link(body: bytes) -> tuple[Cid, int]:
    fields = dict(_fields(body))
    cid, dag_bytes = fields.get(1), fields.get(3)
    if not isinstance(cid, bytes) or not isinstance(dag_bytes, int):
        raise BadNode("a link without a hash or a size")
    try:
        return Cid.from_bytes(cid), dag_bytes
    except ValueError as error:
        raise BadNode(f"a link: {error}") from None


def _unixfs(data: bytes) -> tuple[int, list[int]]:
    file_bytes, sizes = -1, []
    for number, value in _fields(data):
        if number == 1 and value != _FILE:
            raise BadNode("not the node of a file")
        if number == 3 and isinstance(value, int):
            file_bytes = value
        elif number == 4 and isinstance(value, int):
            sizes.append(value)
    return file_bytes, sizes


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The protobuf fields of ``data`` in order: numbers and byte strings."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES:
            if value > len(data) - at:
                raise BadNode(f"field {key >> 3} runs over the end")
            yield key >> 3, data[at : at + value]
            at += value
        else:
            raise BadNode(f"wire type {key & 7} is not used here")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    raise BadNode("a number that does not end")


def _write_varint(value: int) -> bytes:
    if not 0 <= value < _SIZE_LIMIT:
        raise ValueError(f"{value} is not within 0 and 2**63 - 1")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _write_varint(number << 3 | _BYTES) + _write_varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _write_varint(number << 3 | _VARINT) + _write_varint(value)
