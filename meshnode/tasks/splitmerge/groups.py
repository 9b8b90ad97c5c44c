"""How many shards the parts of an input become, and which parts each shard gets."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .contract import BadInput
from .tiles import Grid

Place = tuple[int, int]
"""Column and row of a tile."""

SHARDS_MAX = 1_000_000
"""More shards than this in one job are refused whatever the job says; ``protocol.limits`` has the same number."""


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


def blocks(grid: Grid, shards: int) -> list[list[Place]]:
    """Return the tiles of each of ``shards`` shards: neighbours together, in sizes that differ by at most 1.

    Shards are in the order of their first tiles, the tiles of each in rows. Of a few ways to cut the grid it is the one
    that parts the fewest neighbours.
    """
    square = math.sqrt(shards * grid.rows / grid.columns)  # so many bands would make square blocks
    even = min(range(1, grid.rows + 1), key=lambda bands: (shards % bands != 0) + abs(math.log(bands / square)))
    counts = {min(max(1, count), grid.rows) for count in (even, math.floor(square), math.ceil(square))}
    paths = [_path(grid, count) for count in sorted(counts)]
    paths.append([(column, row) for row in range(grid.rows) for column in range(grid.columns)])
    cuts = ([path[low:high] for low, high in bounds(len(path), shards)] for path in paths)
    chosen = min(cuts, key=_parted)
    in_rows = [sorted(piece, key=lambda place: place[::-1]) for piece in chosen]
    return sorted(in_rows, key=lambda piece: piece[0][::-1])


def _path(grid: Grid, count: int) -> list[Place]:
    """A path through ``count`` bands of rows, through each column by column, to the right and then back to the left.

    Pieces of it are blocks as high as a band; one that does not fit into its band goes on right below.
    """
    path: list[Place] = []
    for band, (top, bottom) in enumerate(bounds(grid.rows, count)):
        columns = range(grid.columns) if band % 2 == 0 else reversed(range(grid.columns))
        path += [(column, row) for column in columns for row in range(top, bottom)]
    return path


def _parted(pieces: list[list[Place]]) -> int:
    """How many pairs of neighbours are in different pieces."""
    piece_of = {place: index for index, piece in enumerate(pieces) for place in piece}
    pairs = ((piece_of[x, y], piece_of.get(near)) for x, y in piece_of for near in ((x + 1, y), (x, y + 1)))
    return sum(other is not None and one != other for one, other in pairs)
