"""What a task reads: its input object with files as links, and the folder MESH_INPUT that the object becomes."""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from meshnode.execution.faults import TaskFault
from meshnode.execution.linked import as_link, replaced
from meshnode.execution.shards import ReadJson, shards_of_task
from meshnode.jobs.canonical import InvalidJson, loads_strict
from protocol.batches import shards_of
from protocol.effects import StartRun
from protocol.records import Part, StageSpec
from protocol.wire import Link, Role

JsonObject = dict[str, Any]

_FILES = "files"


async def input_object(order: StartRun, read_json: ReadJson) -> JsonObject:
    """What a split or a merge reads, with its files as links. Raises TaskFault for what a stranger got wrong."""
    settings = _settings(order.stage)
    if order.task.role is Role.MERGE:
        return merge_input(order.stage, settings, order.parts, order.shards)
    return split_input(order.stage, settings, await read_json("the job's input", order.input))


async def shard_inputs(order: StartRun, read_json: ReadJson) -> dict[int, JsonObject]:
    """The inputs of the shards that a task stands for, in order, by shard (`protocol.batches`). Raises TaskFault."""
    shards = shards_of(order.task.index, max(1, order.shards))
    if order.split is None:
        values = [await read_json("the job's input", order.input)]
    else:
        listed = await read_json("the split's output", order.split)
        values = await shards_of_task(listed, order.task.index, read_json)
    if len(values) != len(shards):
        raise TaskFault(f"the split's output lists {len(values)} shards for task {order.task.index}, not {len(shards)}")
    if not all(isinstance(value, dict) for value in values):
        raise TaskFault("the input of the task is not a JSON object")
    # the input's own keys win: a parameter called `tiles` must not replace what the split made
    params = _object(_settings(order.stage), "params")
    return {index: {**params, **value} for index, value in zip(shards, values, strict=True)}


def split_input(stage: StageSpec, settings: JsonObject, job_input: Any) -> JsonObject:
    """What a split reads, built in or not."""
    value: JsonObject = {
        "split": {**_object(settings, "split"), "mode": stage.split},
        "max_shards": stage.max_shards,
        "params": _object(settings, "params"),
        "input": job_input,
    }
    if stage.shard_count:
        value["shard_count"] = stage.shard_count
    return value


def merge_input(stage: StageSpec, settings: JsonObject, parts: Sequence[Part], total_shards: int) -> JsonObject:
    """What a merge reads: the tasks' outputs in order, the failed ones without.

    A task of several shards says their ``count``, and its output is the array of theirs.
    """
    shards: list[JsonObject] = []
    for part in parts:
        own = shards_of(part.index, max(1, total_shards))
        shard: JsonObject = {"index": own.start, "status": "failed" if part.output is None else "success"}
        if len(own) > 1:
            shard["count"] = len(own)
        if part.output is not None:
            shard["output"] = {"cid": part.output.cid, "size": part.output.size}
        shards.append(shard)
    return {
        "merge": {**_object(settings, "merge"), "strategy": stage.merge},
        "params": _object(settings, "params"),
        "shards": shards,
    }


def lay_out(folder: Path, value: JsonObject, content_of: Callable[[str], Path], below: Iterable[Link] = ()) -> None:
    """Make ``folder`` the MESH_INPUT of ``value``: ``input.json``, and its files, hard-linked where that is possible.

    ``below`` are files to which these files refer; they lie at ``files/<cid>``. ``content_of`` names the verified file
    of a CID. Blocking.
    """
    placed = place_files(folder, value, content_of, below)
    (folder / "input.json").write_text(json.dumps(placed))
    (folder / "input.json").chmod(0o644)
    folder.chmod(0o755)


def place_files(
    folder: Path, value: JsonObject, content_of: Callable[[str], Path], below: Iterable[Link] = ()
) -> JsonObject:
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

    for link in below:
        if not (files / link.cid).exists():
            link_or_copy(content_of(link.cid), files / link.cid)
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
