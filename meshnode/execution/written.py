"""What a task left behind, on its way into the blob store: its JSON value, and the files that the value names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mimetypes
import posixpath
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.linked import replaced
from meshnode.jobs.canonical import canonical_json, loads_strict
from meshnode.runtimes.output import OutputFile
from protocol.wire import Output

OUTPUT_JSON = "output.json"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What a task wrote: files by path, and the value that may name them."""

    value: Any
    files: dict[str, OutputFile]
    blobs: BlobStore
    _links: dict[str, dict[str, Any]] = field(default_factory=dict)

    def file(self, path: str) -> OutputFile | None:
        """The file that ``path`` names in an output; None if it names none."""
        return self.files.get(posixpath.normpath(path)) if path else None

    async def with_links(self, value: Any) -> Any:
        """``value`` with every ``path`` that names one of the files replaced by the link to its blob."""
        wanted: dict[str, OutputFile] = {}

        def file_of(item: dict[str, Any]) -> OutputFile | None:
            path = item.get("path")
            return self.file(path) if isinstance(path, str) else None

        def want(item: dict[str, Any]) -> dict[str, Any]:
            if (file := file_of(item)) is not None and file.path not in self._links:
                wanted[file.path] = file
            return item

        def link(item: dict[str, Any]) -> dict[str, Any]:
            if (file := file_of(item)) is None:
                return item
            return {**{key: below for key, below in item.items() if key != "path"}, **self._links[file.path]}

        if not self.files:
            return value
        await trio.to_thread.run_sync(replaced, value, want)
        for file in wanted.values():
            stored = await store_pieces(file_pieces(file), self.blobs)
            media_type = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
            self._links[file.path] = {
                "cid": stored.cid,
                "size": stored.size,
                "media_type": media_type,
            }
        return await trio.to_thread.run_sync(replaced, value, link)


def parse_printed(stdout: bytes) -> Any:
    """The JSON value in ``stdout``. Raises InvalidJson for JSON that is not strict, ValueError for what is no JSON."""
    with contextlib.suppress(RecursionError):  # JSON, and too deep: the strict reader says so
        json.loads(stdout)
    return loads_strict(stdout)


async def store_json(value: Any, blobs: BlobStore) -> Output:
    """Store the canonical bytes of ``value``."""
    content = await trio.to_thread.run_sync(canonical_json, value)

    async def once() -> AsyncGenerator[bytes, None]:
        yield content

    return await store_pieces(once(), blobs)


async def store_pieces(pieces: AsyncGenerator[bytes, None], blobs: BlobStore) -> Output:
    """Store what ``pieces`` yields, one in memory at a time."""
    digest = hashlib.sha256()

    async def counted() -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            async for piece in pieces:
                await trio.to_thread.run_sync(digest.update, piece)
                yield piece

    async with aclosing(counted()) as source:
        blob = await blobs.add_stream(source)
    return Output(cid=blob.cid, size=blob.size, sha256=digest.digest())


async def file_pieces(file: OutputFile) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, piece by piece."""
    with await trio.to_thread.run_sync(file.open) as opened:
        read: Callable[[int], bytes] = opened.read
        while piece := await trio.to_thread.run_sync(read, _PIECE_BYTES):
            yield piece
