"""The links in a job's input: values under ``*_url`` keys, wherever in the input they stand."""

from __future__ import annotations

import mimetypes
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidFile, join_place, render

Steps = tuple[str | int, ...]
"""Where a value stands in the input: keys and list positions from the top."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_CID = re.compile(r"[A-Za-z0-9]{1,128}")
# Endings that Python's own table does not have everywhere.
_MEDIA_TYPES: Mapping[str, str] = {".yaml": "application/yaml", ".yml": "application/yaml", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on the submitter's disk that the input names."""

    steps: Steps
    path: Path

    @property
    def media_type(self) -> str:
        """What the name's ending says the file is."""
        known = _MEDIA_TYPES.get(self.path.suffix.lower()) or mimetypes.guess_type(self.path.name)[0]
        return known or "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Link:
    """A blob that the input names by its cid."""

    steps: Steps
    cid: str


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An http or https address that the input names."""

    steps: Steps
    url: str


Reference = LocalFile | Link | WebAddress


def find_references(value: Any, *, directory: Path, file: str, allow_http: bool = False) -> tuple[Reference, ...]:
    """Return what the ``*_url`` texts in a job's input refer to, in the order in which they stand there.

    A local path is taken from ``directory``, that of the job file, and must name a regular file that can be read.
    Raises InvalidFile naming the place otherwise, and for an http address unless ``allow_http``.
    """
    found = []
    for steps, text in _urls(value, ()):
        place = "input"
        for step in steps:
            place = join_place(place, step)
        found.append(_resolve(steps, text, place, directory, file, allow_http))
    return tuple(found)


def with_replaced(value: Any, replacements: Mapping[Steps, Any]) -> Any:
    """Return a copy of ``value`` in which what stands at each of the given steps is replaced."""
    return _replaced(value, (), replacements)


def _urls(value: Any, steps: Steps) -> Iterator[tuple[Steps, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key.endswith("_url") and not isinstance(item, dict | list) and item is not None:
                yield (*steps, key), item
            else:
                yield from _urls(item, (*steps, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _urls(item, (*steps, index))


def _resolve(steps: Steps, text: Any, place: str, directory: Path, file: str, allow_http: bool) -> Reference:
    if not isinstance(text, str) or not text:
        raise InvalidFile(file, place, f"expected a path or an ipfs:// link, got {render(text)}")
    match = _SCHEME.fullmatch(text)
    if not match:
        return LocalFile(steps, _local_file(directory, text, place, file))
    scheme, rest = match[1].lower(), match[2]
    if scheme == "ipfs":
        if not _CID.fullmatch(rest):
            raise InvalidFile(file, place, f"{render(text)} is not ipfs:// and a CID")
        return Link(steps, rest)
    if scheme in ("http", "https"):
        if not allow_http:
            raise InvalidFile(
                file, place, f"{scheme}:// addresses are not allowed here; give a file or an ipfs:// link"
            )
        return WebAddress(steps, text)
    raise InvalidFile(file, place, f"cannot fetch {render(scheme + '://')} addresses; give a file or an ipfs:// link")


def _local_file(directory: Path, text: str, place: str, file: str) -> Path:
    path = directory / text
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidFile(file, place, f"not a regular file: {render(text)}")
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidFile(file, place, f"no such file: {render(text)}") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise InvalidFile(file, place, f"cannot read {render(text)}: {reason}") from None
    return path


def _replaced(value: Any, steps: Steps, replacements: Mapping[Steps, Any]) -> Any:
    if steps in replacements:
        return replacements[steps]
    if isinstance(value, dict):
        return {key: _replaced(item, (*steps, key), replacements) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, (*steps, index), replacements) for index, item in enumerate(value)]
    return value
