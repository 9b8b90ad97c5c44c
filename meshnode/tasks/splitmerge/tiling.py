"""The split of an image into tiles, with neighbours in one shard."""

from __future__ import annotations

from collections.abc import Iterator

from .asked import Asked
from .contract import BadInput, JsonObject
from .groups import blocks, count_shards
from .tiles import Grid

TILES_MAX = 9_000
"""More tiles than this from one image are refused: each becomes a file."""


def tiles(asked: Asked) -> Iterator[JsonObject]:
    """``image_url``: a JPEG, PNG or TIFF file.

    A shard gets ``tiles``: ``[{"path", "x", "y", "width", "height", "core"}]``. ``core`` is the tile without its
    overlap: the cores partition the image.
    """
    from .raster import Raster  # here, because loading libvips is most of the time a batch split takes

    tile_size = asked.integer("tile_size", 1, 512)
    overlap = asked.integer("overlap", 0, 0)
    key, _ = asked.value("image_url")
    raster = Raster(asked.file(key), f"input.{key}")
    grid = Grid(raster.width, raster.height, tile_size, overlap)
    total = grid.columns * grid.rows
    shards = count_shards(total, "tiles", asked.shard_count, asked.max_shards)
    if total > TILES_MAX:
        raise BadInput(f"split.tile_size: {tile_size} cuts the image into {total} tiles, more than {TILES_MAX}")

    def tile(column: int, row: int) -> JsonObject:
        core, area = grid.core(column, row), grid.area(column, row)
        return {"path": f"tiles/{row * grid.columns + column:06}.png", **area.as_json(), "core": core.as_json()}

    inputs = asked.inputs(key, "tiles", ([tile(*place) for place in block] for block in blocks(grid, shards)))
    (asked.output_dir / "tiles").mkdir()
    for row, files in enumerate(raster.rows_of_tiles(grid)):
        for column, png in enumerate(files):
            (asked.output_dir / tile(column, row)["path"]).write_bytes(png)
    return inputs
