"""A file as a DAG, exactly as IPFS lays it out (``ipfs add --cid-version=1 --raw-leaves --chunker=size-1048576``).

The file is cut into chunks; each chunk is a raw block, a leaf. A file of one chunk is that leaf. Else inner nodes of at
most 174 links are stacked until one is left, all leaves at the same depth and every node but the last of its level
full. So the shape of a DAG is a function of the file's size alone, and each content has one name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from meshnode.blobs import dagpb
from meshnode.blobs.cid import DAG_PB, RAW, Cid


@dataclass(frozen=True, slots=True)
class Layout:
    """How files are cut and stacked. Peers that exchange blobs agree on it; tests use small ones."""

    chunk_bytes: int = 1 << 20
    max_links: int = 174
    max_height: int = 4
    """Levels of inner nodes. With the other defaults a file can have 174⁴ chunks: 874 TiB."""

    def chunks(self, size: int) -> int:
        """Number of leaves of a file of ``size`` bytes; an empty file is one empty leaf."""
        return max(1, -(-size // self.chunk_bytes))

    def height(self, size: int) -> int:
        """Levels of inner nodes above the leaves. Raises ValueError for a file beyond ``max_height``."""
        chunks, height, capacity = self.chunks(size), 0, 1
        while capacity < chunks:
            height, capacity = height + 1, capacity * self.max_links
        if height > self.max_height:
            raise ValueError(f"a file of {size} bytes is over the largest that can be laid out")
        return height

    def child_sizes(self, size: int, height: int) -> list[int]:
        """File bytes under each child of the node at ``height`` that covers ``size`` bytes."""
        full = self.chunk_bytes * self.max_links ** (height - 1)
        whole, rest = divmod(size, full)
        return [full] * whole + ([rest] if rest else [])


@dataclass(frozen=True, slots=True)
class Dag:
    """A finished DAG: its root, the size of the file, and its inner nodes' blocks in pre-order."""

    cid: Cid
    size: int
    nodes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Subtree:
    link: dagpb.Link
    block: bytes = b""
    children: tuple[_Subtree, ...] = ()

    def preorder(self) -> list[bytes]:
        if not self.block:
            return []  # a leaf: its bytes are the file's
        return [self.block] + [block for child in self.children for block in child.preorder()]


class Builder:
    """Feed it a file piece by piece; ``finish`` gives the DAG.

    Holds hashes, not content: some 50 bytes of memory per chunk.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._levels: list[list[_Subtree]] = [[]]  # subtrees that wait for a parent, by height
        self._leaf = hashlib.sha256()
        self._leaf_bytes = 0
        self.size = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file; how they are cut into calls does not matter."""
        view = memoryview(data)
        while view:
            part = view[: self._layout.chunk_bytes - self._leaf_bytes]
            self._leaf.update(part)
            self._leaf_bytes += len(part)
            self.size += len(part)
            if self._leaf_bytes == self._layout.chunk_bytes:
                self._end_leaf()
            view = view[len(part) :]

    def finish(self) -> Dag:
        """The DAG of all that was fed. The builder is used up."""
        if self._leaf_bytes or not self.size:
            self._end_leaf()
        root_height = self._layout.height(self.size)
        for height in range(root_height):
            if self._levels[height]:
                self._stack(height)
        (root,) = self._levels[root_height]
        return Dag(root.link.cid, self.size, tuple(root.preorder()))

    def _end_leaf(self) -> None:
        cid = Cid(RAW, self._leaf.digest())
        self._push(0, _Subtree(dagpb.Link(cid, self._leaf_bytes, self._leaf_bytes)))
        self._leaf = hashlib.sha256()
        self._leaf_bytes = 0

    def _push(self, height: int, subtree: _Subtree) -> None:
        # A full level is stacked only when the next subtree arrives: a node that covers everything is the root.
        if len(self._levels[height]) == self._layout.max_links:
            self._stack(height)
        self._levels[height].append(subtree)

    def _stack(self, height: int) -> None:
        children = tuple(self._levels[height])
        self._levels[height] = []
        node = dagpb.Node(tuple(child.link for child in children))
        block = dagpb.encode(node)
        link = dagpb.Link(Cid.of(DAG_PB, block), node.file_bytes, len(block) + sum(c.link.dag_bytes for c in children))
        if height + 1 == len(self._levels):
            self._levels.append([])
        self._push(height + 1, _Subtree(link, block, children if height else ()))
