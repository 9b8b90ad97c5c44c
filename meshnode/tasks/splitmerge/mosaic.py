"""The merge that puts tiles back into one image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile

from .asked import integer
from .contract import BadInput, describe
from .parts import Part, Parts
from .raster import damaged, open_image
from .tiles import Box

TILES_MAX = 10_000
STRIP_LINES = 64
"""Lines that are read at once, and that are a strip of the TIFF file."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """A file that shows ``area`` of the image, of which ``core`` goes into it."""

    place: str
    path: Path
    area: Box
    core: Box


def stitch(parts: Parts, output_dir: Path) -> None:
    """Write output.tif from the outputs' ``tiles``: ``[{"path" or "cid", "x", "y", "width", "height", "core"}]``.

    The cores must make up the image in rows; without ``core`` it is the tile's whole area. Held in memory are some
    lines of one row of tiles.
    """
    tiles = [tile for part in parts.succeeded for tile in _tiles_of(part)]
    if not tiles:
        raise BadInput("stitch: the outputs list no tiles")
    if len(tiles) > TILES_MAX:
        raise BadInput(f"stitch: the outputs list {len(tiles)} tiles, more than {TILES_MAX}")
    tiles.sort(key=lambda tile: (tile.core.y, tile.core.x))
    rows = [list(row) for _, row in groupby(tiles, key=lambda tile: tile.core.y)]
    width = _check_rows(rows)
    height = rows[-1][0].core.y + rows[-1][0].core.height
    first = _opened(tiles[0], None)
    bands, dtype = first.bands, np.dtype(np.uint16 if first.format == "ushort" else np.uint8)
    tifffile.imwrite(
        output_dir / "output.tif",
        _strips(rows, width, first),
        shape=(height, width, bands) if bands > 1 else (height, width),
        dtype=dtype,
        photometric="rgb" if bands > 2 else "minisblack",
        planarconfig="contig" if bands > 1 else None,
        extrasamples=["unassalpha"] if bands in (2, 4) else None,
        rowsperstrip=STRIP_LINES,
        compression="zlib",
        bigtiff=height * width * bands * dtype.itemsize > 2**31,
        metadata=None,
        software=False,
    )


def _strips(rows: list[list[_Tile]], width: int, like: pyvips.Image) -> Iterator[bytes]:
    """The strips of the TIFF file, compressed, from the top."""
    sample = 2 if like.format == "ushort" else 1
    strip = width * like.bands * sample * STRIP_LINES
    pending = bytearray()
    for row in rows:
        regions = [(tile, pyvips.Region.new(_opened(tile, like))) for tile in row]
        height = row[0].core.height
        for top in range(0, height, STRIP_LINES):
            count = min(STRIP_LINES, height - top)
            pending += np.concatenate(
                [_lines(tile, region, top, count, like.bands * sample) for tile, region in regions], axis=1
            ).tobytes()
            while len(pending) >= strip:
                yield zlib.compress(pending[:strip], 1)
                del pending[:strip]
    if pending:
        yield zlib.compress(pending, 1)


def _lines(tile: _Tile, region: pyvips.Region, top: int, count: int, pixel_bytes: int) -> Any:
    core, area = tile.core, tile.area
    try:
        found = region.fetch(core.x - area.x, core.y - area.y + top, core.width, count)
    except pyvips.Error as problem:
        raise damaged(tile.place, problem) from None
    return np.frombuffer(found, np.uint8).reshape(count, core.width * pixel_bytes)


def _opened(tile: _Tile, like: pyvips.Image | None) -> pyvips.Image:
    image = open_image(tile.path, tile.place)
    if (image.width, image.height) != (tile.area.width, tile.area.height):
        raise BadInput(
            f"{tile.place}: the image has {image.width} × {image.height} pixels, and the tile says "
            f"{tile.area.width} × {tile.area.height}"
        )
    if like is not None and (image.bands, image.format) != (like.bands, like.format):
        raise BadInput(
            f"{tile.place}: {image.bands} bands of {image.format} do not fit to the first tile's "
            f"{like.bands} of {like.format}"
        )
    return image


def _tiles_of(part: Part) -> Iterator[_Tile]:
    value = part.value("stitch")
    listed = value.get("tiles") if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise BadInput(f"{part.place}: tiles: expected a list of tiles, got {describe(listed)}")
    for index, item in enumerate(listed):
        name = f"tiles[{index}]"
        path = part.linked(item, name)
        area = _box(item, f"{part.place}: {name}")
        core = area if item.get("core") is None else _box(item["core"], f"{part.place}: {name}.core")
        inside = core.x >= area.x and core.y >= area.y
        inside = inside and core.x + core.width <= area.x + area.width and core.y + core.height <= area.y + area.height
        if not inside:
            raise BadInput(f"{part.place}: {name}: the core lies outside of the tile")
        yield _Tile(f"{part.place}: {name}", path, area, core)


def _box(value: Any, place: str) -> Box:
    if not isinstance(value, dict):
        raise BadInput(f"{place}: expected an object, got {describe(value)}")
    numbers = [
        integer(value, name, minimum, place=place)
        for name, minimum in (("x", 0), ("y", 0), ("width", 1), ("height", 1))
    ]
    return Box(*(number for number in numbers if number is not None))


def _check_rows(rows: list[list[_Tile]]) -> int:
    """The width of the image that the cores make up; raise BadInput where they leave a gap or overlap."""
    width = rows[0][-1].core.x + rows[0][-1].core.width
    y = 0
    for row in rows:
        x = 0
        for tile in row:
            core = tile.core
            if (core.x, core.y, core.height) != (x, y, row[0].core.height):
                raise BadInput(f"{tile.place}: the cores of the tiles do not fit together at x {x}, y {y}")
            x += core.width
        if x != width:
            raise BadInput(f"{row[-1].place}: the cores of the tiles do not fit together at x {x}, y {y}")
        y += row[0].core.height
    return width
