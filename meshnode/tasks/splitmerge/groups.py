"""How many shards the parts of an input become, and which parts each shard gets."""

from __future__ import annotations

from collections.abc import Iterator

from .contract import BadInput

SHARDS_MAX = 100_000
"""More shards than this in one job are refused whatever the job says: their list is held in memory."""


def count_shards(parts: int, noun: str, shard_count: int | None, max_shards: int | None) -> int:
    """Return how many shards ``parts`` (at least 1) become.

    As many as asked for, or one per part when that is fewer or when nothing was asked for. A number that is
    too large is refused and never cut down, so that a job does not silently run in another shape.
    """
    shards = parts if shard_count is None else min(parts, shard_count)
    limit = SHARDS_MAX if max_shards is None else min(max_shards, SHARDS_MAX)
    if shards > limit:
        name = "max_shards" if limit == max_shards else "the largest number of shards"
        hint = "" if shard_count is not None else "; give a shard_count to put several into one shard"
        raise BadInput(f"{parts} {noun} would make {shards} shards, more than {name}, {limit}{hint}")
    return shards


def bounds(parts: int, shards: int) -> Iterator[tuple[int, int]]:
    """Yield ``shards`` half-open ranges that cover ``range(parts)`` in order, in sizes that differ by at most 1."""
    for index in range(shards):
        yield index * parts // shards, (index + 1) * parts // shards
