"""Nothing a hostile task tries may work, in any runtime."""

import ast
import json
import os
import platform
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from meshnode.runtimes import seccomp

PROBE = Path(__file__).with_name("probe.py").read_text()
ACTIONS = [
    node.name
    for node in ast.parse(PROBE).body
    if isinstance(node, ast.FunctionDef) and any(isinstance(name, ast.Name) for name in node.decorator_list)
]


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.request.recv(1))


class _EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, answering = self.request
        answering.sendto(data, self.client_address)


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Things outside the sandbox that really answer, so that only the sandbox stands in the way."""
    folder = tmp_path_factory.mktemp("outside")
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)  # the path itself must not be what protects the files
    (folder / "private").write_text("secret")
    (folder / "private").chmod(0o600)
    (folder / "open").write_text("readable by all")
    (folder / "other").mkdir()
    (folder / "other").chmod(0o777)
    path, abstract = str(folder / "s"), f"mesh-test-{os.getpid()}"
    servers: list[socketserver.BaseServer] = [
        tcp := socketserver.ThreadingTCPServer(("0.0.0.0", 0), _Echo),
        udp := socketserver.ThreadingUDPServer(("0.0.0.0", 0), _EchoDatagram),
        _UnixServer(path, _Echo),
        _UnixServer("\0" + abstract, _Echo),
    ]
    os.chmod(path, 0o777)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    column = list(seccomp.AUDIT_ARCH).index(platform.machine())
    yield {
        "node_pid": os.getpid(),
        "private_file": str(folder / "private"),
        "open_file": str(folder / "open"),
        "program_file": seccomp.__file__,
        "other_output": str(folder / "other"),
        "tcp_port": tcp.server_address[1],
        "udp_port": udp.server_address[1],
        "unix_socket": path,
        "abstract_socket": abstract,
        "syscalls": {name: numbers[column] for name, numbers in {**seccomp.REFUSED, "clone": seccomp.CLONE}.items()},
    }
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_targets_are_in_reach_without_a_sandbox(targets: dict[str, object]) -> None:
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", targets["tcp_port"])),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", targets["udp_port"])),
        (socket.AF_UNIX, socket.SOCK_STREAM, targets["unix_socket"]),
        (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + str(targets["abstract_socket"])),
    ):
        with socket.socket(family, kind) as one:
            one.settimeout(5)
            one.connect(address)
            one.send(b"x")
            assert one.recv(1) == b"x"


def test_every_known_attack_is_refused(place, targets: dict[str, object]) -> None:
    assert len(ACTIONS) >= 25
    request = place.request(PROBE)
    (request.input_dir / "input.json").write_text(json.dumps(targets))
    ended = trio.run(place.runtime.run, request)
    assert (ended.cause, ended.exit_code) == ("exited", 0), ended.stderr_tail
    results = json.loads(ended.stdout)
    assert sorted(results) == sorted(ACTIONS)
    assert {name: how for name, how in results.items() if how == "done"} == {}
    assert os.listdir(str(targets["other_output"])) == []


def test_a_task_sees_only_its_own_processes(make_place: Callable) -> None:
    place = make_place("bubblewrap")
    request = place.request("import os; print(*[name for name in os.listdir('/proc') if name.isdigit()])")
    ended = trio.run(place.runtime.run, request)
    assert len(ended.stdout.split()) <= 3, ended.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a task a user of its own")
def test_every_task_has_a_user_of_its_own(place) -> None:
    users = set()
    for _ in range(2):
        ended = trio.run(place.runtime.run, place.request("import os; print(os.getresuid(), os.getgroups())"))
        users.add(ended.stdout)
    assert len(users) == 2
    assert not any(b"(0," in user for user in users)
