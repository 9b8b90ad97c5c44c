"""The merges that calculate: sum and mean, of numbers wherever they stand in the outputs, and of arrays in .npy files.

The outputs must have the same shape: lists as long, objects with the same keys. Numbers are added in the order of the
shards; everything that is no number must be the same in all outputs, and stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .arrays import combine_arrays
from .contract import BadInput, describe, write_output
from .parts import Part, Parts


@dataclass(slots=True)
class _Arrays:
    """The .npy files that stand at one place of the outputs."""

    place: str
    files: list[tuple[Part, Any]] = field(default_factory=list)


def total(parts: Parts, output_dir: Path) -> None:
    """The sum of the outputs."""
    _combine("sum", parts, output_dir)


def mean(parts: Parts, output_dir: Path) -> None:
    """The sum of the outputs over their number."""
    _combine("mean", parts, output_dir)


def _combine(strategy: str, parts: Parts, output_dir: Path) -> None:
    result: Any = None
    count = 0
    for part in parts.succeeded:
        value = part.value(strategy)
        result = _begin(value, "", part) if count == 0 else _add(result, value, "", part, strategy)
        count += 1
    if count == 0:
        raise BadInput(f"{strategy}: no shard has an output")
    made = 0

    def finish(item: Any, place: str) -> Any:
        nonlocal made
        if isinstance(item, _Arrays):
            path = f"arrays/{made:04}.npy"
            made += 1
            (output_dir / path).parent.mkdir(exist_ok=True)
            files = [(f"{part.place}: {item.place}", part.linked(link, item.place)) for part, link in item.files]
            combine_arrays(strategy, files, output_dir / path)
            return {"path": path}
        if _is_number(item):
            number = item / count if strategy == "mean" else item
            if not math.isfinite(number):
                raise BadInput(f"{strategy}: {place or 'the value'}: the result is too large for a number")
            return number
        return item

    try:
        merged = _mapped(result, "", finish)
    except OverflowError:
        raise BadInput(f"{strategy}: the result is too large for a number") from None
    write_output(output_dir, merged)


def _begin(value: Any, place: str, part: Part) -> Any:
    """The first output, with a place for each of its arrays."""

    def start(item: Any, where: str) -> Any:
        return _Arrays(where or "the file", [(part, item)]) if _is_link(item) else item

    return _mapped(value, place, start)


def _add(total: Any, value: Any, place: str, part: Part, strategy: str) -> Any:
    if isinstance(total, _Arrays) and _is_link(value):
        total.files.append((part, value))
        return total
    if _is_number(total) and _is_number(value):
        return total + value
    if isinstance(total, list) and isinstance(value, list) and len(total) == len(value):
        for index, item in enumerate(value):
            total[index] = _add(total[index], item, f"{place}[{index}]", part, strategy)
        return total
    if isinstance(total, dict) and isinstance(value, dict) and total.keys() == value.keys():
        for key, item in value.items():
            total[key] = _add(total[key], item, f"{place}.{key}" if place else key, part, strategy)
        return total
    if type(total) is type(value) and not isinstance(value, list | dict) and total == value:
        return total
    what = _describe(value)
    raise BadInput(
        f"{part.place}: {place + ': ' if place else ''}{strategy} cannot put {what} together with {_describe(total)}"
    )


def _mapped(value: Any, place: str, change: Callable[[Any, str], Any]) -> Any:
    """A copy of ``value`` with ``change`` applied to all that is no list and no object but a link."""
    if isinstance(value, list):
        return [_mapped(item, f"{place}[{index}]", change) for index, item in enumerate(value)]
    if isinstance(value, dict) and not _is_link(value):
        return {key: _mapped(item, f"{place}.{key}" if place else key, change) for key, item in value.items()}
    return change(value, place)


def _describe(value: Any) -> str:
    if isinstance(value, _Arrays) or _is_link(value):
        return "a file"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(value)[:8]) or 'no keys'}"
    return describe(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_link(value: Any) -> bool:
    return isinstance(value, dict) and ("cid" in value or "path" in value) and "size" in value
