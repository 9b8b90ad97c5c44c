"""The merges that put outputs one after the other: none, concat-json, concat."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .contract import BadInput, as_links, parse_json
from .elements import read_elements
from .parts import JSON_BYTES_MAX, ListWriter, Part, Parts

_PIECE_BYTES = 1 << 20


def links(parts: Parts, output_dir: Path) -> None:
    """A list of links, null for a failed shard. Of a shard that shared its task with others, its output itself."""
    with ListWriter(output_dir) as merged:
        for part in parts:
            if part.text is not None:
                merged.add(part.text.encode())
            else:
                merged.add_value(None if part.link is None else as_links(part.link))


def concat_json(parts: Parts, output_dir: Path) -> None:
    """A list: the elements of outputs that are lists, other outputs as one element each.

    An output is parsed to be sure of what it is, then its text is copied: no number changes on its way through.
    """
    with ListWriter(output_dir) as merged:
        for part in parts.succeeded:
            if part.file is not None and _is_list(part.file):
                try:
                    with part.file.open("rb") as file:
                        for text, _ in read_elements(file):
                            merged.add(text.encode())
                except ValueError as problem:
                    raise _not_json(part, problem) from None
                continue
            content = part.json_text().strip()
            try:
                value = parse_json(content)
            except ValueError as problem:
                raise _not_json(part, problem) from None
            for element in _elements(value, content):
                merged.add(element)


def concat(parts: Parts, output_dir: Path) -> None:
    """The bytes of the outputs, one after the other: a JSON text stands for its characters, a link for its file."""
    with (output_dir / "output.bin").open("wb") as merged:
        for part in parts.succeeded:
            meant = _text_or_link(part)
            if isinstance(meant, str):
                merged.write(meant.encode())
            elif meant is not None or part.file is not None:
                source = part.linked(meant, "the file") if meant is not None else part.file
                assert source is not None
                with source.open("rb") as file:
                    shutil.copyfileobj(file, merged, _PIECE_BYTES)
            else:
                assert part.text is not None
                merged.write(part.text.encode())


def _text_or_link(part: Part) -> Any:
    """The text or the link that an output is; None for anything else."""
    if part.file is not None:
        with part.file.open("rb") as file:
            if file.read(1) not in (b'"', b"{") or part.file.stat().st_size > JSON_BYTES_MAX:
                return None
    try:
        value = parse_json(part.json_text())
    except (ValueError, RecursionError):
        return None
    is_link = isinstance(value, dict) and "cid" in value and "size" in value
    return value if is_link or isinstance(value, str) else None


def _elements(value: Any, text: bytes) -> list[bytes]:
    if not isinstance(value, list):
        return [text]
    inner = text[1:-1].strip()
    return [inner] if inner else []


def _is_list(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4096).lstrip()[:1] == b"["


def _not_json(part: Part, problem: ValueError) -> BadInput:
    said = problem.msg if isinstance(problem, json.JSONDecodeError) else str(problem)
    return BadInput(f"{part.place} is not JSON, so concat-json cannot join it: {said}")
