"""The merge program: the outputs of a job's shards in, the job's output out.

input.json: ``{"merge": {"strategy"}, "shards": [{"index", "status", "output": {"path", "cid", "size",
"media_type"}}, ...]}``, where a failed shard has no ``output``. output.json is the merged value itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .contract import BadInput, JsonObject, as_links, describe, file_path, parse_json, write_output

Shards = list[JsonObject]


def merge(task: JsonObject, input_dir: Path, output_dir: Path) -> None:
    """Write output.json into ``output_dir``; raise BadInput if the shards' outputs cannot be merged."""
    settings = task.get("merge")
    if not isinstance(settings, dict):
        raise BadInput(f"merge: expected an object, got {describe(settings)}")
    strategy = settings.get("strategy") or "none"
    strategies: dict[str, Callable[[Shards], None]] = {
        "none": lambda shards: write_output(output_dir, _links(shards)),
        "concat-json": lambda shards: _concat_json(shards, input_dir, output_dir),
    }
    if not isinstance(strategy, str) or strategy not in strategies:
        raise BadInput(f"merge.strategy: {describe(strategy)} is not one of {', '.join(strategies)}")
    strategies[strategy](_in_order(task.get("shards")))


def _in_order(value: object) -> Shards:
    if not isinstance(value, list):
        raise BadInput(f"shards: expected a list, got {describe(value)}")
    shards: dict[int, JsonObject] = {}
    for position, shard in enumerate(value):
        index = shard.get("index") if isinstance(shard, dict) else None
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise BadInput(f"shards[{position}].index: expected a shard's number, got {describe(index)}")
        if index in shards:
            raise BadInput(f"shards[{position}].index: shard {index} is listed twice")
        if shard.get("status") == "success" and not isinstance(shard.get("output"), dict):
            raise BadInput(f"shards[{position}].output: shard {index} succeeded but has no output")
        shards[index] = shard
    return [shards[index] for index in sorted(shards)]


def _links(shards: Shards) -> list[JsonObject | None]:
    return [as_links(shard["output"]) if shard.get("status") == "success" else None for shard in shards]


def _concat_json(shards: Shards, input_dir: Path, output_dir: Path) -> None:
    """Join the outputs in shard order: the elements of a list, anything else as one element.

    An output is parsed to be sure of what it is, then its text is copied, so one shard's output at a time is in
    memory and no number changes on its way through.
    """
    with (output_dir / "output.json").open("wb") as merged:
        separator = b"["
        for shard in shards:
            if shard.get("status") != "success":
                continue
            place = f"the output of shard {shard['index']}"
            text = file_path(shard["output"], place, input_dir).read_bytes().strip()
            try:
                value = parse_json(text)
            except ValueError as problem:
                raise BadInput(f"{place} is not JSON, so concat-json cannot join it: {problem}") from None
            if isinstance(value, list):
                text = text[1:-1].strip()
            if text:
                merged.write(separator + text)
                separator = b","
        merged.write(b"[]" if separator == b"[" else b"]")
