"""What the three workloads measure alike: medians of repeated calls, processor time of a process and its children."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

WORKERS = 4
NOOPS = 10_000
SHARDS = 16
SHARD_S = 0.2
ROUNDS = 3
ROUND_TRIPS = 30
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def median_s(call: Callable[[], object], times: int) -> float:
    return statistics.median(seconds(call) for _ in range(times))


def cpu_s(*roots: int) -> float:
    """Processor time of these processes and of all below them, the ended ones that were waited for included."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(map(int, fields[11:15]))
    counted = set(roots)
    while more := {child for child, parent in parents.items() if parent in counted} - counted:
        counted |= more
    return sum(used.get(pid, 0) for pid in counted) / _TICKS_PER_S


def report(system: str, version: str, **figures: float) -> None:
    """One JSON line."""
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"benchmark": "comparison", "system": system, "version": version, **rounded}), flush=True)
