"""A seccomp filter as classic BPF: which system calls a sandboxed task may not make.

The filter is the second fence. Namespaces or Landlock decide what a task can reach; the filter keeps it away from the
parts of the kernel that no batch program needs and that have let sandboxes be escaped before. It is a list of refusals
(the call fails with EPERM), not of permissions: a list of permissions breaks honest programs at every new libc.

The program is an array of `struct sock_filter`, ready for `prctl(PR_SET_SECCOMP)` or for `bwrap --seccomp`.
"""

import errno
import platform
import socket
import struct
from collections.abc import Iterable, Mapping

# System call numbers on x86-64 and on arm64; None where the architecture has no such call.
Numbers = Mapping[str, tuple[int | None, int | None]]

REFUSED: Numbers = {
    # the file system tree and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "fanotify_init": (300, 262),
    # the kernel itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "acct": (163, 89),
    "syslog": (103, 116),
    "lookup_dcookie": (212, 18),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "vhangup": (153, 58),
    "personality": (135, 92),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
}

# Allowed on the caller itself only, that is with 0 as the first argument.
ONLY_ON_ITSELF: Numbers = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
}

# Without an IPC namespace these make objects that outlive the task, or touch other people's processes.
REFUSED_WITHOUT_NAMESPACES: Numbers = {
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
}

# Landlock does not govern metadata: a task that runs under the node's own user could chmod the owner's files. These
# calls say that they worked and do nothing, because copying a file as Python's `shutil.copy` does ends in them.
IGNORED_AS_SAME_USER: Numbers = {
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
}
REFUSED_AS_SAME_USER: Numbers = {
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "removexattrat": (466, 466),
}

# Refused where the kernel cannot confine signals to the task (Landlock before ABI 6).
SIGNALS: Numbers = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}

SOCKET = (41, 198)
UTIMENSAT = (280, 88)
CLONE = (56, 220)
CLONE3 = (435, 435)

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, and NEWTIME (which clone() cannot carry)
NAMESPACE_FLAGS = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

# opcodes of linux/filter.h and return values of linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_PRETEND = _ERRNO | 0  # an error number of 0 is success
# offsets in struct seccomp_data
_NUMBER, _ARCH = 0, 4


def build_filter(
    *,
    machine: str | None = None,
    families: Iterable[int] = (),
    namespaces: bool,
    same_user: bool = False,
    may_signal: bool = True,
) -> bytes:
    """The filter program.

    families: the socket families that `socket()` may use; any other fails with EACCES. `socketpair()` is untouched.
    namespaces: whether the task has pid and ipc namespaces of its own.
    same_user: whether the task runs under the node's own user id. Only asked without namespaces.
    may_signal: whether the kernel keeps the task's signals to itself.
    Raises LookupError on a machine that is neither x86-64 nor arm64.
    """
    machine = machine or platform.machine()
    if machine not in AUDIT_ARCH:
        raise LookupError(f"no system call table for {machine}, only for {' and '.join(AUDIT_ARCH)}")
    column = list(AUDIT_ARCH).index(machine)
    program = _Program()
    program.load(_ARCH)
    program.unless_equal(AUDIT_ARCH[machine], _KILL)  # a 32-bit call would carry other numbers past the list
    program.load(_NUMBER)  # stays loaded: what is loaded in between ends in a verdict
    if machine == "x86_64":
        program.if_at_least(X32_BIT, _KILL)

    groups: list[tuple[Numbers, int]] = [(REFUSED, _ERRNO | errno.EPERM)]
    if not namespaces:
        groups.append((REFUSED_WITHOUT_NAMESPACES, _ERRNO | errno.EPERM))
        if same_user:
            groups += [(REFUSED_AS_SAME_USER, _ERRNO | errno.EPERM), (IGNORED_AS_SAME_USER, _PRETEND)]
        if not may_signal:
            groups.append((SIGNALS, _ERRNO | errno.EPERM))
    for group, verdict in groups:
        for numbers in group.values():
            if (number := numbers[column]) is not None:
                program.if_equal(number, verdict)
    # The flags of clone3 lie in memory, where a filter cannot look; ENOSYS makes every libc fall back to clone.
    program.if_equal(CLONE3[column], _ERRNO | errno.ENOSYS)

    with_argument = _Program()
    with_argument.load(_argument(0))
    with_argument.if_any_bit(NAMESPACE_FLAGS, _ERRNO | errno.EPERM)
    program.for_call(CLONE[column], with_argument)

    for numbers in ONLY_ON_ITSELF.values():
        with_argument = _Program()
        with_argument.load(_argument(0))
        with_argument.unless_equal(0, _ERRNO | errno.EPERM)
        program.for_call(_known(numbers[column]), with_argument)

    with_argument = _Program()
    with_argument.load(_argument(0))
    for family in families:
        with_argument.if_equal(int(family), _ALLOW)
    with_argument.give(_ERRNO | errno.EACCES)
    program.for_call(SOCKET[column], with_argument)

    if same_user and not namespaces:  # futimens() passes no path and works on files that the task could open
        with_argument = _Program()
        for half in (0, 4):
            with_argument.load(_argument(1) + half)
            with_argument.unless_equal(0, _PRETEND)
        program.for_call(UTIMENSAT[column], with_argument)

    program.give(_ALLOW)
    return bytes(program.code)


def socket_families(*, network: bool, unix: bool) -> tuple[int, ...]:
    """The families for `build_filter`: internet sockets with a network, Unix sockets where those are confined."""
    internet = (socket.AF_INET, socket.AF_INET6) if network else ()
    return (*((socket.AF_UNIX,) if unix else ()), *internet)


def _argument(index: int) -> int:
    """Offset of the low 32 bits of one system call argument (both architectures are little-endian)."""
    return 16 + 8 * index


def _known(number: int | None) -> int:
    assert number is not None
    return number


class _Program:
    """Instructions in order; every test either returns at once or falls through."""

    def __init__(self) -> None:
        self.code = bytearray()

    def _emit(self, opcode: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self.code += struct.pack("<HBBI", opcode, if_true, if_false, value)

    def load(self, offset: int) -> None:
        self._emit(_LOAD, offset)

    def give(self, verdict: int) -> None:
        self._emit(_RETURN, verdict)

    def if_equal(self, value: int, verdict: int) -> None:
        self._emit(_JUMP_EQUAL, value, 0, 1)
        self.give(verdict)

    def unless_equal(self, value: int, verdict: int) -> None:
        self._emit(_JUMP_EQUAL, value, 1, 0)
        self.give(verdict)

    def if_at_least(self, value: int, verdict: int) -> None:
        self._emit(_JUMP_AT_LEAST, value, 0, 1)
        self.give(verdict)

    def if_any_bit(self, mask: int, verdict: int) -> None:
        self._emit(_JUMP_ANY_BIT, mask, 0, 1)
        self.give(verdict)

    def for_call(self, number: int, body: "_Program") -> None:
        """Run `body` for one system call; what it lets through is allowed."""
        length = len(body.code) // 8 + 1
        self._emit(_JUMP_EQUAL, number, 0, length)
        self.code += body.code
        self.give(_ALLOW)
