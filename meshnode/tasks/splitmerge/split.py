"""The split program: one job input in, one input per shard out.

input.json: ``{"split": {"mode", "key", …}, "shard_count", "max_shards", "input"}``. output.json: ``{"shards": [input of
shard 0, input of shard 1, ...]}``, or where they are many ``{"shards": {"path": "shards.jsonl"}}`` and a file with one
of them a line. Each is the job's input in which what was split is replaced by that shard's share: ``tiles``, ``items``,
``lines``, ``windows`` or ``range``; or to which a ``candidate`` is added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .asked import Asked
from .contract import BadInput, JsonObject, describe, write_output
from .groups import SHARDS_MAX
from .lists import batch, candidates, ranges, whole
from .plugins import find_plugin, is_plugin
from .sequences import lines, windows
from .tiling import tiles

INLINE_SHARDS_MAX = 200
INLINE_CHARS_MAX = 1 << 20
"""More shards, or longer ones, are written to a file of their own."""

Mode = Callable[[Asked], Iterator[JsonObject]]
MODES: dict[str, Mode] = {
    "none": whole,
    "tile": tiles,
    "batch": batch,
    "window": windows,
    "lines": lines,
    "range": ranges,
    "candidates": candidates,
}


def split(task: JsonObject, input_dir: Path, output_dir: Path) -> None:
    """Write output.json and the files it names into ``output_dir``; raise BadInput if that cannot be done."""
    asked = Asked.of(task, input_dir, output_dir)
    mode = asked.settings.get("mode") or "none"
    if is_plugin(mode):
        _write(_checked(find_plugin("splits", mode)(task, input_dir, output_dir), mode, asked), output_dir)
        return
    if not isinstance(mode, str) or mode not in MODES:
        raise BadInput(f"split.mode: {describe(mode)} is not one of {', '.join(MODES)}")
    _write(MODES[mode](asked), output_dir)


def _checked(inputs: Any, mode: str, asked: Asked) -> Iterator[JsonObject]:
    """What a plug-in makes, as far as it can be the inputs of shards."""
    if not isinstance(inputs, Iterable):
        raise BadInput(f"the split plug-in {mode!r} returned no series of inputs")
    limit = min(asked.max_shards or SHARDS_MAX, SHARDS_MAX)
    for index, value in enumerate(inputs):
        if not isinstance(value, dict):
            raise BadInput(f"the split plug-in {mode!r} made {describe(value)} of shard {index}, which is no object")
        if index == limit:
            raise BadInput(f"the split plug-in {mode!r} made more than {limit} shards")
        yield value


def _write(inputs: Iterator[JsonObject], output_dir: Path) -> None:
    """Write the inputs one at a time; the first of them are held until it is known that they are few."""
    held: list[str] = []
    size = 0
    for value in inputs:
        held.append(json.dumps(value, allow_nan=False))
        size += len(held[-1])
        if len(held) > INLINE_SHARDS_MAX or size > INLINE_CHARS_MAX:
            break
    else:
        with (output_dir / "output.json").open("w", encoding="utf-8") as file:
            file.write(f'{{"shards": [{", ".join(held)}]}}')
        return
    with (output_dir / "shards.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in held)
        held.clear()
        file.writelines(json.dumps(value, allow_nan=False) + "\n" for value in inputs)
    write_output(output_dir, {"shards": {"path": "shards.jsonl"}})
