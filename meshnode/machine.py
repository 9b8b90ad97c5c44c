"""What this machine has to offer: processors and memory, as far as this process may use them."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup")
_CGROUP_V1_MEMORY = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHARE_FOR_TASKS = 0.8
"""The rest is the node's own and the system's."""


def processors() -> int:
    """Processors this process may run on; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, _quota() or allowed))


def memory_for_tasks() -> int:
    """Bytes of memory that may be promised to tasks: a share of what the machine, or its container, has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in (_CGROUP_V2 / "memory.max", _CGROUP_V1_MEMORY) if (limit := _number(path))]
    return int(min([total, *limits]) * _SHARE_FOR_TASKS)


def memory_available() -> tuple[int, int]:
    """Bytes of memory that programs could still be given without swapping, and of all there is, in this machine."""
    with open("/proc/meminfo") as file:
        sizes = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in file)}
    return sizes["MemAvailable"], sizes["MemTotal"]


def _quota() -> int | None:
    """Whole processors of a cgroup v2 CPU quota, if there is one."""
    try:
        quota, period = (_CGROUP_V2 / "cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
