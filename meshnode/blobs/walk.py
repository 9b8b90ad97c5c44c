"""Checking a DAG block by block against its root, in pre-order.

The same walk serves the receiver (is this what I asked for?), the store (what does a half-received blob hold?) and the
sender (is my disk still right?). A block is checked before the next one is asked for, so nothing that is not part of
the blob is ever kept, and memory is bounded by one path from the root.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from meshnode.blobs import dagpb
from meshnode.blobs.cid import RAW, Cid
from meshnode.blobs.unixfs import Layout


class BadBlock(ValueError):
    """A block that is not the one the root CID stands for at this place."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The next block of the walk."""

    cid: Cid
    at: int
    """Offset in the file of the first byte under this block."""
    size: int | None
    """File bytes under it; None at a root, of which only the name is known."""
    height: int | None
    dag_bytes: int | None

    @property
    def is_leaf(self) -> bool:
        return self.cid.codec == RAW


class Walk:
    """Pre-order over the blocks of one blob. Ask ``expected`` what comes next, hand it to ``accept``."""

    def __init__(self, root: Cid, layout: Layout) -> None:
        self._layout = layout
        self._stack = [Expected(root, 0, None, None, None)]
        self.blocks = 0
        """Blocks accepted so far, nodes and leaves."""
        self.held = 0
        """File bytes accepted so far: a prefix of the file."""
        self.size: int | None = None
        """The file's size, once a block has proven it."""

    @property
    def done(self) -> bool:
        return not self._stack

    @property
    def expected(self) -> Expected:
        return self._stack[-1]

    def length_limit(self) -> int:
        """Bytes the next block can have at most: what to read before judging it."""
        if not self.expected.is_leaf:
            return dagpb.NODE_BYTES_MAX
        return self._layout.chunk_bytes if self.expected.size is None else self.expected.size

    def accept(self, block: bytes) -> None:
        """Check the next block and move on. Raises BadBlock, and then nothing has changed."""
        expected = self.expected
        if hashlib.sha256(block).digest() != expected.cid.digest:
            raise BadBlock(f"block {self.blocks}, at byte {expected.at}, does not have the hash of its name")
        if expected.is_leaf:
            if len(block) > self.length_limit() or (expected.size or len(block)) != len(block):
                raise BadBlock(f"the chunk at byte {expected.at} has {len(block)} bytes, not {expected.size}")
            self._take_leaf(len(block))
        else:
            children = self._children(expected, block)
            self._stack.pop()
            self._stack += reversed(children)
            self.blocks += 1

    def pass_leaf(self) -> None:
        """Move over the next block, a leaf of known size, without looking at it."""
        assert self.expected.is_leaf
        assert self.expected.size is not None
        self._take_leaf(self.expected.size)

    def _take_leaf(self, size: int) -> None:
        if self.size is None:
            self.size = size
        self._stack.pop()
        self.blocks += 1
        self.held += size

    def _children(self, expected: Expected, block: bytes) -> list[Expected]:
        try:
            node = dagpb.decode(block)
            # An inner root says how large the file is; its hash was right, so this is what its name stands for.
            size = node.file_bytes if expected.size is None else expected.size
            height = self._layout.height(size) if expected.height is None else expected.height
        except ValueError as error:
            raise BadBlock(f"block {self.blocks}, at byte {expected.at}: {error}") from None
        if height == 0 or [link.file_bytes for link in node.links] != self._layout.child_sizes(size, height):
            raise BadBlock(f"block {self.blocks}, at byte {expected.at}, is not laid out as its {size} bytes must be")
        dag_bytes = len(block) + sum(link.dag_bytes for link in node.links)
        if dag_bytes != (expected.dag_bytes if expected.dag_bytes is not None else dag_bytes):
            raise BadBlock(f"block {self.blocks}, at byte {expected.at}: sizes of its links do not add up")
        at, children = expected.at, []
        for link in node.links:
            if (link.cid.codec == RAW) != (height == 1) or (height == 1 and link.dag_bytes != link.file_bytes):
                raise BadBlock(f"block {self.blocks}, at byte {expected.at}, has a link to the wrong kind of block")
            children.append(Expected(link.cid, at, link.file_bytes, height - 1, link.dag_bytes))
            at += link.file_bytes
        if self.size is None:
            self.size = size
        return children
