"""How long blobs are kept: the time of a blob's file says until when it is wanted.

A blob that is held for a job carries the job's end as its file time, which may lie in the future and survives a
restart; one that was only used carries the time of its last use. Blobs whose time is more than ``UNUSED_S`` ago go.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import trio

from meshnode.blobs.errors import BlobMissing
from meshnode.blobs.store import BlobStore

UNUSED_S = 24 * 3600.0
SWEEP_EVERY_S = 600.0


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


async def sweep(store: BlobStore, root: Path, *, unused_s: float = UNUSED_S) -> int:
    """Remove the blobs of the store at ``root`` that nobody wanted for ``unused_s`` seconds; how many those were."""
    unwanted = await trio.to_thread.run_sync(_older_than, root / "blobs", time.time() - unused_s)
    for cid in unwanted:
        await store.remove(cid)
    return len(unwanted)


def _older_than(folder: Path, wanted_s: float) -> list[str]:
    found = []
    for path in folder.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != ".dag" and path.stat().st_mtime < wanted_s:
                found.append(path.name)
    return found
