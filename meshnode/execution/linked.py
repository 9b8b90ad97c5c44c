"""Files inside JSON values: links while they travel, paths while a task looks at them.

A link is an object with a ``cid`` and a ``size``; whatever else it holds (``media_type``, a tile's ``x`` and ``y``)
stays with it. Values come from strangers: they are walked without recursion and within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from meshnode.blobs import cid as cids
from meshnode.jobs.canonical import loads_strict
from meshnode.tasks.splitmerge.elements import ELEMENT_CHARS_MAX, read_elements
from protocol.limits import CID_CHARS_MAX
from protocol.wire import Link

LINKS_MAX = 10_000
"""Links in one value."""
_SIZE_MAX = 1 << 53

Json = Any


class TooManyLinks(Exception):
    """A value lists more files than are followed."""


def linked_items(path: Path) -> Iterator[tuple[Link, dict[str, Json]]]:
    """The links in the output at ``path``, with the objects that they are. Blocking."""
    for value in _values_in(path):
        for item in _objects(value):
            if (link := as_link(item)) is not None:
                yield link, item


def find_links(value: Json) -> list[Link]:
    """The files that ``value`` refers to, each once, in order. Raises TooManyLinks."""
    found: dict[str, Link] = {}
    for item in _objects(value):
        if (link := as_link(item)) is not None:
            found.setdefault(link.cid, link)
            if len(found) > LINKS_MAX:
                raise TooManyLinks(f"more than {LINKS_MAX} files are referred to")
    return list(found.values())


def linked_in(paths: Iterable[Path]) -> list[Link]:
    """What the outputs at ``paths`` refer to, each once, in order; what is no JSON refers to nothing. Blocking.

    Raises TooManyLinks.
    """
    found: dict[str, Link] = {}
    for path in paths:
        for value in _values_in(path):
            for link in find_links(value):
                found.setdefault(link.cid, link)
            if len(found) > LINKS_MAX:
                raise TooManyLinks(f"more than {LINKS_MAX} files are referred to")
    return list(found.values())


def _values_in(path: Path) -> Iterator[Json]:
    """The JSON values in a file: the elements of a list one by one, anything else as it is."""
    with path.open("rb") as file, suppress(ValueError, RecursionError):
        start = file.read(1)  # as RFC 8785 has it
        file.seek(0)
        if start == b"[":
            yield from (value for _, value in read_elements(file))
        elif start == b"{" and path.stat().st_size <= ELEMENT_CHARS_MAX:
            yield loads_strict(file.read())


def as_link(item: dict[str, Json]) -> Link | None:
    """The link that an object is; None if it is none, as one with a ``cid`` that is no CID."""
    cid, size = item.get("cid"), item.get("size")
    if not isinstance(cid, str) or len(cid) > CID_CHARS_MAX or type(size) is not int or not 0 <= size < _SIZE_MAX:
        return None
    try:
        return Link(cid=cids.canonical(cid), size=size)
    except ValueError:
        return None


def replaced(value: Json, replace: Callable[[dict[str, Json]], dict[str, Json]]) -> Json:
    """A copy of ``value``, nested at most as deep as strict JSON may be, with ``replace`` applied to every object."""
    if isinstance(value, dict):
        return replace({key: replaced(item, replace) for key, item in value.items()})
    if isinstance(value, list):
        return [replaced(item, replace) for item in value]
    return value


def _objects(value: Json) -> Iterator[dict[str, Json]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(reversed(item.values()))
        elif isinstance(item, list):
            pending.extend(reversed(item))
