"""Starts one sandboxed task and outlives it: the parent process that sees to it that nothing of the task remains.

Run as a script by the node's interpreter, alone (`python -I -S launcher.py REPORT_FD`), so it imports nothing but the
standard library. Reads one line of JSON from stdin, the `Launch` below, and starts the task in a child process. Stdin
stays open as the lifeline: when it ends, because the node wants the task gone or because the node itself is gone, all
the task started is killed. When the task ends by itself, what it left running is killed too.

Writes lines of JSON to REPORT_FD: `{"fault": sentence}` when the task could not be started, else `{"exit": code}`.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn, TypedDict

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
RULE_PATH_BENEATH = 1

# Rights of linux/landlock.h by the ABI version that brought them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FILE_SYSTEM_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
TRUNCATE = 1 << 14
TCP_BIND_AND_CONNECT = 0b11
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
ABI_TCP, ABI_SCOPES = 4, 6

_libc = ctypes.CDLL(None, use_errno=True)


class Mounts(TypedDict):
    """A private /tmp with the named folders bound below it, and a private /dev/shm; needs root."""

    tmp_bytes: int
    shm_bytes: int
    binds: list[tuple[str, str, bool]]
    """Source, target below /tmp, writable."""


class Landlock(TypedDict):
    read: list[str]
    write: list[str]
    network: bool


class Launch(TypedDict):
    argv: list[str]
    env: dict[str, str]
    cwd: str
    cgroups: list[str]
    """Files into which the task writes 0 to enter its control groups."""
    rlimits: dict[str, int]
    """`RLIMIT_…` without the prefix."""
    inherit: list[int]
    """File descriptors that the program gets besides the standard three."""
    mounts: Mounts | None
    uid: int | None
    landlock: Landlock | None
    seccomp: str | None
    """Hexadecimal. With bubblewrap, which takes the filter itself, None."""


def main() -> None:
    given = int(sys.argv[1])
    report = os.dup(given)  # a copy that no program inherits
    launch: Launch = json.loads(_read_line(0))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes that the task orphans become our children
    child = os.fork()
    if child == 0:
        os.set_inheritable(given, given in launch["inherit"])
        _become(launch, report)
    try:
        for descriptor in {1, 2, given, *launch["inherit"]}:
            os.close(descriptor)
        poll = select.poll()
        poll.register(os.pidfd_open(child), select.POLLIN)
        poll.register(0, select.POLLIN | select.POLLHUP)
        poll.poll()
    finally:
        code = _end_all(child)
    os.write(report, json.dumps({"exit": code}).encode() + b"\n")


def _become(launch: Launch, report: int) -> NoReturn:
    try:
        _confine(launch)
    except Exception as error:
        os.write(report, json.dumps({"fault": str(error)}).encode() + b"\n")
        os._exit(126)
    try:
        os.execvpe(launch["argv"][0], launch["argv"], launch["env"])
    except OSError as error:
        os.write(2, f"{launch['argv'][0]}: {error.strerror}\n".encode())
        os._exit(127)


def _confine(launch: Launch) -> None:
    """Everything between the fork and the program, in the order in which each step is still allowed."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for entrance in launch["cgroups"]:
        with open(entrance, "w") as file:
            file.write("0")
    if launch["mounts"] is not None:
        _mount(launch["mounts"])
    os.umask(0o022)
    for name, value in launch["rlimits"].items():
        kind = getattr(resource, "RLIMIT_" + name)
        _, most = resource.getrlimit(kind)
        if os.geteuid() != 0 and most != resource.RLIM_INFINITY:
            value = min(value, most)
        resource.setrlimit(kind, (value, value))
    ruleset = None if launch["landlock"] is None else _ruleset(launch["landlock"])
    if (uid := launch["uid"]) is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)  # away from user 0, the kernel takes every capability
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should this launcher be killed; a change of user would undo it
    os.chdir(launch["cwd"])
    if ruleset is not None:
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        _check(_libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
        os.close(ruleset)
    if launch["seccomp"] is not None:
        _install_filter(bytes.fromhex(launch["seccomp"]))


def _mount(mounts: Mounts) -> None:
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount_one(None, "/", None, MS_REC | MS_PRIVATE)
    # Opened first: a source may lie below the /tmp that is about to be covered.
    sources = [os.open(source, os.O_PATH | os.O_DIRECTORY) for source, _, _ in mounts["binds"]]
    for target, size in (("/tmp", mounts["tmp_bytes"]), ("/dev/shm", mounts["shm_bytes"])):
        _mount_one("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode=1777")
    for source, (_, target, writable) in zip(sources, mounts["binds"], strict=True):
        os.makedirs(target, mode=0o755)
        _mount_one(f"/proc/self/fd/{source}", target, None, MS_BIND)
        readonly = 0 if writable else MS_RDONLY
        _mount_one(None, target, None, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | readonly)
        os.close(source)


def _mount_one(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, options)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(result, f"mount on {target}")


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 when it has none or it is switched off."""
    return max(0, int(_libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def _ruleset(rules: Landlock) -> int:
    abi = landlock_abi()
    if abi < 1:
        raise OSError("the kernel has no Landlock")
    rights = sum(bits for version, bits in FILE_SYSTEM_RIGHTS.items() if version <= abi)
    attributes = [rights]
    if abi >= ABI_TCP:
        attributes.append(0 if rules["network"] else TCP_BIND_AND_CONNECT)
    if abi >= ABI_SCOPES:
        attributes.append(SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    packed = (ctypes.c_uint64 * len(attributes))(*attributes)
    size = ctypes.c_size_t(ctypes.sizeof(packed))
    ruleset = _check(_libc.syscall(LANDLOCK_CREATE_RULESET, packed, size, 0), "landlock_create_ruleset")
    for path in rules["read"]:
        _allow(ruleset, path, (EXECUTE | READ_FILE | READ_DIR) & rights)
    for path in rules["write"]:
        _allow(ruleset, path, rights)
    return ruleset


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
        rule = _PathBeneath(rights, parent)
        result = _libc.syscall(LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        _check(result, f"landlock_add_rule for {path}")
    finally:
        os.close(parent)


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def _install_filter(code: bytes) -> None:
    program = _FilterProgram(len(code) // 8, code)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _end_all(child: int) -> int:
    """Kill and reap every descendant; the first child's exit code as a shell shows it."""
    code = 128 + signal.SIGKILL
    while True:
        for process in _descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == child:
                    signalled = os.WIFSIGNALED(status)
                    code = 128 + os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)
                if process == 0:
                    break
        except ChildProcessError:
            return code
        time.sleep(0.002)


def _descendants() -> list[int]:
    """Living processes below this one, nearest first, from the parent column of /proc/*/stat."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    children.setdefault(int(fields[1]), []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for process in found:
        found += children.get(process, ())
    return found


def _read_line(descriptor: int) -> bytes:
    """One line, read without a buffer that could swallow what follows."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(descriptor, 65536)
        if not chunk:
            raise EOFError("no launch request")
        line += chunk
    return bytes(line)


def _prctl(option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *words), f"prctl {option}")


def _check(result: Any, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)


if __name__ == "__main__":
    main()
