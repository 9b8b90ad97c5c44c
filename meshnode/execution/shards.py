"""A split's output: the inputs of the shards, as a split writes them, as they are stored, and as a task reads its own.

A split writes ``{"shards": [input, …]}``, or where they are many ``{"shards": {"path": "shards.jsonl"}}``, a file with
one input a line. Stored is the list itself as long as it is small; else ``{"count": N, "tasks": [link, …]}``, for each
task a file with the list of its shards' inputs (`protocol.batches`). Nobody, here or later, has all of them in memory.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.faults import TaskFault
from meshnode.execution.linked import as_link
from meshnode.execution.written import OUTPUT_JSON, Written, store_json, store_pieces
from meshnode.jobs.canonical import SIZE_MAX, InvalidJson, canonical_json, loads_strict
from protocol.batches import shards_of, task_count
from protocol.limits import SHARDS_MAX, TASKS_MAX
from protocol.wire import Link, Output

INLINE_BYTES_MAX = 1 << 20
"""A longer list of shards is stored in a file per task."""
_AT_ONCE_BYTES = 1 << 20
ReadJson = Callable[[str, Link | Output], Awaitable[Any]]
"""Fetches a blob and reads it as strict JSON; the text says in an error what it was."""


async def shards_of_task(split_output: Any, index: int, read_json: ReadJson) -> list[Any]:
    """The inputs of the shards of task ``index``, in order, given the JSON value of a stored split's output.

    ``read_json`` fetches and reads a blob; the text says what it is. Raises TaskFault.
    """
    match split_output:
        case {"shards": [*shards]} if 0 <= index < len(shards) <= TASKS_MAX:
            return [shards[index]]
        case {"count": int(count), "tasks": [*tasks]} if 0 <= index < len(tasks) == task_count(count):
            link = as_link(tasks[index]) if isinstance(tasks[index], dict) else None
            if link is not None:
                listed = await read_json(f"the list of the shards of task {index}", link)
                if isinstance(listed, list) and len(listed) == len(shards_of(index, count)):
                    return listed
    raise TaskFault(f"the split's output lists no shard {index}")


async def store_split(written: Written, max_shards: int, blobs: BlobStore) -> tuple[Output, int]:
    """Store what a split wrote; also how many shards there are. Raises TaskFault for what is no split's output."""
    match written.value:
        case {"shards": [*shards]}:
            count = len(shards)
            _check_count(count, max_shards)
            for index, shard in enumerate(shards):
                _check_shard(shard, index)
            if count <= TASKS_MAX:
                value = {"shards": await written.with_links(shards)}
                content = await trio.to_thread.run_sync(canonical_json, value)
                if len(content) <= INLINE_BYTES_MAX:
                    return await store_json(value, blobs), count
            inputs: Iterator[Any] = iter(shards)
            return await _store_tasks(inputs, count, written, blobs), count
        case {"shards": {"path": str(path)}} if (file := written.file(path)) is not None:
            with await trio.to_thread.run_sync(file.open) as lines:
                count = await trio.to_thread.run_sync(lambda: sum(1 for line in _lines(lines)))
            _check_count(count, max_shards)
            with await trio.to_thread.run_sync(file.open) as lines:
                return await _store_tasks(_parsed(_lines(lines)), count, written, blobs), count
    raise TaskFault(f"the split's {OUTPUT_JSON} lists no shards: it should hold a list or a file of them as 'shards'")


async def _store_tasks(inputs: Iterator[Any], count: int, written: Written, blobs: BlobStore) -> Output:
    tasks = []
    for index in range(task_count(count)):
        wanted = len(shards_of(index, count))
        stored = await store_pieces(_task_pieces(inputs, wanted, written), blobs)
        if stored.size > SIZE_MAX:
            raise TaskFault(
                f"the inputs of the shards of task {index} are {stored.size} bytes of JSON, more than"
                f" {SIZE_MAX}; put what is large into files"
            )
        tasks.append({"cid": stored.cid, "size": stored.size, "media_type": "application/json"})
    return await store_json({"count": count, "tasks": tasks}, blobs)


async def _task_pieces(inputs: Iterator[Any], wanted: int, written: Written) -> AsyncGenerator[bytes, None]:
    """The canonical JSON list of the next ``wanted`` inputs."""
    separator = b"["
    while wanted:
        shards = await trio.to_thread.run_sync(_next_few, inputs, wanted)
        if not shards:
            raise TaskFault("the split's file of shards changed while it was read")
        wanted -= len(shards)
        shards = await written.with_links(shards)
        yield separator + (await trio.to_thread.run_sync(canonical_json, shards))[1:-1]
        separator = b","
    yield b"]"


def _next_few(inputs: Iterator[Any], wanted: int) -> list[Any]:
    """Up to ``wanted`` inputs, as many as are looked at in one go."""
    taken: list[Any] = []
    size = 0
    for value in islice(inputs, wanted):
        taken.append(value)
        size += len(json.dumps(value))
        if size >= _AT_ONCE_BYTES:
            break
    return taken


def _lines(file: Any) -> Iterator[bytes]:
    while line := file.readline(SIZE_MAX + 1):
        if len(line) > SIZE_MAX:
            raise TaskFault(f"the split's file of shards has a line of more than {SIZE_MAX} bytes")
        yield line


def _parsed(lines: Iterator[bytes]) -> Iterator[Any]:
    for index, line in enumerate(lines):
        try:
            value = loads_strict(line)
        except InvalidJson as error:
            raise TaskFault(f"the split's shard {index} cannot be an input: {error}") from None
        _check_shard(value, index)
        yield value


def _check_shard(value: Any, index: int) -> None:
    if not isinstance(value, dict):
        raise TaskFault(f"the split's shard {index} is not a JSON object")


def _check_count(count: int, max_shards: int) -> None:
    limit = min(max_shards, SHARDS_MAX)
    if not 1 <= count <= limit:
        raise TaskFault(f"the split made {count} shards, where 1 to {limit} are allowed")
