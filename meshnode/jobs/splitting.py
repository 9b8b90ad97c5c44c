"""How the input of a stage is cut and how its outputs are put together, as ``multi_node`` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.records import MERGES

from .errors import InvalidFile, join_place, render
from .fields import NAME, Fields

SPLIT_KEYS: Mapping[str, tuple[str, ...]] = {
    "tile": ("image_url",),
    "batch": ("items",),
    "window": ("tokens", "text", "text_url"),
    "lines": ("text", "text_url"),
    "range": ("range",),
    "candidates": (),
    "container": (),
}
"""The split modes, and the keys of the input: each cuts the first that is there, unless ``split_key`` names another."""

MODES_WITH: Mapping[str, tuple[str, ...]] = {
    "tile_size": ("tile",),
    "overlap": ("tile",),
    "window_size": ("window",),
    "stride": ("window",),
    "seed": ("candidates",),
}
"""The keys that have a meaning with some split modes only, and with which."""

MERGES_WITH: Mapping[str, tuple[str, ...]] = {"merge_key": ("vote", "best"), "prefer": ("best",)}
"""The same for merges."""

PREFER = ("largest", "smallest")
SIZE_MAX = 1_000_000
SEED_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Split:
    """How the input is cut. ``key`` is the input's key that is split, None for the mode's own."""

    mode: str = "none"  # or one of SPLIT_KEYS, or a plug-in's name
    key: str | None = None
    tile_size: int = 512  # pixels a side; tile only
    overlap: int = 0  # pixels around each tile; tile only
    window_size: int = 512  # characters or tokens; window only
    stride: int | None = None  # from one window to the next, None: window_size; window only
    seed: int = 0  # of the first candidate; candidates only

    def as_json(self) -> dict[str, Any]:
        """Return the value of ``split`` in the split program's input."""
        options = {name: getattr(self, name) for name, modes in MODES_WITH.items() if self.mode in modes}
        return {"mode": self.mode, "key": self.key, **options}


def read_split_mode(found: Fields, key: str) -> str | None:
    """Return the split mode under ``key``; raise InvalidFile if it is none."""
    return _built_in_or_plugin(found, key, tuple(SPLIT_KEYS))


def read_merge(found: Fields, key: str) -> str | None:
    """Return the merge strategy under ``key``; raise InvalidFile if it is none."""
    return _built_in_or_plugin(found, key, MERGES)


def read_split_and_merge(found: Fields) -> dict[str, Any]:
    """Return what the keys of ``multi_node`` say about split and merge, as arguments of ``Layer``."""
    layer = {
        "split_mode": read_split_mode(found, "split_mode"),
        "split_key": found.text("split_key"),
        "tile_size": found.integer("tile_size", 1, SIZE_MAX),
        "overlap": found.integer("overlap", 0, SIZE_MAX),
        "window_size": found.integer("window_size", 1, SIZE_MAX),
        "stride": found.integer("stride", 1, SIZE_MAX),
        "seed": found.integer("seed", 0, SEED_MAX),
        "merge": read_merge(found, "merge_strategy"),
        "merge_key": found.text("merge_key"),
        "prefer": found.choice("prefer", PREFER),
    }
    for what, chosen, meaning in (
        ("split_mode", layer["split_mode"], MODES_WITH),
        ("merge_strategy", layer["merge"], MERGES_WITH),
    ):
        for name, choices in meaning.items():
            if chosen is not None and chosen not in choices and found.has(name):
                raise found.error(name, f"has no meaning with {what} '{chosen}'")
    return layer


def read_strategy(strategy: Any, file: str, place: str) -> dict[str, Any]:
    """Return what ``split_strategy`` inside an input says (``tile_512``, ``batch``), as arguments of ``Layer``."""
    match = re.fullmatch(r"tile_([0-9]{1,7})", strategy) if isinstance(strategy, str) else None
    if not match:
        parent, _, key = place.rpartition(".")
        return {"split_mode": read_split_mode(Fields({key: strategy}, file, parent, "input", (key,)), key)}
    size = int(match[1])
    if not 1 <= size <= SIZE_MAX:
        raise InvalidFile(file, place, f"the tile size must be from 1 to {SIZE_MAX}, got {size}")
    return {"split_mode": "tile", "tile_size": size}


def is_plugin(name: str) -> bool:
    """Whether a split mode or a merge strategy is a plug-in: its name has a dot in it."""
    return "." in name


def check_split(split: Split, value: Mapping[str, Any], *, file: str, place: str = "input") -> str | None:
    """Return the key of the input ``value`` that is cut; raise InvalidFile, named after ``file``, if it is missing.

    None where nothing is cut, or only the splitter knows what.
    """
    keys = (split.key,) if split.key else SPLIT_KEYS.get(split.mode, ())
    for key in keys:
        if value.get(key) is not None:
            return key
    if not keys or (split.mode not in SPLIT_KEYS and not split.key):
        return None
    others = "".join(f", and so is {key}" for key in keys[1:])
    raise InvalidFile(file, join_place(place, keys[0]), f"is missing{others}; split_mode '{split.mode}' cuts it")


def _built_in_or_plugin(found: Fields, key: str, built_in: tuple[str, ...]) -> str | None:
    name = found.text(key)
    if name is not None and is_plugin(name):
        if not NAME.fullmatch(name):
            raise found.error(key, f"{render(name)} is no plug-in's name (up to 64 letters, digits, '.', '_' and '-')")
        return name
    if name is not None and name not in built_in:
        raise found.error(key, f"{render(name)} is not one of {', '.join(built_in)}; the name of a plug-in has a dot")
    return name
