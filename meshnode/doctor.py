"""What a node knows of its own health: one line per question, each with what to do about it if the answer is no."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshnode.blobs.store import Usage
from meshnode.execution.offering import Offer
from protocol.peer import PeerSnapshot


def examine(
    *,
    snapshot: PeerSnapshot,
    offer: Offer,
    usage: Usage,
    home: Path,
    listening: Sequence[str],
    joins: Sequence[str],
    reserve: int,
) -> dict[str, Any]:
    """``{"ok": bool, "checks": [{"name", "ok", "text"}, …]}``; only what would keep a node from working is not ok."""
    checks = [
        _runtimes(offer),
        _check("listening", bool(listening), ", ".join(listening) or "on no address: others cannot reach this node"),
        _neighbours(snapshot, joins),
        _visible(snapshot),
        _clock(snapshot),
        _disk(usage, home, reserve),
    ]
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


def _runtimes(offer: Offer) -> dict[str, Any]:
    offered = f"tasks run under {', '.join(offer.isolation)}"
    return _check("runtimes", offer.sandbox is not None, "; ".join((offered, *offer.missing)))


def _neighbours(snapshot: PeerSnapshot, joins: Sequence[str]) -> dict[str, Any]:
    connected, known = len(snapshot.neighbours), len(snapshot.known)
    if connected:
        return _check("mesh", True, f"in {snapshot.mesh!r} with {connected} neighbours, {known} peers known")
    if joins:
        return _check("mesh", False, f"no neighbour in {snapshot.mesh!r}: is {joins[0]} up, and in this mesh?")
    return _check("mesh", True, f"alone in {snapshot.mesh!r}: others join with an address of this node")


def _visible(snapshot: PeerSnapshot) -> dict[str, Any]:
    if snapshot.visible is None:
        return _check("visible", True, "nobody to ask yet")
    if snapshot.visible:
        return _check("visible", True, "other peers reach this node")
    return _check("visible", False, "no other peer reaches this node: check its --listen addresses and the firewall")


def _clock(snapshot: PeerSnapshot) -> dict[str, Any]:
    if snapshot.clock_wrong:
        return _check("clock", False, snapshot.clock_wrong)
    if snapshot.clock_offset_ms is None:
        return _check("clock", True, "nobody to compare it with yet")
    return _check("clock", True, f"{snapshot.clock_offset_ms} ms from the neighbours'")


def _disk(usage: Usage, home: Path, reserve: int) -> dict[str, Any]:
    free = shutil.disk_usage(home).free
    held = f"{usage.blobs} blobs, {usage.blob_bytes >> 20} of {usage.capacity >> 20} MiB used, {free >> 20} MiB free"
    if free < reserve:
        return _check("disk", False, f"{home}: {held}, less than the reserve of {reserve >> 20}: no new work is taken")
    return _check("disk", usage.blob_bytes < usage.capacity, f"{home}: {held}")


def _check(name: str, ok: bool, text: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "text": text}
