"""Network namespaces by name: made, entered, and removed with all that runs in them.

A thread enters one, not a process: what the thread connects, and what it starts, is in the namespace from then on.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meshnode.devmesh import wait_for

TOOLS = ("ip", "tc", "iptables")
GONE_WITHIN_S = 10.0
_NAMES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class BedUnavailable(Exception):
    """No test bed can be made here; one sentence."""


def check_abilities() -> None:
    """Raise BedUnavailable if this process cannot make hosts."""
    if os.geteuid() != 0:
        raise BedUnavailable("network namespaces need root")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise BedUnavailable(f"there is no {tool}")


def run(*words: object) -> str:
    """Run a tool where this thread is; what it printed. Raises BedUnavailable with what it complained about."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BedUnavailable(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def names_with(prefix: str) -> list[str]:
    """The namespaces that are there."""
    return sorted(path.name for path in _NAMES.glob(f"{prefix}*"))


def make(name: str) -> None:
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "dev", "lo", "up")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread is in the namespace while the block runs."""
    with open("/proc/thread-self/ns/net", "rb") as before, (_NAMES / name).open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def processes_in(name: str) -> list[int]:
    return [int(word) for word in run("ip", "netns", "pids", name).split()]


def remove(name: str) -> None:
    """Remove a namespace with its devices, and end what runs in it: stopped processes too, which hear nothing else."""

    def empty() -> bool:
        for process in processes_in(name):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return not processes_in(name)

    assert wait_for(empty, GONE_WITHIN_S), f"{name}: {processes_in(name)} do not end"
    run("ip", "netns", "delete", name)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise BedUnavailable(f"a network namespace cannot be entered: {os.strerror(ctypes.get_errno())}")
