"""Landlock, seccomp and resource limits: for machines without bubblewrap, or where namespaces are forbidden.

The task keeps the machine's file tree in view, but may open only what is listed here. Landlock governs files, TCP and
(from version 6) signals; the system call filter refuses the rest: every kind of socket, and for a node that is not
root the calls that change the owner's files without opening them.

As root the task becomes a user of its own. Folders that this user cannot reach, such as an interpreter below /root, are
bound below a private /tmp (`private_mounts`); that takes a mount namespace, which not every container grants.

What stays open, and is the reason why bubblewrap comes first: a task can ask whether a path exists and how large a file
is, and it shares the process table and the kernel's other namespaces with the machine.
"""

import os
from typing import Literal

from meshnode.runtimes.confinement import (
    HELPERS,
    Plan,
    Task,
    processes_of_user,
    resource_limits,
    with_python,
    write_venv,
)
from meshnode.runtimes.interpreter import Interpreter, environment, system_folders
from meshnode.runtimes.launcher import ABI_SCOPES, Launch, Mounts, landlock_abi
from meshnode.runtimes.seccomp import build_filter, socket_families

_READABLE = (
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime"),
    *("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
    *("/dev/zero", "/dev/random", "/dev/urandom"),
)
_READABLE_WITH_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"),
    *("/etc/ssl", "/etc/ca-certificates", "/etc/pki"),
)


class Landlock:
    """Raises LookupError when the kernel has no Landlock, or the machine is of an unknown kind."""

    isolation: Literal["landlock"] = "landlock"
    own_processes = 0

    def __init__(self, interpreter: Interpreter, *, private_mounts: bool) -> None:
        self._interpreter = interpreter
        self._private_mounts = private_mounts
        self._abi = landlock_abi()
        if self._abi < 1:
            raise LookupError("the kernel has no Landlock")
        build_filter(namespaces=False)

    @property
    def title(self) -> str:
        return "Landlock with private mounts" if self._private_mounts else "Landlock"

    def plan(self, task: Task, report: int) -> Plan:
        request, interpreter = task.request, self._interpreter
        places = _Places(task, private=self._private_mounts)
        prefix = places.show(str(interpreter.prefix), "python")
        packages = [places.show(str(path), f"packages/{n}") for n, path in enumerate(interpreter.site_packages)]
        model = places.show(str(request.model_dir), "model")
        input_dir = places.show(str(request.input_dir), "input")
        output = places.show(str(request.output_dir), "output", writable=True)
        venv = places.show(str(task.scratch / "venv"), "venv")
        write_venv(task.scratch / "venv", interpreter, prefix=prefix, site_packages=packages)

        env = environment(interpreter, bin_dir=f"{venv}/bin", prefix=prefix, home=places.tmp, cpu=request.cpu)
        env["PYTHONPATH"] = os.pathsep.join([f"{venv}/{HELPERS}", *packages[1:]])
        env |= dict(request.env)
        env |= {"MESH_MODEL": model, "MESH_INPUT": input_dir, "MESH_OUTPUT": output}
        limits = resource_limits(task)
        if task.uid is None:  # the limit counts all of the owner's processes
            limits["NPROC"] = processes_of_user() + request.pids
        program = build_filter(
            namespaces=False,
            families=socket_families(network=request.network, unix=False),
            same_user=task.uid is None,
            may_signal=self._abi >= ABI_SCOPES,
        )
        system = [str(folder) for folder in system_folders()]
        readable = [prefix, *packages, model, input_dir, venv, *system, *_READABLE]
        if request.network:
            readable += _READABLE_WITH_NETWORK
        launch: Launch = {
            "argv": with_python(request.command, f"{venv}/bin/python3"),
            "env": env,
            "cwd": model,
            "cgroups": list(task.cgroups),
            "rlimits": limits,
            "inherit": list(task.inherit),
            "mounts": places.mounts,
            "uid": task.uid,
            "landlock": {"read": readable, "write": [*places.scratch, output, "/dev/null"], "network": request.network},
            "seccomp": program.hex(),
        }
        return Plan(launch)


class _Places:
    """Where the task sees a folder: at its real path, or bound below its private /tmp."""

    def __init__(self, task: Task, *, private: bool) -> None:
        self.mounts: Mounts | None = None
        if private:
            request = task.request
            self.mounts = {"tmp_bytes": request.tmp_bytes, "shm_bytes": request.shm_bytes, "binds": []}
            self.tmp = "/tmp"
            self.scratch = ["/tmp", "/dev/shm"]
        else:
            own = task.scratch / "tmp"
            own.mkdir()
            if task.uid is not None:
                os.chown(own, task.uid, task.uid)
            self.tmp = str(own)
            self.scratch = [self.tmp]

    def show(self, path: str, name: str, *, writable: bool = False) -> str:
        if self.mounts is None:
            return path
        target = f"/tmp/.mesh/{name}"
        self.mounts["binds"].append((path, target, writable))
        return target
