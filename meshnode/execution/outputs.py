"""What a task wrote, as blobs: the files it names, then the output itself in its one canonical form."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mimetypes
import posixpath
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.faults import TaskFault
from meshnode.execution.linked import replaced
from meshnode.jobs.canonical import InvalidJson, canonical_json, loads_strict
from meshnode.runtimes.base import Ended
from meshnode.runtimes.output import OutputFile, OutputRefused, collect_output
from protocol.limits import SHARDS_MAX
from protocol.wire import Output

OUTPUT_JSON = "output.json"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """An output in the blob store."""

    output: Output
    value: Any
    """Its JSON value; None for an output that is not JSON."""

    def shards(self) -> int:
        """How many shards a split's output lists. Raises TaskFault if it is no split's output."""
        listed = self.value.get("shards") if isinstance(self.value, dict) else None
        if not isinstance(listed, list) or not 1 <= len(listed) <= SHARDS_MAX:
            raise TaskFault(f"the split's output does not list from 1 to {SHARDS_MAX} shards")
        return len(listed)


async def store_output(folder: Path, ended: Ended, blobs: BlobStore) -> Stored:
    """Store what a task left in ``folder``, else what it printed. Raises TaskFault for what cannot be an output."""
    value = await output_value(folder, ended, blobs)
    if isinstance(value, bytes):
        return Stored(await store_bytes(value, blobs), None)
    return await _store_json(value, blobs)


async def output_value(folder: Path, ended: Ended, blobs: BlobStore) -> Any:
    """The JSON value of what a task left in ``folder``, else printed, with its files stored and as links.

    Bytes for an output that is not JSON. Raises TaskFault for what cannot be an output.
    """
    try:
        files = {file.path: file for file in await trio.to_thread.run_sync(collect_output, folder)}
        if (written := files.pop(OUTPUT_JSON, None)) is not None:
            return await _with_links(await _read_json(written), files, blobs)
    except OutputRefused as error:
        raise TaskFault(str(error)) from None
    if ended.stdout_truncated:
        raise TaskFault(f"the task printed more than {len(ended.stdout)} bytes; it should write {OUTPUT_JSON}")
    try:
        return await trio.to_thread.run_sync(_parse_printed, ended.stdout)
    except InvalidJson as error:
        raise TaskFault(f"what the task printed cannot be an output: {error}") from None
    except ValueError:  # not JSON at all: plain text, or bytes
        return ended.stdout


async def with_files(value: Any, folder: Path, blobs: BlobStore) -> Any:
    """``value`` with the files in ``folder`` that it names stored, and as links. Raises TaskFault."""
    try:
        files = {file.path: file for file in await trio.to_thread.run_sync(collect_output, folder)}
        return await _with_links(value, files, blobs)
    except OutputRefused as error:
        raise TaskFault(str(error)) from None


async def store_stream(content: IO[bytes], sha256: bytes, blobs: BlobStore) -> Output:
    """Store what ``content`` holds from its beginning, whose hash is known."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        while piece := await trio.to_thread.run_sync(content.read, _PIECE_BYTES):
            yield piece

    content.seek(0)
    async with aclosing(pieces()) as stream:
        blob = await blobs.add_stream(stream)
    return Output(cid=blob.cid, size=blob.size, sha256=sha256)


def _parse_printed(stdout: bytes) -> Any:
    """The JSON value in ``stdout``. Raises InvalidJson for JSON that is not strict, ValueError for what is no JSON."""
    with contextlib.suppress(RecursionError):  # JSON, and too deep: the strict reader says so
        json.loads(stdout)
    return loads_strict(stdout)


async def _read_json(file: OutputFile) -> Any:
    def read() -> Any:
        with file.open() as opened:
            return loads_strict(opened.read(file.size + 1))

    try:
        return await trio.to_thread.run_sync(read)
    except InvalidJson as error:
        raise TaskFault(f"{OUTPUT_JSON}: {error}") from None


async def _with_links(value: Any, files: dict[str, OutputFile], blobs: BlobStore) -> Any:
    """``value`` with every ``path`` that names one of ``files`` replaced by the link to its blob."""
    links: dict[str, dict[str, Any]] = {}
    wanted: list[OutputFile] = []

    def name_of(item: dict[str, Any]) -> str | None:
        path = item.get("path")
        name = posixpath.normpath(path) if isinstance(path, str) and path else None
        return name if name in files else None

    def want(item: dict[str, Any]) -> dict[str, Any]:
        if (name := name_of(item)) is not None and name not in links:
            links[name] = {}
            wanted.append(files[name])
        return item

    def link(item: dict[str, Any]) -> dict[str, Any]:
        if (name := name_of(item)) is None:
            return item
        return {**{key: below for key, below in item.items() if key != "path"}, **links[name]}

    replaced(value, want)
    for file in wanted:
        async with aclosing(_pieces(file)) as pieces:
            blob = await blobs.add_stream(pieces)
        media_type = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
        links[file.path] = {"cid": blob.cid, "size": blob.size, "media_type": media_type}
    return replaced(value, link)


async def _pieces(file: OutputFile) -> AsyncGenerator[bytes, None]:
    with await trio.to_thread.run_sync(file.open) as opened:
        while piece := await trio.to_thread.run_sync(opened.read, _PIECE_BYTES):
            yield piece


async def _store_json(value: Any, blobs: BlobStore) -> Stored:
    return Stored(await store_bytes(await trio.to_thread.run_sync(canonical_json, value), blobs), value)


async def store_bytes(content: bytes, blobs: BlobStore) -> Output:
    blob = await blobs.add_bytes(content)
    digest = await trio.to_thread.run_sync(lambda: hashlib.sha256(content).digest())
    return Output(cid=blob.cid, size=blob.size, sha256=digest)


async def linked_bytes(content: bytes, blobs: BlobStore) -> bytes:
    """The canonical bytes of a link to ``content``, stored: an output that is not JSON, where JSON has to stand."""
    output = await store_bytes(content, blobs)
    return canonical_json({"cid": output.cid, "size": output.size, "media_type": "application/octet-stream"})
