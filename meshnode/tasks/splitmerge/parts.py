"""What a merge reads: the outputs of the shards, one after the other, in the order of the shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contract import BadInput, JsonObject, describe, file_path, parse_json
from .elements import read_elements

JSON_BYTES_MAX = 64 << 20
"""The JSON output of one shard may have so many bytes, unless it is a list that is read element by element."""


@dataclass(frozen=True, slots=True)
class Part:
    """The output of one shard. It is a file, or the JSON text of an element of one that several shards share."""

    index: int
    """Of the shard."""
    link: JsonObject | None
    """The output as the task's input names it; None where the shard failed, or shares its output."""
    file: Path | None
    text: str | None
    input_dir: Path

    @property
    def failed(self) -> bool:
        return self.file is None and self.text is None

    @property
    def place(self) -> str:
        """How to call it in a message."""
        return f"the output of shard {self.index}"

    def value(self, strategy: str) -> Any:
        """The output's JSON value; raise BadInput, naming ``strategy``, if it is none."""
        try:
            return parse_json(self.json_text())
        except RecursionError:
            raise BadInput(f"{self.place} is nested too deeply") from None
        except ValueError as problem:
            raise BadInput(f"{self.place} is not JSON, so {strategy} cannot use it: {problem}") from None

    def json_text(self) -> bytes:
        """The output as it is, if it can be JSON by its size."""
        if self.text is not None:
            return self.text.encode()
        assert self.file is not None
        size = self.file.stat().st_size
        if size > JSON_BYTES_MAX:
            raise BadInput(
                f"{self.place} has {size} bytes, more than the {JSON_BYTES_MAX} of JSON that are read at once"
            )
        return self.file.read_bytes()

    def linked(self, value: Any, place: str) -> Path:
        """The file that a link in the output, at ``place``, refers to: files of outputs lie at files/<cid>."""
        if isinstance(value, dict) and "path" not in value and isinstance(value.get("cid"), str):
            value = {"path": f"files/{value['cid']}"}
        return file_path(value, f"{self.place}: {place}", self.input_dir)


class Parts:
    """The outputs of all shards; may be gone through again and again."""

    def __init__(self, task: JsonObject, input_dir: Path) -> None:
        self._input_dir = input_dir
        self._listed = _in_order(task.get("shards"))

    def __iter__(self) -> Iterator[Part]:
        for entry in self._listed:
            first, count = entry["index"], entry.get("count", 1)
            if entry.get("status") != "success":
                for index in range(first, first + count):
                    yield Part(index, None, None, None, self._input_dir)
                continue
            file = file_path(entry["output"], f"the output of shard {first}", self._input_dir)
            if "count" not in entry:
                yield Part(first, entry["output"], file, None, self._input_dir)
                continue
            index = first
            with file.open("rb") as opened:
                try:
                    for text, _ in read_elements(opened):
                        if index < first + count:
                            yield Part(index, None, None, text, self._input_dir)
                        index += 1
                except ValueError as problem:
                    raise BadInput(f"the outputs from shard {first} on are not a JSON list: {problem}") from None
            if index != first + count:
                raise BadInput(f"the outputs from shard {first} on are {index - first}, expected {count}")

    @property
    def succeeded(self) -> Iterator[Part]:
        """Those of shards that did not fail."""
        return (part for part in self if not part.failed)


class ListWriter:
    """Writes a list to output.json, element by element."""

    def __init__(self, output_dir: Path) -> None:
        self._file = (output_dir / "output.json").open("wb")
        self._separator = b"["

    def __enter__(self) -> ListWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.write(b"[]" if self._separator == b"[" else b"]")
        self._file.close()

    def add(self, text: bytes) -> None:
        """Append an element, by its JSON text."""
        self._file.write(self._separator + text)
        self._separator = b","

    def add_value(self, value: Any) -> None:
        self.add(json.dumps(value, allow_nan=False).encode())


def _in_order(value: object) -> list[JsonObject]:
    if not isinstance(value, list):
        raise BadInput(f"shards: expected a list, got {describe(value)}")
    shards: dict[int, JsonObject] = {}
    for position, shard in enumerate(value):
        index = shard.get("index") if isinstance(shard, dict) else None
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise BadInput(f"shards[{position}].index: expected a shard's number, got {describe(index)}")
        count = shard.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise BadInput(f"shards[{position}].count: expected a number of shards, got {describe(count)}")
        if index in shards:
            raise BadInput(f"shards[{position}].index: shard {index} is listed twice")
        if shard.get("status") == "success" and not isinstance(shard.get("output"), dict):
            raise BadInput(f"shards[{position}].output: shard {index} succeeded but has no output")
        shards[index] = shard
    return [shards[index] for index in sorted(shards)]
