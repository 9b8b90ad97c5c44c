"""How a stage runs: what a model and a job say about it, and the two laid over each other.

A ``Layer`` is what one file says, with None where it is silent; ``effective`` puts the job's layer over the
model's and fills in the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from protocol.limits import SHARDS_MAX
from protocol.wire import Placement

from .errors import InvalidFile, join_place
from .fields import Fields

SPLIT_KEYS = {"tile": "image_url", "batch": "items", "range": "range"}
"""The split modes, and the key of the input that each of them cuts unless ``split_key`` names another."""

SPLIT_MODES = tuple(SPLIT_KEYS)
SPLIT_MODES_LATER = ("window", "lines", "candidates", "container")
MERGES = ("concat-json", "none")
MERGES_LATER = ("concat", "stitch", "sum", "mean", "vote", "best", "container")
ISOLATIONS = ("container", "namespace", "landlock")

TILE_MAX = 1_000_000
DAY_S = 24 * 3600

MULTI_NODE_KEYS = (
    "enabled",
    "split_mode",
    "split_key",
    "tile_size",
    "overlap",
    "merge_strategy",
    "max_shards",
)
# Keys of the format that this version does not carry out yet, each with the values under which it asks for nothing.
MULTI_NODE_LATER: dict[str, tuple[Any, ...]] = {
    "distributed_runtime": (None,),
    "shard_role": (None,),
    "cluster_size": (None, 1),
    "coordination_port": (None,),
    "gpu": (None, False),
}
RESOURCE_LATER: dict[str, tuple[Any, ...]] = {"gpu": (None, {"count": 0})}


@dataclass(frozen=True, slots=True)
class Layer:
    """What one file says about a stage; None (or nothing in ``params``) where it is silent."""

    split_mode: str | None = None  # "none" where splitting is switched off
    split_key: str | None = None
    tile_size: int | None = None  # pixels
    overlap: int | None = None  # pixels
    merge: str | None = None
    shard_count: int | None = None
    max_shards: int | None = None
    cpu: float | None = None  # cores
    memory_bytes: int | None = None
    isolation: str | None = None
    timeout_s: float | None = None
    attempts: int | None = None
    max_lost: int | None = None
    allow_failures: int | None = None
    placement: Placement | None = None
    max_price: int | None = None  # in millionths of the mesh's unit, for one CPU and second
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Split:
    """How the input is cut. ``key`` is the input's key that is split, None for the mode's own."""

    mode: str = "none"  # none | tile | batch | range
    key: str | None = None
    tile_size: int = 512  # pixels a side; tile only
    overlap: int = 0  # pixels around each tile; tile only

    def as_json(self) -> dict[str, Any]:
        """Return the value of ``split`` in the split program's input."""
        if self.mode == "tile":
            return {"mode": "tile", "key": self.key, "tile_size": self.tile_size, "overlap": self.overlap}
        return {"mode": self.mode, "key": self.key}


@dataclass(frozen=True, slots=True)
class StageSettings:
    """Everything that decides how a stage runs. With split mode ``none`` there is one shard and no merge."""

    split: Split = Split()
    merge: str = "none"  # none | concat-json
    shard_count: int | None = None  # None: one shard per part
    max_shards: int | None = None  # None: as many as a job may have
    cpu: float = 1.0  # cores
    memory_bytes: int = 2**30
    isolation: str | None = None  # None: whatever the node offers
    timeout_s: float = 600.0  # of one run, without pulling the image
    attempts: int = 4  # signed failures of a task, after which it has failed
    max_lost: int = 16  # attempts of a task that may be lost with their workers
    allow_failures: int = 0  # shards
    placement: Placement = field(default_factory=Placement)
    max_price: int | None = None  # None: any; in millionths of the mesh's unit, for one CPU and second
    params: Mapping[str, Any] = field(default_factory=dict)


def read_multi_node(value: Any, file: str, place: str) -> dict[str, Any]:
    """Return what ``multi_node`` says, as arguments of ``Layer``."""
    found = Fields(value, file, place, "multi_node", MULTI_NODE_KEYS, MULTI_NODE_LATER)
    mode = found.choice("split_mode", SPLIT_MODES, SPLIT_MODES_LATER)
    for key in ("tile_size", "overlap"):
        if mode not in (None, "tile") and found.has(key):
            raise found.error(key, f"has no meaning with split_mode '{mode}'")
    layer = {
        "split_mode": mode,
        "split_key": found.text("split_key"),
        "tile_size": found.integer("tile_size", 1, TILE_MAX),
        "overlap": found.integer("overlap", 0, TILE_MAX),
        "merge": found.choice("merge_strategy", MERGES, MERGES_LATER),
        "max_shards": found.integer("max_shards", 1, SHARDS_MAX),
    }
    if found.flag("enabled") is False:
        layer["split_mode"] = "none"
    return layer


def read_resources(value: Any, file: str, place: str) -> dict[str, Any]:
    """Return what ``resources`` says, as arguments of ``Layer``."""
    found = Fields(value, file, place, "resources", ("cpu", "memory"), RESOURCE_LATER)
    return {"cpu": found.number("cpu", 0.1, 1024), "memory_bytes": found.size("memory", 2**20, 2**44)}


def read_strategy(strategy: Any, file: str, place: str) -> dict[str, Any]:
    """Return what ``split_strategy`` inside an input says (``tile_512``, ``batch``), as arguments of ``Layer``."""
    match = re.fullmatch(r"tile_([0-9]{1,7})", strategy) if isinstance(strategy, str) else None
    if not match:
        key = place.rpartition(".")[2]
        parent = place.rpartition(".")[0]
        holder = Fields({key: strategy}, file, parent, "input", (key,))
        return {"split_mode": holder.choice(key, SPLIT_MODES, SPLIT_MODES_LATER)}
    size = int(match[1])
    if not 1 <= size <= TILE_MAX:
        raise InvalidFile(file, place, f"the tile size must be from 1 to {TILE_MAX}, got {size}")
    return {"split_mode": "tile", "tile_size": size}


def effective(model: Layer, job: Layer, *, file: str, place: str = "") -> StageSettings:
    """Return the settings of a stage: job over model, over the defaults. ``params`` are laid over key by key.

    Raises InvalidFile, named after the job's ``file`` and the stage's ``place`` in it, where the two together make
    no sense.
    """
    chosen = {
        item.name: getattr(model if getattr(job, item.name) is None else job, item.name) for item in fields(Layer)
    }
    mode = chosen.pop("split_mode") or "none"
    key = chosen.pop("split_key")
    tile = {name: value for name in ("tile_size", "overlap") if (value := chosen.pop(name)) is not None}
    shard_count, max_shards = chosen["shard_count"], chosen["max_shards"]
    if mode != "tile":
        for name in ("tile_size", "overlap"):
            if getattr(job, name) is not None:
                where = join_place(join_place(place, "multi_node"), name)
                raise InvalidFile(file, where, f"has no meaning with split_mode '{mode}'")
    if mode == "none" and (shard_count or 1) > 1:
        raise InvalidFile(
            file,
            join_place(place, "shard_count"),
            f"{shard_count} shards are asked for, but neither the job nor the model has a split_mode",
        )
    if shard_count is not None and max_shards is not None and shard_count > max_shards:
        raise InvalidFile(
            file, join_place(place, "shard_count"), f"{shard_count} is more than max_shards, {max_shards}"
        )
    params = {**model.params, **job.params}
    merge = chosen.pop("merge") or "concat-json"
    if mode == "none":
        if job.merge not in (None, "none"):
            raise InvalidFile(
                file,
                join_place(place, "merge_strategy"),
                f"'{job.merge}' has nothing to merge: neither the job nor the model has a split_mode",
            )
        merge = "none"
    given = {name: value for name, value in chosen.items() if value is not None}
    split = Split(mode, key, **tile) if mode == "tile" else Split(mode, key if mode != "none" else None)
    return StageSettings(**{**given, "split": split, "merge": merge, "params": params})


def check_input(settings: StageSettings, value: Mapping[str, Any], *, file: str, place: str = "input") -> None:
    """Raise InvalidFile, named after ``file``, unless the input ``value`` has what the split is going to cut."""
    if settings.split.mode == "none":
        return
    key = settings.split.key or SPLIT_KEYS[settings.split.mode]
    if value.get(key) is None:
        raise InvalidFile(file, join_place(place, key), f"is missing; split_mode '{settings.split.mode}' cuts it")
