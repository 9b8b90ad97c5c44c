"""What one split is asked for: the job's input, how it is to be cut, and where files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contract import BadInput, JsonObject, as_links, describe, file_path

INTEGER_MAX = 2**53 - 1
"""The largest integer that JSON carries exactly everywhere."""
_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Asked:
    """One input on its way to becoming shards. The split modes are functions from this to the shards' inputs."""

    settings: JsonObject
    input: JsonObject
    shard_count: int | None
    max_shards: int | None
    input_dir: Path
    output_dir: Path

    @classmethod
    def of(cls, task: JsonObject, input_dir: Path, output_dir: Path) -> Asked:
        """Read the split program's input; raise BadInput if it makes no sense."""
        job_input = task.get("input")
        if not isinstance(job_input, dict):
            raise BadInput(f"input: expected an object, got {describe(job_input)}")
        settings = task.get("split") or {}
        if not isinstance(settings, dict):
            raise BadInput(f"split: expected an object, got {describe(settings)}")
        shard_count = integer(task, "shard_count", 1, default=None)
        return cls(
            settings, job_input, shard_count, integer(task, "max_shards", 1, default=None), input_dir, output_dir
        )

    def value(self, *keys: str) -> tuple[str, Any]:
        """The key that is to be split, of the mode's own ``keys`` unless the job names another, and what it holds."""
        named = self.settings.get("key")
        if named is not None and not (isinstance(named, str) and named):
            raise BadInput(f"split.key: expected a name, got {describe(named)}")
        wanted = (named,) if named else keys
        for key in wanted:
            if key in self.input:
                return key, self.input[key]
        others = "".join(f", and so is {key}" for key in wanted[1:])
        raise BadInput(f"input.{wanted[0]}: is missing{others}; it is what the job asks to split")

    def file(self, key: str) -> Path:
        """The file under ``key`` of the input."""
        return file_path(self.input[key], f"input.{key}", self.input_dir)

    def integer(self, name: str, minimum: int, default: int) -> int:
        """A number among the settings."""
        value = integer(self.settings, name, minimum, default=default, place="split")
        assert value is not None
        return value

    def inputs(self, key: str | None, share_key: str, shares: Iterable[Any]) -> Iterator[JsonObject]:
        """The input of each shard: the job's, where ``share_key`` with the shard's share stands in place of ``key``."""
        rest = {name: as_links(value) for name, value in self.input.items() if name != key}
        if share_key in rest:
            what = "this split" if key is None else f"the split of {key!r}"
            raise BadInput(f"input.{share_key}: {what} needs this key for the shards")
        return ({**rest, share_key: share} for share in shares)


def integer(values: JsonObject, name: str, minimum: int, *, default: object = _REQUIRED, place: str = "") -> int | None:
    """Return ``values[name]``, an integer of at least ``minimum``; null stands for the default."""
    where = f"{place}.{name}" if place else name
    value = values.get(name)
    if value is None:
        if default is _REQUIRED:
            raise BadInput(f"{where}: is missing")
        assert default is None or isinstance(default, int)
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"{where}: expected an integer, got {describe(value)}")
    if not minimum <= value <= INTEGER_MAX:
        bound = f"at least {minimum}" if value < minimum else f"at most {INTEGER_MAX}"
        raise BadInput(f"{where}: must be {bound}, got {describe(value)}")
    return value
