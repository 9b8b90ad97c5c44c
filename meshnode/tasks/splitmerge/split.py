"""The split program: one job input in, one input per shard out.

input.json: ``{"split": {"mode", "key", "tile_size", "overlap"}, "shard_count", "max_shards", "input"}``.
output.json: ``{"shards": [input of shard 0, input of shard 1, ...]}``. Each is the job's input in which what
was split is replaced by that shard's share: ``tiles``, ``items`` or ``range``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .contract import BadInput, JsonObject, as_links, describe, file_path, write_output
from .groups import SHARDS_MAX, bounds, count_shards
from .tiles import Grid

INTEGER_MAX = 2**53 - 1
"""The largest integer that JSON carries exactly everywhere."""

TILES_MAX = SHARDS_MAX
"""More tiles than this from one image are refused: each becomes a file."""


def split(task: JsonObject, input_dir: Path, output_dir: Path) -> None:
    """Write output.json and the files it names into ``output_dir``; raise BadInput if that cannot be done."""
    job_input = task.get("input")
    if not isinstance(job_input, dict):
        raise BadInput(f"input: expected an object, got {describe(job_input)}")
    settings = task.get("split") or {}
    if not isinstance(settings, dict):
        raise BadInput(f"split: expected an object, got {describe(settings)}")
    mode = settings.get("mode") or "none"
    cut = _Cut(
        settings=settings,
        job_input=job_input,
        shard_count=_integer(task, "shard_count", 1, default=None),
        max_shards=_integer(task, "max_shards", 1, default=None),
    )
    modes: dict[str, Callable[[], list[JsonObject]]] = {
        "none": cut.whole,
        "tile": lambda: cut.tiles(input_dir, output_dir),
        "batch": cut.batch,
        "range": cut.range,
    }
    if not isinstance(mode, str) or mode not in modes:
        raise BadInput(f"split.mode: {describe(mode)} is not one of {', '.join(modes)}")
    write_output(output_dir, {"shards": modes[mode]()})


class _Cut:
    """One input on its way to becoming shards; each method is a split mode and returns the shards' inputs."""

    def __init__(
        self, settings: JsonObject, job_input: JsonObject, shard_count: int | None, max_shards: int | None
    ) -> None:
        self._settings = settings
        self._input = job_input
        self._shard_count = shard_count
        self._max_shards = max_shards

    def whole(self) -> list[JsonObject]:
        return [as_links(self._input)]

    def batch(self) -> list[JsonObject]:
        key, items = self._value("items")
        if not isinstance(items, list):
            raise BadInput(f"input.{key}: expected a list, got {describe(items)}")
        if not items:
            raise BadInput(f"input.{key}: the list is empty")
        shards = count_shards(len(items), "items", self._shard_count, self._max_shards)
        items = as_links(items)
        return self._with(key, "items", [items[low:high] for low, high in bounds(len(items), shards)])

    def range(self) -> list[JsonObject]:
        key, value = self._value("range")
        place = f"input.{key}"
        if not isinstance(value, dict):
            raise BadInput(f"{place}: expected an object with start, stop and step, got {describe(value)}")
        for name in value:
            if name not in ("start", "stop", "step"):
                raise BadInput(f"{place}: {name!r} is not one of start, stop, step")
        start = _integer(value, "start", -INTEGER_MAX, default=0, place=place)
        stop = _integer(value, "stop", -INTEGER_MAX, place=place)
        step = _integer(value, "step", -INTEGER_MAX, default=1, place=place)
        assert start is not None
        assert stop is not None
        assert step is not None
        if step == 0:
            raise BadInput(f"{place}.step: must not be 0")
        numbers = range(start, stop, step)
        if not numbers:
            raise BadInput(f"{place}: no number lies from {start} to {stop} in steps of {step}")
        shards = count_shards(len(numbers), "numbers", self._shard_count, self._max_shards)
        clamp = min if step > 0 else max  # a slice's own stop may lie beyond the stop that was asked for
        slices = (numbers[low:high] for low, high in bounds(len(numbers), shards))
        shares = [{"start": s.start, "stop": clamp(s.stop, stop), "step": step} for s in slices]
        return self._with(key, "range", shares)

    def tiles(self, input_dir: Path, output_dir: Path) -> list[JsonObject]:
        from .raster import Raster  # here, because loading libvips is most of the time a batch split takes

        tile_size = _integer(self._settings, "tile_size", 1, default=512, place="split")
        overlap = _integer(self._settings, "overlap", 0, default=0, place="split")
        assert tile_size is not None
        assert overlap is not None
        key, value = self._value("image_url")
        raster = Raster(file_path(value, f"input.{key}", input_dir), f"input.{key}")
        grid = Grid(raster.width, raster.height, tile_size, overlap)
        total = grid.columns * grid.rows
        shards = count_shards(total, "tiles", self._shard_count, self._max_shards)
        if total > TILES_MAX:
            raise BadInput(f"split.tile_size: {tile_size} cuts the image into {total} tiles, more than {TILES_MAX}")

        tiles: list[JsonObject] = []
        (output_dir / "tiles").mkdir()
        for row, files in enumerate(raster.rows_of_tiles(grid)):
            for column, (area, png) in enumerate(files):
                path = f"tiles/{len(tiles):06}.png"
                (output_dir / path).write_bytes(png)
                tiles.append({"path": path, **area.as_json(), "core": grid.core(column, row).as_json()})
        return self._with(key, "tiles", [tiles[low:high] for low, high in bounds(total, shards)])

    def _value(self, default_key: str) -> tuple[str, Any]:
        """Return the key that is to be split and what stands under it."""
        key = self._settings.get("key") or default_key
        if not isinstance(key, str):
            raise BadInput(f"split.key: expected a name, got {describe(key)}")
        if key not in self._input:
            raise BadInput(f"input.{key}: is missing; it is what the job asks to split")
        return key, self._input[key]

    def _with(self, key: str, share_key: str, shares: list[Any]) -> list[JsonObject]:
        rest = {name: as_links(value) for name, value in self._input.items() if name != key}
        if share_key in rest:
            raise BadInput(f"input.{share_key}: the split of {key!r} needs this key for the shards")
        return [{**rest, share_key: share} for share in shares]


_REQUIRED = object()


def _integer(
    values: JsonObject, name: str, minimum: int, *, default: object = _REQUIRED, place: str = ""
) -> int | None:
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
