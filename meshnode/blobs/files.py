"""A blob on disk: one plain file with the content and, if it has inner nodes, one beside it with them.

The content file can be linked or mounted into a sandbox as it is. The nodes (``<cid>.dag``: each a 4-byte big-endian
length and the block, in pre-order) let every chunk be checked and sent. Blocking code; the store runs it in threads.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from meshnode.blobs import dagpb
from meshnode.blobs.cid import DAG_PB, Cid
from meshnode.blobs.unixfs import Builder, Dag, Layout
from meshnode.blobs.walk import BadBlock, Walk


def dag_path(content: Path) -> Path:
    """Where the inner nodes of the blob at ``content`` are."""
    return content.with_name(content.name + ".dag")


def write_node(file: BinaryIO, block: bytes) -> int:
    """Append a node. Returns the bytes written."""
    return file.write(len(block).to_bytes(4, "big") + block)


def read_node(file: BinaryIO) -> bytes:
    """The next node; shorter than it should be, or empty, where the file ends or makes no sense."""
    length = int.from_bytes(file.read(4), "big")
    return file.read(length) if length <= dagpb.NODE_BYTES_MAX else b""


def unlink_pair(content: Path) -> None:
    """Remove a blob's files, as far as they are there. The content goes first: without it there is no blob."""
    content.unlink(missing_ok=True)
    dag_path(content).unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames in ``folder`` last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class NewBlob:
    """A blob whose name is not known yet: content being written to a temporary file in ``folder``."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        handle, name = tempfile.mkstemp(dir=folder)
        self.content = Path(name)
        self._file = os.fdopen(handle, "wb")
        self._builder = Builder(layout)

    @property
    def size(self) -> int:
        """Bytes of content so far."""
        return self._builder.size

    def write(self, data: bytes) -> None:
        self._builder.feed(data)
        self._file.write(data)

    def finish(self, durable: bool) -> Dag:
        """Write the nodes and hand all to the system (to the disk, if ``durable``)."""
        dag = self._builder.finish()
        with self._file as file:
            _flush(file, durable)
        if dag.nodes:
            with dag_path(self.content).open("wb") as file:
                for block in dag.nodes:
                    write_node(file, block)
                _flush(file, durable)
        return dag

    def discard(self) -> None:
        """Close, and remove what has not been moved away."""
        self._file.close()
        unlink_pair(self.content)


class BlobReader:
    """The blocks of a whole blob, in pre-order, each checked before it is given out."""

    def __init__(self, content: Path, root: Cid, layout: Layout) -> None:
        self._walk = Walk(root, layout)
        self._content = content.open("rb", buffering=0)
        try:
            self._dag = dag_path(content).open("rb") if root.codec == DAG_PB else None
        except BaseException:
            self._content.close()
            raise

    def next(self, *, skip: int = 0) -> bytes | None:
        """The next block, not counting the first ``skip`` of the blob; None at the end. Raises BadBlock."""
        while not self._walk.done:
            expected, index = self._walk.expected, self._walk.blocks
            if expected.is_leaf and index < skip and expected.size is not None:
                self._walk.pass_leaf()
                continue
            if expected.is_leaf:
                block = os.pread(self._content.fileno(), self._walk.length_limit(), expected.at)
            else:
                assert self._dag is not None
                block = read_node(self._dag)
            self._walk.accept(block)
            if index >= skip:
                return block
        return None

    def close(self) -> None:
        self._content.close()
        if self._dag is not None:
            self._dag.close()


class PartialBlob:
    """A blob on its way in. What the files hold from an earlier attempt is checked again and then built upon.

    Nothing on disk is trusted, so the files need no syncing, and a kill at any instant costs at most the tail.
    """

    def __init__(self, content: Path, root: Cid, layout: Layout) -> None:
        self.content = content
        self.walk = Walk(root, layout)
        self._content = _open_rw(content)
        try:
            self._dag = _open_rw(dag_path(content))
            self._replay()
        except BaseException:
            self._content.close()
            raise

    @property
    def disk_bytes(self) -> int:
        """Bytes in both files."""
        return self._content.tell() + self._dag.tell()

    def append(self, block: bytes) -> None:
        """Check the next block and keep it. Raises BadBlock, keeping nothing."""
        is_leaf = self.walk.expected.is_leaf
        self.walk.accept(block)
        if is_leaf:
            self._content.write(block)
            self._content.flush()
        else:
            write_node(self._dag, block)
            self._dag.flush()  # content without the nodes above it would be of no use after a kill

    def finish(self, *, durable: bool) -> None:
        """Hand the bytes to the system (to the disk, if ``durable``) and close."""
        for file in (self._content, self._dag):
            _flush(file, durable)
        self.close()

    def close(self) -> None:
        for file in (self._content, self._dag):
            with contextlib.suppress(OSError):  # a full disk: what it did not take is received again
                file.close()

    def _replay(self) -> None:
        content_at = dag_at = 0
        while not self.walk.done:
            is_leaf = self.walk.expected.is_leaf
            block = self._content.read(self.walk.length_limit()) if is_leaf else read_node(self._dag)
            # An empty root leaf is a valid block that an empty file would "hold": let the source send it.
            if not block:
                break
            try:
                self.walk.accept(block)
            except BadBlock:
                break
            content_at, dag_at = (self._content.tell(), dag_at) if is_leaf else (content_at, self._dag.tell())
        for file, at in ((self._content, content_at), (self._dag, dag_at)):
            file.seek(at)
            file.truncate()


def _flush(file: BinaryIO, durable: bool) -> None:
    file.flush()
    if durable:
        os.fsync(file.fileno())


def _open_rw(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
