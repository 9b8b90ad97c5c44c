"""How a stage runs: what a model and a job say about it, and the two laid over each other.

A ``Layer`` is what one file says, with None where it is silent; ``effective`` puts the job's layer over the
model's and fills in the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from protocol.limits import SHARDS_MAX
from protocol.wire import Placement

from .errors import InvalidFile, join_place
from .fields import Fields
from .splitting import MERGES_WITH, MODES_WITH, Split, read_split_and_merge

ISOLATIONS = ("container", "namespace", "landlock")

DAY_S = 24 * 3600

MULTI_NODE_KEYS = (
    "enabled",
    "split_mode",
    "split_key",
    "tile_size",
    "overlap",
    "window_size",
    "stride",
    "seed",
    "merge_strategy",
    "merge_key",
    "prefer",
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
    window_size: int | None = None
    stride: int | None = None
    seed: int | None = None
    merge: str | None = None
    merge_key: str | None = None
    prefer: str | None = None
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
class StageSettings:
    """Everything that decides how a stage runs. With split mode ``none`` there is one shard and no merge."""

    split: Split = field(default_factory=Split)
    merge: str = "none"  # or one of MERGES, or a plug-in's name
    merge_key: str | None = None  # None: the merge's own
    prefer: str | None = None  # largest | smallest; None: the merge's own
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
    layer = {**read_split_and_merge(found), "max_shards": found.integer("max_shards", 1, SHARDS_MAX)}
    if found.flag("enabled") is False:
        layer["split_mode"] = "none"
    return layer


def read_resources(value: Any, file: str, place: str) -> dict[str, Any]:
    """Return what ``resources`` says, as arguments of ``Layer``."""
    found = Fields(value, file, place, "resources", ("cpu", "memory"), RESOURCE_LATER)
    return {"cpu": found.number("cpu", 0.1, 1024), "memory_bytes": found.size("memory", 2**20, 2**44)}


def effective(model: Layer, job: Layer, *, file: str, place: str = "") -> StageSettings:
    """Return the settings of a stage: job over model, over the defaults. ``params`` are laid over key by key.

    Raises InvalidFile, named after the job's ``file`` and the stage's ``place`` in it, where the two together make
    no sense.
    """

    def multi_node(key: str) -> str:
        return join_place(join_place(place, "multi_node"), key)

    chosen = {
        item.name: getattr(model if getattr(job, item.name) is None else job, item.name) for item in fields(Layer)
    }
    mode = chosen.pop("split_mode") or "none"
    key = chosen.pop("split_key")
    options = {name: value for name in MODES_WITH if (value := chosen.pop(name)) is not None}
    shard_count, max_shards = chosen["shard_count"], chosen["max_shards"]
    for name, modes in MODES_WITH.items():
        if mode not in modes and getattr(job, name) is not None:
            raise InvalidFile(file, multi_node(name), f"has no meaning with split_mode '{mode}'")
    split = Split(
        mode,
        key if mode != "none" else None,
        **{name: value for name, value in options.items() if mode in MODES_WITH[name]},
    )
    if split.stride is not None and split.stride > split.window_size:
        raise InvalidFile(
            file,
            multi_node("stride"),
            f"{split.stride} is more than window_size, {split.window_size}: gaps would be left",
        )
    if mode == "candidates" and shard_count is None:
        raise InvalidFile(
            file,
            join_place(place, "shard_count"),
            "is missing; it says how many candidates split_mode 'candidates' makes",
        )
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
    for name, merges in MERGES_WITH.items():
        if merge not in merges:
            if getattr(job, name) is not None:
                raise InvalidFile(file, multi_node(name), f"has no meaning with merge_strategy '{merge}'")
            chosen[name] = None
    given = {name: value for name, value in chosen.items() if value is not None}
    return StageSettings(**{**given, "split": split, "merge": merge, "params": params})
