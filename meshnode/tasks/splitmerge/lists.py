"""The splits of what stands in the input itself: the items of a list, a range of numbers, the same input n times."""

from __future__ import annotations

from collections.abc import Iterator

from .asked import INTEGER_MAX, Asked, integer
from .contract import BadInput, JsonObject, as_links, describe
from .groups import bounds, count_shards


def whole(asked: Asked) -> Iterator[JsonObject]:
    """One shard with the whole input."""
    return iter([as_links(asked.input)])


def batch(asked: Asked) -> Iterator[JsonObject]:
    """``items``: a list, of which each shard gets its share."""
    key, items = asked.value("items")
    if not isinstance(items, list):
        raise BadInput(f"input.{key}: expected a list, got {describe(items)}")
    if not items:
        raise BadInput(f"input.{key}: the list is empty")
    shards = count_shards(len(items), "items", asked.shard_count, asked.max_shards)
    return asked.inputs(key, "items", (as_links(items[low:high]) for low, high in bounds(len(items), shards)))


def ranges(asked: Asked) -> Iterator[JsonObject]:
    """``range``: ``{"start", "stop", "step"}``, of which each shard gets a range within."""
    key, value = asked.value("range")
    place = f"input.{key}"
    if not isinstance(value, dict):
        raise BadInput(f"{place}: expected an object with start, stop and step, got {describe(value)}")
    for name in value:
        if name not in ("start", "stop", "step"):
            raise BadInput(f"{place}: {name!r} is not one of start, stop, step")
    start = integer(value, "start", -INTEGER_MAX, default=0, place=place)
    stop = integer(value, "stop", -INTEGER_MAX, place=place)
    step = integer(value, "step", -INTEGER_MAX, default=1, place=place)
    assert start is not None
    assert stop is not None
    assert step is not None
    if step == 0:
        raise BadInput(f"{place}.step: must not be 0")
    numbers = range(start, stop, step)
    if not numbers:
        raise BadInput(f"{place}: no number lies from {start} to {stop} in steps of {step}")
    shards = count_shards(len(numbers), "numbers", asked.shard_count, asked.max_shards)
    clamp = min if step > 0 else max  # a slice's own stop may lie beyond the stop that was asked for
    slices = (numbers[low:high] for low, high in bounds(len(numbers), shards))
    return asked.inputs(key, "range", ({"start": s.start, "stop": clamp(s.stop, stop), "step": step} for s in slices))


def candidates(asked: Asked) -> Iterator[JsonObject]:
    """The whole input ``shard_count`` times, each with its own ``candidate``: ``{"index", "seed"}``."""
    count = asked.shard_count
    if count is None:
        raise BadInput("shard_count: is missing; it says how many candidates there are")
    shards = count_shards(count, "candidates", None, asked.max_shards)
    first = asked.integer("seed", 0, 0)
    if first + shards - 1 > INTEGER_MAX:
        raise BadInput(f"split.seed: must be at most {INTEGER_MAX - shards + 1} for {shards} candidates, got {first}")
    return asked.inputs(None, "candidate", ({"index": index, "seed": first + index} for index in range(shards)))
