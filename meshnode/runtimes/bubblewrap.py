"""Namespaces by bubblewrap: the task sees a file system of its own, no network, and no other process.

As an ordinary user bubblewrap makes a user namespace. As root it must not: there `--uid` would only be paint over
user 0, who still owns every file of root's. So the task becomes a user of its own, by `setpriv` inside the sandbox,
after bubblewrap has bound folders that this user could not reach by their real paths.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from meshnode.runtimes.confinement import HELPERS, Plan, Task, resource_limits, with_python, write_venv
from meshnode.runtimes.interpreter import Interpreter, environment, system_folders
from meshnode.runtimes.launcher import Launch
from meshnode.runtimes.seccomp import build_filter, socket_families

PYTHON, VENV, PACKAGES = "/opt/python", "/opt/venv", "/opt/packages"
MODEL, INPUT, OUTPUT = "/mesh/model", "/mesh/input", "/mesh/output"
_NOBODY = 65534
_NETWORK_FILES = ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates", "pki")


class Bubblewrap:
    """Raises LookupError when a program it needs is not installed, or the machine is of an unknown kind."""

    isolation: Literal["namespace"] = "namespace"
    title = "bubblewrap"
    own_processes = 2  # one outside the process namespace, and process 1 inside

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._bwrap = _installed("bwrap")
        self._setpriv = _installed("setpriv")
        self._prlimit = _installed("prlimit")
        build_filter(namespaces=True)

    def plan(self, task: Task, report: int) -> Plan:
        request = task.request
        places = [f"{PACKAGES}/{index}" for index, _ in enumerate(self._interpreter.site_packages)]
        write_venv(task.scratch / "venv", self._interpreter, prefix=PYTHON, site_packages=places)
        families = socket_families(network=request.network, unix=True)
        program = build_filter(namespaces=True, families=families)
        rules = os.memfd_create("seccomp", 0)
        os.write(rules, program)
        os.lseek(rules, 0, os.SEEK_SET)

        env = environment(self._interpreter, bin_dir=f"{VENV}/bin", prefix=PYTHON, home="/tmp", cpu=request.cpu)
        env["PYTHONPATH"] = os.pathsep.join([f"{VENV}/{HELPERS}", *places[1:]])
        env |= dict(request.env)
        env |= {"MESH_MODEL": MODEL, "MESH_INPUT": INPUT, "MESH_OUTPUT": OUTPUT}
        argv = [
            self._bwrap,
            *self._namespaces(task),
            *self._file_system(task, places),
            *("--seccomp", str(rules), "--json-status-fd", str(report)),
            *("--chdir", MODEL, "--"),
            *self._become_the_user(task),
            *with_python(request.command, f"{VENV}/bin/python3"),
        ]
        launch: Launch = {
            "argv": argv,
            "env": env,
            "cwd": "/",
            "cgroups": list(task.cgroups),
            "rlimits": resource_limits(task),
            "inherit": [rules, report, *task.inherit],
            "mounts": None,
            "uid": None,
            "landlock": None,
            "seccomp": None,
        }
        return Plan(launch, (rules,))

    def _namespaces(self, task: Task) -> list[str]:
        words = ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "task"]
        if not task.request.network:
            words.append("--unshare-net")
        if task.uid is None:
            words += ["--unshare-user", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
        else:  # just what setpriv needs to become the user and give the rest away
            words += [word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")]
        return [*words, "--die-with-parent", "--new-session"]

    def _file_system(self, task: Task, places: Sequence[str]) -> list[str]:
        interpreter, request = self._interpreter, task.request
        words: list[str] = []
        for folder in ("/etc", "/opt", PACKAGES, "/mesh"):
            words += ["--perms", "0755", "--dir", folder]  # bubblewrap's implied folders are closed to others
        for path in system_folders():
            if path.is_symlink():
                words += ["--symlink", os.readlink(path), str(path)]
            else:
                words += ["--ro-bind", str(path), str(path)]
        for name in ("ld.so.cache", "alternatives", "localtime", *(_NETWORK_FILES if request.network else ())):
            words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        for name in ("passwd", "group"):
            words += ["--ro-bind", str(_identity(task, name)), f"/etc/{name}"]
        words += ["--ro-bind", str(interpreter.prefix), PYTHON, "--ro-bind", str(task.scratch / "venv"), VENV]
        for source, place in zip(interpreter.site_packages, places, strict=True):
            words += ["--ro-bind", str(source), place]
        words += ["--ro-bind", str(request.model_dir), MODEL, "--ro-bind", str(request.input_dir), INPUT]
        words += ["--bind", str(request.output_dir), OUTPUT]
        words += ["--proc", "/proc", "--dev", "/dev"]
        words += ["--perms", "1777", "--size", str(request.shm_bytes), "--tmpfs", "/dev/shm"]
        words += ["--perms", "1777", "--size", str(request.tmp_bytes), "--tmpfs", "/tmp"]
        return [*words, "--remount-ro", "/dev", "--remount-ro", "/"]

    def _become_the_user(self, task: Task) -> list[str]:
        if task.uid is None:
            # Inside the user namespace the count starts anew, with process 1; outside it would count all the owner's.
            return [self._prlimit, f"--nproc={task.request.pids + 1}", "--"]
        user = str(task.uid)
        return [
            *(self._setpriv, "--reuid", user, "--regid", user, "--clear-groups"),
            *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"),
        ]


def _installed(program: str) -> str:
    # The sandbox shows /usr at its own path, so a program found there is found inside as well.
    path = shutil.which(program, path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin")
    if path is None:
        raise LookupError(f"{program} is not installed")
    return path


def _identity(task: Task, name: str) -> Path:
    """A passwd or group file that knows the task's user alone."""
    number = _NOBODY if task.uid is None else task.uid
    line = f"task:x:{number}:{number}::/tmp:/bin/sh\n" if name == "passwd" else f"task:x:{number}:\n"
    file = task.scratch / name
    file.write_text(line)
    return file
