"""What a task wrote, as blobs: the files it names, then the output itself in its one canonical form.

The output is ``output.json``; without it a file ``output.<ending>``, byte for byte; without both, what was printed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.faults import TaskFault
from meshnode.execution.shards import store_split
from meshnode.execution.written import (
    OUTPUT_JSON,
    Written,
    file_pieces,
    parse_printed,
    store_json,
    store_pieces,
)
from meshnode.jobs.canonical import InvalidJson, canonical_json, loads_strict
from meshnode.runtimes.base import Ended
from meshnode.runtimes.output import OutputFile, OutputRefused, collect_output
from meshnode.tasks.splitmerge.elements import read_elements
from protocol.wire import Output

STREAMED_BYTES_MIN = 1 << 20
"""A list in output.json that is longer than this is read element by element."""
WHOLE_BYTES_MAX = 16 << 20
"""Anything else in output.json is read whole; parsed, it may take thirty times as many bytes."""


async def store_output(folder: Path, ended: Ended, blobs: BlobStore) -> Output:
    """Store what a task left in ``folder``, else what it printed. Raises TaskFault for what cannot be an output."""
    try:
        files = await _collect(folder)
        if (written := files.pop(OUTPUT_JSON, None)) is not None:
            if written.size > STREAMED_BYTES_MIN and await trio.to_thread.run_sync(_is_list, written):
                return await _store_list(written, files, blobs)
            value = await _read_json(written)
            return await store_json(await Written(value, files, blobs).with_links(value), blobs)
        if (plain := _plain_file(files)) is not None:
            return await store_pieces(file_pieces(plain), blobs)
    except OutputRefused as error:
        raise TaskFault(str(error)) from None
    value = await _printed(ended)
    if isinstance(value, bytes):  # not JSON at all: plain text, or bytes
        return await store_pieces(_once(value), blobs)
    return await store_json(value, blobs)


async def output_value(folder: Path, ended: Ended, blobs: BlobStore) -> Any:
    """What stands for a task's output in a list with those of others: JSON, and a link to one that is not JSON.

    Raises TaskFault for what cannot be an output.
    """
    try:
        files = await _collect(folder)
        if (written := files.pop(OUTPUT_JSON, None)) is not None:
            value = await _read_json(written)
            return await Written(value, files, blobs).with_links(value)
        if (plain := _plain_file(files)) is not None:
            return await Written(None, files, blobs).with_links({"path": plain.path})
    except OutputRefused as error:
        raise TaskFault(str(error)) from None
    value = await _printed(ended)
    if isinstance(value, bytes):
        output = await store_pieces(_once(value), blobs)
        return {"cid": output.cid, "size": output.size, "media_type": "application/octet-stream"}
    return value


async def with_files(value: Any, folder: Path, blobs: BlobStore) -> Any:
    """``value`` with the files in ``folder`` that it names stored, and as links. Raises TaskFault."""
    try:
        return await Written(value, await _collect(folder), blobs).with_links(value)
    except OutputRefused as error:
        raise TaskFault(str(error)) from None


async def store_split_output(folder: Path, ended: Ended, max_shards: int, blobs: BlobStore) -> tuple[Output, int]:
    """Store the output of a split, and say how many shards it lists. Raises TaskFault."""
    try:
        files = await _collect(folder)
        written = files.pop(OUTPUT_JSON, None)
        value = await _printed(ended) if written is None else await _read_json(written)
        return await store_split(Written(value, files, blobs), max_shards, blobs)
    except OutputRefused as error:
        raise TaskFault(str(error)) from None


async def _collect(folder: Path) -> dict[str, OutputFile]:
    return {file.path: file for file in await trio.to_thread.run_sync(collect_output, folder)}


def _plain_file(files: dict[str, OutputFile]) -> OutputFile | None:
    """The one file that is the output as it is. Raises TaskFault if there are several."""
    found = sorted(path for path in files if "/" not in path and path.partition(".")[0] == "output")
    if len(found) > 1:
        raise TaskFault(f"the task wrote {found[0]!r} and {found[1]!r}; only one of them can be the output")
    return files[found[0]] if found else None


async def _printed(ended: Ended) -> Any:
    """The JSON value that a task printed; bytes if it is none."""
    if ended.stdout_truncated:
        raise TaskFault(f"the task printed more than {len(ended.stdout)} bytes; it should write {OUTPUT_JSON}")
    try:
        return await trio.to_thread.run_sync(parse_printed, ended.stdout)
    except InvalidJson as error:
        raise TaskFault(f"what the task printed cannot be an output: {error}") from None
    except ValueError:
        return ended.stdout


async def _read_json(file: OutputFile) -> Any:
    if file.size > WHOLE_BYTES_MAX:
        raise TaskFault(
            f"{OUTPUT_JSON} has {file.size} bytes, and only a list may have more than {WHOLE_BYTES_MAX};"
            " put what is large into files"
        )

    def read() -> Any:
        with file.open() as opened:
            return loads_strict(opened.read(file.size + 1))

    try:
        return await trio.to_thread.run_sync(read)
    except InvalidJson as error:
        raise TaskFault(f"{OUTPUT_JSON}: {error}") from None


def _is_list(file: OutputFile) -> bool:
    with file.open() as opened:
        return opened.read(4096).lstrip()[:1] == b"["


async def _store_list(file: OutputFile, files: dict[str, OutputFile], blobs: BlobStore) -> Output:
    """Store a long list: the canonical bytes of a list are those of its elements, so it is never whole in memory."""
    written = Written(None, files, blobs)

    async def pieces() -> AsyncGenerator[bytes, None]:
        separator = b"["
        with await trio.to_thread.run_sync(file.open) as opened:
            groups = _few_at_once(opened)
            while group := await trio.to_thread.run_sync(next, groups, None):
                linked = await written.with_links(group)
                yield separator + (await trio.to_thread.run_sync(canonical_json, linked))[1:-1]
                separator = b","
        yield b"[]" if separator == b"[" else b"]"

    return await store_pieces(pieces(), blobs)


def _few_at_once(opened: Any) -> Iterator[list[Any]]:
    """The elements of the list in ``opened``, in groups of about a megabyte."""
    group: list[Any] = []
    size = index = 0
    try:
        for text, _ in read_elements(opened):
            try:
                group.append(loads_strict(text.encode()))
            except InvalidJson as error:
                place = f"[{index}]" + (f".{error.place}" if error.place else "")
                raise TaskFault(f"{OUTPUT_JSON}: {place}: {error.message}") from None
            index, size = index + 1, size + len(text)
            if size >= STREAMED_BYTES_MIN:
                yield group
                group, size = [], 0
    except (ValueError, RecursionError) as error:
        raise TaskFault(f"{OUTPUT_JSON}: not JSON: {error}") from None
    if group:
        yield group


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
