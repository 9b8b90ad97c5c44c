"""How long blobs are kept: as long as something refers to them, and for a while after their last use.

A blob is in use while a row of the journal names it, or while an output or input does that a row names. Besides, the
time of a blob's file says until when it is wanted: one that is held for a job, or was made here, carries a time to
come, which survives a restart; one that was only used carries the time of its last use. Blobs that nothing refers to
go ``UNUSED_S`` after their time, and where there is little room ``UNUSED_PRESSED_S`` after it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Container
from pathlib import Path

import trio

from meshnode.blobs.errors import BlobMissing
from meshnode.blobs.store import BlobStore, content_path
from meshnode.references import cids_in
from protocol.limits import CID_CHARS_MAX

UNUSED_S = 24 * 3600.0
UNUSED_PRESSED_S = 3600.0
SWEEP_EVERY_S = 600.0
SWEEP_PRESSED_EVERY_S = 60.0
_LISTS_BYTES_MAX = 64 << 20
"""A larger blob is not looked into for files that it refers to."""
_LEVELS = 2
"""Of files that list files: the output of a split lists those with the inputs of its shards, which list tiles."""
_PIECE_BYTES = 1 << 20


def keep_until(store: BlobStore, cid: str, until_s: float) -> None:
    """Keep the blob at least until then (Unix time); never shortens what was promised before."""
    try:
        path = store.path(cid)
        if path.stat().st_mtime < until_s:
            os.utime(path, (until_s, until_s))
    except (BlobMissing, FileNotFoundError):
        pass  # gone meanwhile: whoever needs it finds out and fetches it anew


def mark_used(store: BlobStore, cid: str) -> None:
    """The blob is of use now."""
    keep_until(store, cid, time.time())


def wanted_at(store: BlobStore, cid: str) -> float | None:
    """The blob's time; None if it is not here."""
    try:
        return store.path(cid).stat().st_mtime
    except (BlobMissing, FileNotFoundError):
        return None


async def sweep(store: BlobStore, root: Path, in_use: Container[str] = (), unused_s: float = UNUSED_S) -> int:
    """Remove blobs of the store at ``root`` that nobody wanted for ``unused_s`` seconds; how many those were.

    None that is ``in_use``, or listed in one that is.
    """
    unwanted, spared = await trio.to_thread.run_sync(_unwanted, root / "blobs", in_use, time.time() - unused_s)
    removed = 0
    for cid in unwanted:
        if cid not in spared and cid not in in_use:  # it may be by now
            await store.remove(cid)
            removed += 1
    return removed


def is_pressed(store: BlobStore) -> bool:
    """Whether little room is left for blobs."""
    usage = store.usage()
    return usage.blob_bytes > usage.capacity // 8 * 7


def _unwanted(folder: Path, in_use: Container[str], wanted_s: float) -> tuple[list[str], set[str]]:
    """The blobs whose time has come, and what those in use list; only looked for if there are any."""
    found: list[str] = []
    used: list[Path] = []
    for path in folder.glob("*/*"):
        if path.suffix == ".dag":
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.name in in_use:
                used.append(path)
            elif path.stat().st_mtime < wanted_s:
                found.append(path.name)
    spared: set[str] = set()
    for _ in range(_LEVELS if found else 0):
        listed = {cid for path in used for cid in _listed_in(path)} - spared
        spared |= listed
        used = [content_path(folder, cid) for cid in listed]
    return found, spared


def _listed_in(path: Path) -> tuple[str, ...]:
    """What a JSON blob refers to; read piece by piece, of which each repeats the end of the one before."""
    found: dict[str, None] = {}
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        data = file.read(1)
        if data in (b"{", b"[") and path.stat().st_size <= _LISTS_BYTES_MAX:  # as RFC 8785 has it
            while piece := file.read(_PIECE_BYTES):
                data = data[-CID_CHARS_MAX:] + piece
                found |= dict.fromkeys(cids_in(data))
    return tuple(found)
