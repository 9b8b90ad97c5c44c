"""The filter, run by an interpreter of the few BPF instructions it uses. That the kernel takes it, the escapes show."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.runtimes import seccomp
from meshnode.runtimes.seccomp import build_filter

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
MACHINES = list(seccomp.AUDIT_ARCH)


def verdict(program: bytes, machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the kernel would answer to one system call."""
    words = [word % 2**64 for word in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number, seccomp.AUDIT_ARCH[machine] if arch is None else arch, 0, *words)
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        opcode, if_true, if_false, value = code[at]
        at += 1
        if opcode == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif opcode == 0x06:
            return value
        else:
            test = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[opcode]
            at += if_true if test else if_false


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("namespaces", [True, False])
def test_every_listed_call_is_refused_and_common_ones_are_not(machine: str, namespaces: bool) -> None:
    column = MACHINES.index(machine)
    program = build_filter(machine=machine, namespaces=namespaces, same_user=True, may_signal=False)
    refused = dict(seccomp.REFUSED)
    if not namespaces:
        refused |= {**seccomp.REFUSED_WITHOUT_NAMESPACES, **seccomp.REFUSED_AS_SAME_USER, **seccomp.SIGNALS}
    for name, numbers in refused.items():
        if numbers[column] is not None:
            assert verdict(program, machine, numbers[column]) == REFUSE | errno.EPERM, name
    common = {"x86_64": (0, 1, 9, 59, 202, 231), "aarch64": (63, 64, 222, 221, 98, 94)}[machine]
    assert {verdict(program, machine, number) for number in common} == {ALLOW}
    chmod_at = seccomp.IGNORED_AS_SAME_USER["fchmodat"][column]
    assert verdict(program, machine, chmod_at) == (ALLOW if namespaces else REFUSE)
    signal = seccomp.SIGNALS["kill"][column]
    assert verdict(program, machine, signal) == (ALLOW if namespaces else REFUSE | errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide_where_they_must(machine: str) -> None:
    column = MACHINES.index(machine)
    families = seccomp.socket_families(network=False, unix=True)
    program = build_filter(machine=machine, families=families, namespaces=False, same_user=True)
    clone, open_socket = seccomp.CLONE[column], seccomp.SOCKET[column]
    limit = seccomp.ONLY_ON_ITSELF["prlimit64"][column]
    assert verdict(program, machine, clone, 17) == ALLOW
    assert verdict(program, machine, clone, 0x10000000 | 17) == REFUSE | errno.EPERM
    assert verdict(program, machine, seccomp.CLONE3[column]) == REFUSE | errno.ENOSYS
    assert verdict(program, machine, open_socket, socket.AF_UNIX) == ALLOW
    assert verdict(program, machine, open_socket, socket.AF_INET) == REFUSE | errno.EACCES
    assert verdict(program, machine, limit, 0) == ALLOW
    assert verdict(program, machine, limit, 4321) == REFUSE | errno.EPERM
    assert verdict(program, machine, seccomp.UTIMENSAT[column], 3, 0) == ALLOW
    assert verdict(program, machine, seccomp.UTIMENSAT[column], 3, 1 << 32) == REFUSE


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_calls_of_another_architecture_kill(machine: str, number: int, arch: int) -> None:
    program = build_filter(machine=machine, namespaces=True)
    expected = {KILL} if arch != seccomp.AUDIT_ARCH[machine] else {KILL, ALLOW, REFUSE | errno.EPERM}
    assert verdict(program, machine, number, arch=arch) in expected


def test_the_second_x86_numbering_kills() -> None:
    assert verdict(build_filter(machine="x86_64", namespaces=True), "x86_64", 0x40000000 | 165) == KILL


def test_an_unknown_machine_is_told() -> None:
    with pytest.raises(LookupError, match="no system call table for sparc"):
        build_filter(machine="sparc", namespaces=True)
