"""Looking at an image before anything is sent: a job that cannot be cut into tiles is refused at the submitter's desk.

It is cut here just as the split will cut it, so a file that is damaged in the middle is found with its place in the job
file, and not minutes later on somebody else's machine.
"""

from __future__ import annotations

import logging
from pathlib import Path

from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.settings import StageSettings
from protocol.limits import SHARDS_MAX


def check_tiles(path: Path, settings: StageSettings, *, file: str, place: str) -> None:
    """Raise InvalidFile unless the image can be cut as ``settings`` say. Takes as long as the split itself."""
    from meshnode.tasks.splitmerge.contract import BadInput  # here: loading libvips takes a while
    from meshnode.tasks.splitmerge.groups import count_shards
    from meshnode.tasks.splitmerge.raster import Raster
    from meshnode.tasks.splitmerge.tiles import Grid

    logging.getLogger("pyvips").setLevel(logging.ERROR)  # what matters is in the exception
    try:
        raster = Raster(path, place)
        grid = Grid(raster.width, raster.height, settings.split.tile_size, settings.split.overlap)
        limit = min(settings.max_shards or SHARDS_MAX, SHARDS_MAX)
        count_shards(grid.columns * grid.rows, "tiles", settings.shard_count, limit)
        for _ in raster.rows_of_tiles(grid):
            pass  # reading is the check
    except BadInput as error:
        sentence = str(error)
        if sentence.startswith(f"{place}: "):
            raise InvalidFile(file, place, sentence.removeprefix(f"{place}: ")) from None
        raise InvalidFile(file, "shard_count" if settings.shard_count else "multi_node.max_shards", sentence) from None
