"""The shards of one task: their inputs, and the one output that they have together.

A task of one shard reads and leaves that shard's own value. A task of several (``protocol.batches``) takes them in
turn, and its output is the array of theirs, which may be larger than what fits in memory: nothing here holds it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from meshnode.blobs.store import BlobStore
from meshnode.execution.faults import TaskFault
from meshnode.execution.inputs import JsonObject, ReadJson, shard_of, with_params
from meshnode.execution.linked import as_link
from meshnode.execution.outputs import store_stream
from protocol.batches import shards_of
from protocol.effects import StartRun
from protocol.wire import Output

IN_MEMORY_BYTES_MAX = 1 << 20


async def shard_inputs(order: StartRun, read_json: ReadJson) -> dict[int, JsonObject]:
    """The input object of each shard of the task, by the shard's number, files as links.

    Raises TaskFault for what a stranger got wrong.
    """
    indexes = shards_of(order.task.index, max(1, order.shards))
    if order.split is None:
        values = [await read_json("the job's input", order.input)]
    else:
        listed = await read_json("the split's output", order.split)
        if isinstance(listed, dict) and "tasks" in listed:
            values = await _values_in_file(listed["tasks"], order.task.index, read_json)
        else:
            values = [shard_of(listed, index) for index in indexes]
    if len(values) != len(indexes) or not values:
        raise TaskFault(
            f"the split's output lists {len(values)} shards for task {order.task.index}, not {len(indexes)}"
        )
    return dict(zip(indexes, with_params(order.stage, values), strict=True))


async def _values_in_file(files: Any, index: int, read_json: ReadJson) -> list[Any]:
    """What a split wrote for one task into a file of its own, so that nobody has to read all of it."""
    file = files[index] if isinstance(files, list) and 0 <= index < len(files) else None
    link = as_link(file) if isinstance(file, dict) else None
    if link is None:
        raise TaskFault(f"the split's output lists no file for task {index}")
    values = await read_json(f"the split's output for task {index}", link)
    if not isinstance(values, list):
        raise TaskFault(f"the split's output for task {index} is not a list")
    return values


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
        return await store_stream(self._content, self.finish(), blobs)

    def close(self) -> None:
        self._content.close()
