"""What a node process has of memory, descriptors, threads and disk, and how that grows with the work done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MEASURES = ("memory", "descriptors", "threads", "disk")
FLAT_SHARE = 0.05
FLAT_LEAST = {"memory": 8 << 20, "descriptors": 4, "threads": 4, "disk": 16 << 20}
"""Growth that is noise, however small the level is."""


@dataclass(frozen=True)
class Sample:
    shards: int
    """Done so far, in the whole mesh."""
    memory: int
    """Resident bytes."""
    descriptors: int
    threads: int
    disk: int
    """Bytes that the home takes."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def sample(process: int, home: Path, shards: int) -> Sample | None:
    """None if the process has ended."""
    folder = Path(f"/proc/{process}")
    try:
        return Sample(
            shards=shards,
            memory=int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            descriptors=len(os.listdir(folder / "fd")),
            threads=len(os.listdir(folder / "task")),
            disk=_disk_of(home),
        )
    except (OSError, IndexError):
        return None


def _disk_of(home: Path) -> int:
    total = 0
    for folder, _, names in os.walk(home):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line with the least squares; 0 if there is none."""
    if not points:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


def growth(samples: Sequence[dict[str, int]], since: int) -> dict[str, Any]:
    """For each measure its level, its slope per 1,000 shards from ``since`` shards on, and whether that is flat."""
    late = [one for one in samples if one["shards"] >= since]
    found = {}
    for measure in MEASURES:
        points = [(float(one["shards"]), float(one[measure])) for one in late]
        steep = slope(points)
        span = points[-1][0] - points[0][0] if points else 0.0
        level = sum(y for _, y in points) / len(points) if points else 0.0
        allowed = max(FLAT_LEAST[measure], FLAT_SHARE * level)
        found[measure] = {
            "level": round(level),
            "per_1000_shards": round(steep * 1000, 3),
            "flat": steep * span <= allowed,
        }
    return {"samples": len(late), **found}
