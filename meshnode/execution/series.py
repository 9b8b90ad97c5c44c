"""What the shards of one task read and leave, one after the other, with the hash of the whole.

A task of one shard reads and leaves that shard's own value. A task of several (``protocol.batches``) takes them in
turn, and its output is the array of theirs, which may be larger than what fits in memory: nothing here holds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from tempfile import SpooledTemporaryFile

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.written import store_pieces
from protocol.wire import Output

IN_MEMORY_BYTES_MAX = 1 << 20
_PIECE_BYTES = 1 << 20


class Series:
    """Canonical JSON values one after the other: an array, or the value itself where there is to be ``alone`` one."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._hash = hashlib.sha256()
        self._count = 0

    def add(self, canonical: bytes) -> None:
        if not self._alone:
            self._put(b"," if self._count else b"[")
        self._put(canonical)
        self._count += 1

    def finish(self) -> bytes:
        """The SHA-256 of the whole; nothing is added after this."""
        if not self._alone:
            self._put(b"]" if self._count else b"[]")
        return self._hash.digest()

    def _put(self, piece: bytes) -> None:
        self._hash.update(piece)


class StoredSeries(Series):
    """A series that becomes a blob. Small ones cost no file on the way; larger ones lie in ``folder``."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        super().__init__(alone=alone)
        self._content = SpooledTemporaryFile(IN_MEMORY_BYTES_MAX, dir=str(folder))  # noqa: SIM115  # see `close`

    def _put(self, piece: bytes) -> None:
        super()._put(piece)
        self._content.write(piece)

    async def store(self, blobs: BlobStore) -> Output:
        async def pieces() -> AsyncGenerator[bytes, None]:
            while piece := await trio.to_thread.run_sync(self._content.read, _PIECE_BYTES):
                yield piece

        self.finish()
        self._content.seek(0)
        return await store_pieces(pieces(), blobs)

    def close(self) -> None:
        self._content.close()
