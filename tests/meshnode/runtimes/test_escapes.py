"""Nothing a hostile task tries may work, in any runtime."""

import ast
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

PROBE = Path(__file__).with_name("probe.py").read_text()
ACTIONS = [
    node.name
    for node in ast.parse(PROBE).body
    if isinstance(node, ast.FunctionDef) and any(isinstance(name, ast.Name) for name in node.decorator_list)
]


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
