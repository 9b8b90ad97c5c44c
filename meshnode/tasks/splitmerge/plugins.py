"""Splits and merges from installed packages: entry points of the groups ``meshnode.splits`` and ``meshnode.merges``.

The name of a plug-in has a dot in it (``acme.frames``), which tells it from what is built in. A split plug-in is called
with (the split program's input, MESH_INPUT, MESH_OUTPUT) and returns the shards' inputs, one after the other; files
that it writes below MESH_OUTPUT are named in them by ``{"path": …}``. A merge plug-in is called with (an iterator over
the shards' outputs, see `parts.Part`, the merge program's input, MESH_OUTPUT) and returns the merged JSON value,
or None once it has written a file ``output.<ending>``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from .contract import BadInput


def is_plugin(name: object) -> bool:
    """Whether this names a plug-in, installed or not."""
    return isinstance(name, str) and "." in name


def find_plugin(kind: str, name: str) -> Any:
    """Load the plug-in ``name`` of ``kind``, ``splits`` or ``merges``; raise BadInput if it is not installed here."""
    for point in entry_points(group=f"meshnode.{kind}", name=name):
        return point.load()
    raise BadInput(f"the plug-in {name!r} of {kind} is not installed on this node")


def label(kind: str, name: str) -> tuple[str, str]:
    """The label of a node that has this plug-in: a job that needs it is placed by it."""
    return f"{kind}/{name}", "plug-in"


def installed() -> list[tuple[str, str]]:
    """(kind, name) of every plug-in that is installed here, sorted."""
    return sorted(
        {(kind, point.name) for kind in ("splits", "merges") for point in entry_points(group=f"meshnode.{kind}")}
    )
