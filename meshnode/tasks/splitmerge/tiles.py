"""The grid of a tile split: where each tile lies, with and without its overlap. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels in image coordinates."""

    x: int
    y: int
    width: int
    height: int

    def as_json(self) -> dict[str, int]:
        return {"x": self.x, "y": self.y, "width": self.width, "height": self.height}


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of ``tile_size`` pixels a side over an image, each widened by ``overlap`` on every side.

    The cores partition the image: every pixel lies in exactly one. The last row and column may be smaller.
    """

    width: int
    height: int
    tile_size: int
    overlap: int

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_size)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_size)

    def core(self, column: int, row: int) -> Box:
        """Return the part of the image that belongs to this tile alone."""
        x, y = column * self.tile_size, row * self.tile_size
        return Box(x, y, min(self.tile_size, self.width - x), min(self.tile_size, self.height - y))

    def area(self, column: int, row: int) -> Box:
        """Return the core and the overlap around it, as far as the image goes."""
        core = self.core(column, row)
        x, y = max(0, core.x - self.overlap), max(0, core.y - self.overlap)
        right = min(self.width, core.x + core.width + self.overlap)
        bottom = min(self.height, core.y + core.height + self.overlap)
        return Box(x, y, right - x, bottom - y)
