"""One control group per task: the real limit on its memory, processes and processor time, and a sure way to end it.

Groups are made below the node's own, so that whatever limits the operator set on the node hold for its tasks too. Both
versions are served: v2 (one tree) and v1 (one tree per controller), whichever carries the memory controller here.
"""

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

# Files of /proc and /sys are small; the mount point is the same on every distribution.
_MOUNT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_LEAF = "mesh-node"
_EMPTY_WITHIN_S = 10.0


class CgroupsUnavailable(Exception):
    """No control group can be made here. The message says why."""


class CgroupFactory:
    """Makes groups named `<prefix><task>`. Raises CgroupsUnavailable when this process may not."""

    def __init__(self, *, mount: Path = _MOUNT, own: Path = Path("/proc/self/cgroup")) -> None:
        self._trees: dict[str, Path]
        """Controller to the folder where groups are made."""
        places = _own_places(own.read_text())
        if (mount / "cgroup.controllers").exists():
            self.version = 2
            base = mount / places.get("", "/").lstrip("/")
            if base.name == _LEAF:  # a node that runs in this group stepped aside before
                base = base.parent
            _delegate(base)
            self._trees = {"": base}
        else:
            self.version = 1
            self._trees = {
                controller: mount / controller / places.get(controller, "/").lstrip("/")
                for controller in ("memory", "pids", "cpu")
            }
        for tree in self._trees.values():
            if not os.access(tree, os.W_OK):
                raise CgroupsUnavailable(f"control groups at {tree} cannot be written")

    def create(self, name: str, *, memory_bytes: int, pids: int, cpu: float) -> "Cgroup":
        """A new empty group. Raises CgroupsUnavailable when the kernel refuses a limit."""
        group = Cgroup(self.version, [tree / name for tree in self._trees.values()])
        try:
            for folder in group.folders:
                folder.mkdir()
            quota = max(1000, round(cpu * _PERIOD_US))
            if self.version == 2:
                (folder,) = group.folders
                (folder / "memory.max").write_text(str(memory_bytes))
                _write_if_there(folder / "memory.swap.max", "0")
                (folder / "memory.oom.group").write_text("1")
                (folder / "pids.max").write_text(str(pids))
                (folder / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
            else:
                memory, processes, processor = group.folders
                (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
                _write_if_there(memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
                (processes / "pids.max").write_text(str(pids))
                (processor / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (processor / "cpu.cfs_quota_us").write_text(str(quota))
        except OSError as error:
            with contextlib.suppress(OSError):
                group.destroy()
            raise CgroupsUnavailable(f"control group {name} cannot be set up: {error}") from None
        return group

    def named(self, prefix: str) -> list["Cgroup"]:
        """Existing groups whose name starts with `prefix`."""
        names = sorted(
            {entry.name for tree in self._trees.values() for entry in tree.glob(prefix + "*") if entry.is_dir()}
        )
        return [
            Cgroup(self.version, [tree / name for tree in self._trees.values() if (tree / name).is_dir()])
            for name in names
        ]


class Cgroup:
    """One task's group: one folder (v2) or one folder per controller (v1: memory, pids, cpu)."""

    def __init__(self, version: int, folders: list[Path]) -> None:
        self.version = version
        self.folders = folders

    @property
    def name(self) -> str:
        return self.folders[0].name

    @property
    def entrances(self) -> list[str]:
        """Files into which a process writes `0` to enter the group."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def limit_cpu(self, cpu: float) -> None:
        """Give the group so many processor cores from now on. Raises OSError."""
        quota = max(1000, round(cpu * _PERIOD_US))
        if self.version == 2:
            (self.folders[0] / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:
            (self.folders[-1] / "cpu.cfs_quota_us").write_text(str(quota))

    def out_of_memory_kills(self) -> int:
        """How many processes the kernel ended because the group was out of memory."""
        source = self.folders[0] / ("memory.events" if self.version == 2 else "memory.oom_control")
        for line in source.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0

    def destroy(self) -> None:
        """Kill everything in the group and remove it. Blocks until the kernel has let go of the processes.

        Raises OSError (EBUSY) when they are still there after some seconds, as after a hang in a device driver.
        """
        deadline = time.monotonic() + _EMPTY_WITHIN_S
        while True:
            self._kill()
            self.folders, failed = _remove_all(self.folders)
            if not self.folders:
                return
            if time.monotonic() > deadline:
                raise failed
            time.sleep(0.005)

    def _kill(self) -> None:
        for folder in self.folders:
            with contextlib.suppress(OSError):
                # Nothing forks away from the killing: v2 kills the group as one, v1 forbids new processes first.
                if self.version == 2:
                    (folder / "cgroup.kill").write_text("1")
                    continue
                _write_if_there(folder / "pids.max", "0")
                for process in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)


def _remove_all(folders: list[Path]) -> tuple[list[Path], OSError]:
    """Those that could not be removed, and the last reason."""
    left, reason = [], OSError()
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            left.append(folder)
            reason = error
    return left, reason


def _own_places(text: str) -> dict[str, str]:
    """The lines `id:controllers:path` of /proc/self/cgroup, by controller; the v2 tree stands under the empty name."""
    places = {}
    for line in text.splitlines():
        _, controllers, place = line.split(":", 2)
        for controller in controllers.split(","):
            places[controller] = place
    return places


def _delegate(base: Path) -> None:
    """Let groups below `base` have the controllers. In v2 a group with controllers below it may hold no process."""
    switch = base / "cgroup.subtree_control"
    try:
        if {"memory", "pids", "cpu"} <= set(switch.read_text().split()):
            return
        try:
            switch.write_text("+memory +pids +cpu")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            leaf = base / _LEAF  # the node steps aside, and whoever shares its group with it
            leaf.mkdir(exist_ok=True)
            for process in (base / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (leaf / "cgroup.procs").write_text(process)
            switch.write_text("+memory +pids +cpu")
    except OSError as error:
        raise CgroupsUnavailable(f"control groups at {base} are not ours to divide: {error}") from None


def _write_if_there(file: Path, text: str) -> None:
    """For files that exist only on kernels built with the feature (swap accounting, the pids controller)."""
    if file.exists():
        file.write_text(text)
