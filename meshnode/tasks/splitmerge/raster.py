"""Reading a stranger's image from top to bottom and cutting tiles from it, through libvips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyvips

from .contract import BadInput
from .tiles import Box, Grid

PIXELS_MAX = 10**10
"""An image that claims more pixels is refused before any of them is decoded (a decompression bomb)."""

# Of libvips' many decoders a stranger's file reaches only these three.
pyvips.operation_block_set("VipsForeignLoad", True)
for _loader in ("VipsForeignLoadJpeg", "VipsForeignLoadPng", "VipsForeignLoadTiff"):
    pyvips.operation_block_set(_loader, False)

# What PNG holds without loss, and the meaning the bands then have. Keyed by (sample format, bands).
_GREY, _COLOUR = (1, 2), (3, 4)
_LOSSLESS = {
    **{("uchar", bands): "b-w" for bands in _GREY},
    **{("uchar", bands): "srgb" for bands in _COLOUR},
    **{("ushort", bands): "grey16" for bands in _GREY},
    **{("ushort", bands): "rgb16" for bands in _COLOUR},
}
_INTERPRETATIONS = {"b-w", "srgb", "rgb", "grey16", "rgb16", "multiband"}


_LINES_AT_ONCE = 64


class Raster:
    """One image open for a single pass. Coordinates are those of the stored pixels; EXIF rotation is ignored.

    A file of several pages is read as its first one, which is the full resolution in a pyramid.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._place = place
        self._image = open_image(path, place)
        self.width: int = self._image.width
        self.height: int = self._image.height

    def rows_of_tiles(self, grid: Grid) -> Iterator[Iterator[bytes]]:
        """Yield the rows of ``grid`` from the top, each as its tiles from the left, as PNG files; use one row up first.

        Every line is decoded once. Held in memory is one row of tiles: image width × (tile size + 2 overlaps).
        """
        # A Region keeps the decoder's place between calls. Evaluating crops of a sequential image one after
        # another does not: libvips drops its line cache after each evaluation.
        region = pyvips.Region.new(self._image)
        line_bytes = self.width * self._image.bands * (2 if self._image.format == "ushort" else 1)
        lines = memoryview(bytearray(max(grid.area(0, row).height for row in range(grid.rows)) * line_bytes))
        top = bottom = 0  # the image lines that are in it
        for row in range(grid.rows):
            area = grid.area(0, row)
            kept = bottom - area.y
            lines[: kept * line_bytes] = lines[(area.y - top) * line_bytes : (bottom - top) * line_bytes]
            top, bottom = area.y, area.y + area.height
            self._read(region, top + kept, bottom, lines[kept * line_bytes :])
            strip = pyvips.Image.new_from_memory(
                lines[: area.height * line_bytes], self.width, area.height, self._image.bands, self._image.format
            ).copy(interpretation=_LOSSLESS[self._image.format, self._image.bands])
            yield (self._cut(strip, grid.area(column, row), top) for column in range(grid.columns))

    def _read(self, region: pyvips.Region, top: int, bottom: int, lines: memoryview) -> None:
        """Decode the image's lines from ``top`` up to ``bottom`` into ``lines``."""
        at = 0
        for y in range(top, bottom, _LINES_AT_ONCE):
            try:
                found = region.fetch(0, y, self.width, min(_LINES_AT_ONCE, bottom - y))
            except pyvips.Error as problem:
                raise damaged(self._place, problem) from None
            lines[at : at + len(found)] = memoryview(found)
            at += len(found)

    @staticmethod
    def _cut(strip: pyvips.Image, area: Box, top: int) -> bytes:
        tile = strip.crop(area.x, area.y - top, area.width, area.height)
        return bytes(tile.pngsave_buffer(compression=1, keep="none"))


def open_image(path: Path, place: str) -> pyvips.Image:
    """Open an image that is then read from top to bottom; raise BadInput for what tiles cannot hold without loss."""
    try:
        # A damaged JPEG is only a "warning" to its decoder, which fills what is missing with grey. For the
        # other two a warning may be no more than an unknown tag.
        with path.open("rb") as file:
            fail_on = "warning" if file.read(2) == b"\xff\xd8" else "error"
        image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on=fail_on)
    except pyvips.Error as problem:
        if "is not a known file format" in str(problem):
            raise BadInput(f"{place}: the file is not a JPEG, PNG or TIFF image") from None
        raise damaged(place, problem) from None
    if image.width * image.height > PIXELS_MAX:
        raise BadInput(f"{place}: the image has {image.width} × {image.height} pixels, more than {PIXELS_MAX}")
    if (image.format, image.bands) not in _LOSSLESS or image.interpretation not in _INTERPRETATIONS:
        raise BadInput(
            f"{place}: {image.bands} bands of {image.format} {image.interpretation} cannot be cut into "
            "lossless tiles; expected 8- or 16-bit grey or RGB, with or without alpha"
        )
    return image


def damaged(place: str, problem: pyvips.Error) -> BadInput:
    """What libvips said about a file, as a sentence."""
    lines = [line.strip() for line in problem.detail.splitlines() if line.strip()]
    reason = lines[-1].split(": ", 1)[-1] if lines else problem.message
    return BadInput(f"{place}: the image is damaged: {reason}")
