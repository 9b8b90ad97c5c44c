"""What the two sandboxes have in common: how a task looks from inside, and the plan that a launcher carries out."""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from meshnode.runtimes import meshmodel
from meshnode.runtimes.base import RunRequest, RuntimeFault
from meshnode.runtimes.interpreter import Interpreter
from meshnode.runtimes.launcher import Launch

# User ids for tasks lie above all that distributions, containers and directory services hand out, and below 2^31.
_UIDS = range(0x7000_0000, 0x7FF0_0000)
_OPEN_FILES = 1024
HELPERS = "helpers"
# Without a control group a limit counts every mapping; programs map far more than they use.
_UNUSED_MAPPINGS_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Plan:
    """What the launcher is to do, and the file descriptors it needs for that."""

    launch: Launch
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One request with what was set up for it."""

    request: RunRequest
    scratch: Path
    """A folder for this task alone; holds `venv` and `tmp`."""
    uid: int | None
    """The task's user; None when the node is not root, and the task keeps the node's user."""
    cgroups: Sequence[str]
    """Where a process enters the task's control groups; empty without them."""
    inherit: tuple[int, ...] = ()
    """File descriptors of the node that the task gets, under the same numbers."""


class Confinement(Protocol):
    """One way to fence a process in."""

    @property
    def isolation(self) -> Literal["namespace", "landlock"]: ...

    @property
    def title(self) -> str: ...

    @property
    def own_processes(self) -> int:
        """Processes of the confinement itself that are counted with the task's."""
        ...

    def plan(self, task: Task, report: int) -> Plan:
        """How to start the task. `report` is the launcher's end of the pipe on which outcomes are told."""
        ...


def fresh_uid() -> int:
    """A user id that no other task on this machine has, but for a chance of one in 10^8 per task running now."""
    return secrets.choice(_UIDS)


def require_open_to_others(request: RunRequest) -> None:
    """Raises RuntimeFault for folders that a task's own user could not enter."""
    for folder in (request.model_dir, request.input_dir):
        if folder.stat().st_mode & 0o005 != 0o005:
            raise RuntimeFault(f"{folder} is closed to other users, and the task runs as one of them")


def write_venv(folder: Path, interpreter: Interpreter, *, prefix: str, site_packages: Sequence[str]) -> None:
    """A virtual environment at `folder`, for an interpreter that is seen at `prefix`, with packages seen elsewhere.

    What is for every model, whatever its Python, lies in the folder HELPERS of it.
    """
    (folder / HELPERS).mkdir(parents=True)
    shutil.copyfile(meshmodel.__file__, folder / HELPERS / "meshmodel.py")
    packages = folder / "lib" / interpreter.version
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {prefix}/bin\ninclude-system-site-packages = false\n")
    for name in ("python3", "python", interpreter.version):
        (folder / "bin" / name).symlink_to(f"{prefix}/{interpreter.program}")
    if site_packages:
        (packages / "site-packages").symlink_to(site_packages[0])


def resource_limits(task: Task) -> dict[str, int]:
    """Limits on each process. What counts the whole task is the control group's, where there is one."""
    request = task.request
    limits = {
        "CORE": 0,
        "NOFILE": _OPEN_FILES,
        "FSIZE": max(request.output_bytes_max + 4096, request.tmp_bytes),
        "MSGQUEUE": 0,
    }
    if task.uid is not None:
        limits["NPROC"] = request.pids  # counted per user, and this user has nothing else
    if not task.cgroups:
        limits["DATA"] = request.memory_bytes
        limits["AS"] = request.memory_bytes + _UNUSED_MAPPINGS_BYTES
    return limits


def with_python(command: Sequence[str], python: str) -> list[str]:
    """`command` with the sandbox's Python by its absolute path: a name could silently find another interpreter."""
    first, *rest = command
    return [python if first in ("python3", "python") else first, *rest]


def processes_of_user() -> int:
    """Processes and threads that now run under the node's own user."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count
