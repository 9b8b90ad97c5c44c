"""What a hostile task would try. Runs inside a runtime, as the model; each function must fail.

Prints a JSON object: action to "done", or to how it was refused. `input.json` names the targets outside.
"""

import ctypes
import json
import os
import resource
import socket
import stat
import sys
from pathlib import Path

INPUT, OUTPUT, MODEL = (Path(os.environ["MESH_" + name]) for name in ("INPUT", "OUTPUT", "MODEL"))
TARGETS = json.loads((INPUT / "input.json").read_text())
NODE = TARGETS["node_pid"]
LIBC = ctypes.CDLL(None, use_errno=True)
ACTIONS = {}


def action(function):
    ACTIONS[function.__name__] = function
    return function


def call(name, *arguments):
    """A bare system call, by the number the test gave for this machine."""
    words = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments]
    result = LIBC.syscall(TARGETS["syscalls"][name], *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def connect(family, kind, address):
    with socket.socket(family, kind) as one:
        one.settimeout(1)
        one.connect(address)
        one.send(b"x")
        if not one.recv(1):  # every target answers: a datagram that leaves and arrives nowhere is no success
            raise ConnectionError("no answer")


@action
def write_the_root():
    Path("/escaped").write_text("x")


@action
def write_the_system():
    Path("/usr/escaped").write_text("x")


@action
def write_the_interpreter():
    Path(os.__file__).with_name("escaped.py").write_text("x")


@action
def write_the_model():
    (MODEL / "escaped").write_text("x")


@action
def write_the_input():
    (INPUT / "input.json").write_text("x")


@action
def remove_the_input():
    (INPUT / "input.json").unlink()


@action
def link_the_input_into_the_output():
    os.link(INPUT / "input.json", OUTPUT / "linked")


@action
def read_the_password_file():
    Path("/etc/shadow").read_bytes()


@action
def list_the_home_of_root():
    os.listdir("/root")


@action
def read_a_private_file():
    Path(TARGETS["private_file"]).read_bytes()


@action
def read_an_open_file_of_the_node():
    Path(TARGETS["open_file"]).read_bytes()


@action
def read_the_nodes_program():
    Path(TARGETS["program_file"]).read_bytes()


@action
def list_another_task():
    os.listdir(TARGETS["other_output"])


@action
def write_another_tasks_output():
    (Path(TARGETS["other_output"]) / "escaped").write_text("x")


@action
def climb_out_of_the_output():
    descriptor = os.open(OUTPUT / "..", os.O_RDONLY)
    os.open("escaped", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)


@action
def connect_by_tcp():
    connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", TARGETS["tcp_port"]))


@action
def connect_by_tcp_6():
    connect(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", TARGETS["tcp_port"]))


@action
def send_by_udp():
    connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", TARGETS["udp_port"]))


@action
def connect_to_a_unix_socket():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, TARGETS["unix_socket"])


@action
def connect_to_an_abstract_socket():
    connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + TARGETS["abstract_socket"])


@action
def connect_to_the_engine():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("/var/run/docker.sock")


@action
def open_a_raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@action
def open_a_packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)


@action
def signal_the_node():
    os.kill(NODE, 0)


@action
def trace_the_node():
    call("ptrace", 16, NODE, 0, 0)  # PTRACE_ATTACH


@action
def read_the_nodes_memory():
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
    call("process_vm_readv", NODE, ctypes.byref(local), 1, ctypes.byref(local), 1, 0)


@action
def look_at_the_node():
    os.listdir(f"/proc/{NODE}")


@action
def read_the_nodes_environment():
    Path(f"/proc/{NODE}/environ").read_bytes()


@action
def limit_the_node():
    resource.prlimit(NODE, resource.RLIMIT_NOFILE, (10, 10))


@action
def mount():
    if LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None) < 0:
        raise OSError(ctypes.get_errno(), "mount")


@action
def unmount():
    if LIBC.umount2(str(MODEL).encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), "umount2")


@action
def make_a_user_namespace():
    call("unshare", 0x10000000)


@action
def make_a_mount_namespace():
    call("unshare", 0x00020000)


@action
def clone_a_user_namespace():
    if call("clone", 0x10000000 | 17, 0, 0, 0, 0) == 0:
        os._exit(0)


@action
def enter_a_namespace():
    descriptor = os.open(f"/proc/{NODE}/ns/mnt", os.O_RDONLY)
    call("setns", descriptor, 0)


@action
def change_the_root():
    os.chroot(OUTPUT)


@action
def become_root():
    os.setuid(0)


@action
def become_the_group_of_root():
    os.setgid(0)


@action
def gain_privileges():
    if LIBC.prctl(39, 0, 0, 0, 0) == 1:  # PR_GET_NO_NEW_PRIVS
        raise PermissionError("no_new_privs is set")


@action
def hold_capabilities():
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    LIBC.capget(header, sets)
    if not any(sets):
        raise PermissionError("no capabilities")


@action
def give_a_file_to_root():
    (OUTPUT / "given").write_text("x")
    os.chown(OUTPUT / "given", 0, 0)


@action
def make_a_device():
    os.mknod(OUTPUT / "device", stat.S_IFBLK | 0o666, os.makedev(8, 0))


@action
def open_physical_memory():
    os.open("/dev/mem", os.O_RDONLY)


@action
def open_a_disk():
    for name in ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"):
        try:
            os.open(name, os.O_RDONLY)
        except OSError as error:
            refused = error
        else:
            return
    raise refused


@action
def open_the_terminal():
    os.open("/dev/tty", os.O_RDWR)


@action
def change_kernel_settings():
    Path("/proc/sys/kernel/core_pattern").write_text("|/bin/true")


@action
def press_sysrq():
    os.open("/proc/sysrq-trigger", os.O_WRONLY)


@action
def write_to_sys():
    Path("/sys/fs/cgroup/memory/escaped").mkdir(parents=True)


@action
def load_a_bpf_program():
    call("bpf", 0, ctypes.create_string_buffer(128), 128)


@action
def use_the_keyring():
    call("keyctl", 0, ctypes.c_long(-3).value % 2**64, 1)


@action
def add_a_key():
    call("add_key", b"user", b"name", b"value", 5, ctypes.c_long(-3).value % 2**64)


@action
def watch_performance():
    call("perf_event_open", ctypes.create_string_buffer(128), NODE, 0, 0, 0)


@action
def handle_page_faults():
    call("userfaultfd", 0)


@action
def load_a_module():
    call("init_module", ctypes.create_string_buffer(8), 8, b"")


@action
def open_by_handle():
    call("open_by_handle_at", 3, ctypes.create_string_buffer(16), 0)


@action
def set_the_clock():
    call("settimeofday", ctypes.create_string_buffer(16), None)


@action
def name_the_host():
    socket.sethostname("escaped")


@action
def go_first():
    os.setpriority(os.PRIO_PROCESS, 0, -20)


@action
def open_more_files_than_allowed():
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))


def main():
    results = {}
    for name, function in ACTIONS.items():
        try:
            function()
        except (OSError, ValueError) as error:  # anything else is a mistake of the probe, and ends it
            results[name] = f"refused: {type(error).__name__}: {error}"
        else:
            results[name] = "done"
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
