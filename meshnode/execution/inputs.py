"""What a task reads: its input object with files as links, and the folder MESH_INPUT that the object becomes."""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from meshnode.execution.faults import TaskFault
from meshnode.execution.linked import as_link, replaced
from meshnode.jobs.canonical import InvalidJson, loads_strict
from protocol.effects import StartRun
from protocol.records import Part, StageSpec
from protocol.wire import Link, Output, Role

JsonObject = dict[str, Any]
ReadJson = Callable[[str, Link | Output], Awaitable[Any]]
"""Fetches a blob and reads it as strict JSON; the text says in an error what it was."""

_FILES = "files"


async def input_object(order: StartRun, read_json: ReadJson) -> JsonObject:
    """What a split or a merge reads, with its files as links. Raises TaskFault for what a stranger got wrong."""
    settings = _settings(order.stage)
    if order.task.role is Role.MERGE:
        return merge_input(order.stage, settings, order.parts)
    if order.task.role is Role.SPLIT:
        return split_input(order.stage, settings, await read_json("the job's input", order.input))
    raise AssertionError("a task of shards has one input for each: shards.shard_inputs")


def with_params(stage: StageSpec, values: Sequence[Any]) -> list[JsonObject]:
    """The inputs of shards with the stage's parameters in each. Raises TaskFault."""
    params = _object(_settings(stage), "params")
    if not all(isinstance(value, dict) for value in values):
        raise TaskFault("the input of the task is not a JSON object")
    # the input's own keys win: a parameter called `tiles` must not replace what the split made
    return [{**params, **value} for value in values]


def split_input(stage: StageSpec, settings: JsonObject, job_input: Any) -> JsonObject:
    """What the built-in split program reads."""
    value: JsonObject = {
        "split": {**_object(settings, "split"), "mode": stage.split},
        "max_shards": stage.max_shards,
        "input": job_input,
    }
    if stage.shard_count:
        value["shard_count"] = stage.shard_count
    return value


def merge_input(stage: StageSpec, settings: JsonObject, parts: Sequence[Part]) -> JsonObject:
    """What the built-in merge program reads: the shards' outputs in order, the failed ones without."""
    shards: list[JsonObject] = [
        {"index": part.index, "status": "failed"}
        if part.output is None
        else {
            "index": part.index,
            "status": "success",
            "output": {"cid": part.output.cid, "size": part.output.size},
        }
        for part in parts
    ]
    return {"merge": {**_object(settings, "merge"), "strategy": stage.merge}, "shards": shards}


def shard_of(split_output: Any, index: int) -> Any:
    """The input of shard ``index`` as a split's output lists it."""
    shards = split_output.get("shards") if isinstance(split_output, dict) else None
    if not isinstance(shards, list) or not 0 <= index < len(shards):
        raise TaskFault(f"the split's output lists no shard {index}")
    return shards[index]


def lay_out(folder: Path, value: JsonObject, content_of: Callable[[str], Path]) -> None:
    """Make ``folder`` the MESH_INPUT of ``value``: ``input.json``, and its files, hard-linked where that is possible.

    ``content_of`` names the verified file of a CID. Blocking.
    """
    placed = place_files(folder, value, content_of)
    (folder / "input.json").write_text(json.dumps(placed))
    (folder / "input.json").chmod(0o644)
    folder.chmod(0o755)


def place_files(folder: Path, value: JsonObject, content_of: Callable[[str], Path]) -> JsonObject:
    """``value`` with the ``path`` below ``folder`` at which each of its files now lies. Blocking."""
    files = folder / _FILES
    files.mkdir(parents=True)
    files.chmod(0o755)

    def place(item: JsonObject) -> JsonObject:
        link = as_link(item)
        if link is None:
            return item
        media_type = item.get("media_type")
        suffix = mimetypes.guess_extension(media_type) if isinstance(media_type, str) else None
        target = files / (link.cid + (suffix or ""))
        if not target.exists():
            link_or_copy(content_of(link.cid), target)
        return {**item, "path": f"{_FILES}/{target.name}"}

    placed: JsonObject = replaced(value, place)
    return placed


def link_or_copy(source: Path, target: Path) -> None:
    """Have the read-only file ``source`` at ``target`` as well, without its bytes where the file system allows."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        target.chmod(0o444)


def _settings(stage: StageSpec) -> JsonObject:
    try:
        value = loads_strict(stage.settings)
    except InvalidJson as error:
        raise TaskFault(f"the settings of stage {stage.name!r} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise TaskFault(f"the settings of stage {stage.name!r} are not a JSON object")
    return value


def _object(settings: JsonObject, key: str) -> JsonObject:
    value = settings.get(key) or {}
    if not isinstance(value, dict):
        raise TaskFault(f"the stage's settings: {key}: not a JSON object")
    return value
