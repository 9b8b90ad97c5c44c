"""The splits of what is a sequence: the lines of a text, and windows over a text or over tokens.

A text that comes as a file is read from front to back, twice: once to count, once to cut. What is in memory is one
shard's share at the most.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .asked import Asked
from .contract import BadInput, JsonObject, as_links, describe
from .groups import bounds, count_shards

LINE_BYTES_MAX = 16 << 20
"""A longer line is refused: it is no line-based text."""
SHARE_BYTES_MAX = 1 << 20
"""A shard whose lines are longer, together, gets them as a file."""
WINDOW_MAX = 1 << 20
"""Characters or tokens in one window."""
WINDOWS_MAX = 32 << 20
"""Characters or tokens in all windows of one shard: they are in its input.json."""
_PIECE_BYTES = 1 << 18
_TEXT_KEYS = ("text", "text_url")


def lines(asked: Asked) -> Iterator[JsonObject]:
    """``text``, or ``text_url`` for a file: its lines, without their ends; each shard gets its share as ``lines``.

    A share of more than a mebibyte is a file, ``lines: {"path", …}``, with a line each.
    """
    key, value = asked.value(*_TEXT_KEYS)
    place = f"input.{key}"
    if isinstance(value, str):
        found = value.split("\n")  # by the same rule as a file's: other ends, such as form feeds, end no line
        if not found[-1]:
            found.pop()
        total = len(found)
        source: Iterator[str] = (line.removesuffix("\r") for line in found)
    else:
        path = asked.file(key)
        total = sum(1 for line in _lines(path, place))
        source = _lines(path, place)
    if not total:
        raise BadInput(f"{place}: the text is empty")
    shards = count_shards(total, "lines", asked.shard_count, asked.max_shards)
    sizes = (high - low for low, high in bounds(total, shards))
    return asked.inputs(key, "lines", _shares_of_lines(source, sizes, asked.output_dir))


def windows(asked: Asked) -> Iterator[JsonObject]:
    """``text``, ``text_url`` or ``tokens``: windows of ``window_size``, each ``stride`` further than the one before.

    The last window is the first that reaches the end. A shard gets ``windows``: ``[{"start", "end", "text" or
    "tokens"}]``, where start and end count characters or tokens.
    """
    size = asked.integer("window_size", 1, 512)
    stride = asked.integer("stride", 1, size)
    if size > WINDOW_MAX:
        raise BadInput(f"split.window_size: must be at most {WINDOW_MAX}, got {size}")
    if stride > size:
        raise BadInput(f"split.stride: {stride} is more than window_size, {size}, so the windows would leave gaps")
    key, value = asked.value("tokens", *_TEXT_KEYS)
    place = f"input.{key}"
    content, unit = "text", "characters"
    if isinstance(value, list):
        content, unit, value = "tokens", "tokens", as_links(value)
    if isinstance(value, list | str):
        total = len(value)
        cuts: Iterator[tuple[int, Any]] = ((start, value[start : start + size]) for start in range(0, total, stride))
    elif isinstance(value, dict):
        path = asked.file(key)
        total = sum(len(piece) for piece in _pieces(path, place))
        cuts = _windows_of_file(path, place, size, stride)
    else:
        raise BadInput(f"{place}: expected a text, a list of tokens or a file, got {describe(value)}")
    if not total:
        raise BadInput(f"{place}: is empty")
    count = 1 + max(0, -(-(total - size) // stride))
    shards = count_shards(count, "windows", asked.shard_count, asked.max_shards)
    if -(-count // shards) * size > WINDOWS_MAX and total > WINDOWS_MAX:
        raise BadInput(f"{place}: {shards} shards would get more than {WINDOWS_MAX} {unit} each; ask for more shards")

    def shares() -> Iterator[list[JsonObject]]:
        for low, high in bounds(count, shards):
            share = []
            for _ in range(low, high):
                start, cut = next(cuts)
                share.append({"start": start, "end": start + len(cut), content: cut})
            yield share

    return asked.inputs(key, "windows", shares())


def _shares_of_lines(source: Iterator[str], sizes: Iterator[int], output_dir: Path) -> Iterator[Any]:
    for index, count in enumerate(sizes):
        share: list[str] = []
        size = 0
        while len(share) < count and size <= SHARE_BYTES_MAX:
            share.append(next(source))
            size += len(share[-1].encode()) + 1
        if size <= SHARE_BYTES_MAX:
            yield share
            continue
        path = f"lines/{index:06}.txt"
        (output_dir / path).parent.mkdir(exist_ok=True)
        with (output_dir / path).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in share)
            file.writelines(f"{next(source)}\n" for _ in range(len(share), count))
        yield {"path": path}


def _lines(path: Path, place: str) -> Iterator[str]:
    number = 0
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES_MAX + 2):
            number += 1
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if len(line) > LINE_BYTES_MAX:
                raise BadInput(f"{place}: line {number} has more than {LINE_BYTES_MAX} bytes")
            try:
                yield line.decode()
            except UnicodeDecodeError:
                raise BadInput(f"{place}: line {number} is not UTF-8") from None


def _windows_of_file(path: Path, place: str, size: int, stride: int) -> Iterator[tuple[int, str]]:
    start, text = 0, ""
    for piece in _pieces(path, place):
        text += piece
        at = 0
        while len(text) - at > size:  # not >=: whether a full window is the last one shows only with what follows
            yield start, text[at : at + size]
            start, at = start + stride, at + stride
        text = text[at:]
    if text:
        yield start, text[:size]


def _pieces(path: Path, place: str) -> Iterator[str]:
    """The text of a file, decoded piece by piece."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while piece := file.read(_PIECE_BYTES):
                yield decoder.decode(piece)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise BadInput(f"{place}: the text is not UTF-8") from None
