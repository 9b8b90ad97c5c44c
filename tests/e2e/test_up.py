"""``infra up``: how a node begins and ends, as its operator sees it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import infra


def test_a_node_that_is_told_to_stop_leaves_in_order(mesh: DevMesh) -> None:
    (guest,) = mesh.add()
    api_file = guest.home / "api.json"
    assert json.loads(api_file.read_text())["node_id"] == guest.node_id
    assert api_file.stat().st_mode & 0o077 == 0
    guest.process.terminate()
    assert guest.process.wait(10) == 0
    assert not api_file.exists()

    def forgotten() -> bool:
        with mesh.nodes[0].client() as client:
            return guest.node_id not in {peer["node_id"] for peer in client.peers()}

    assert wait_for(forgotten, 5), "it did not say good-bye"


def test_a_home_belongs_to_one_node(mesh: DevMesh) -> None:
    second = infra("up", "--home", mesh.nodes[0].home, "--listen", "/ip4/127.0.0.1/tcp/0", "--runtime", "sandbox")
    assert second.code == 2
    assert f"another node (process {mesh.nodes[0].pid}) uses this home" in second.err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--slots", "0"), "slots"),
        (("--listen", "4001"), "listen: '4001'"),
        (("--listen", "/ip4/127.0.0.1/udp/1"), "/ip4/127.0.0.1/udp/1"),
        (("--join", "/ip4/127.0.0.1/tcp/1"), "join"),
        (("--label", "x"), "labels"),
        (("--config", "/nonexistent.toml"), "/nonexistent.toml"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, words: tuple[str, ...], names: str) -> None:
    ended = infra("up", "--home", tmp_path / "home", "--runtime", "sandbox", *words, timeout_s=30)
    assert ended.code == 2, ended
    assert names in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        ended = infra("up", "--home", tmp_path / "home", "--runtime", "sandbox", "--listen", where, timeout_s=30)
    assert ended.code == 2, ended
    assert where in ended.err
    assert len(ended.err.strip().splitlines()) == 1
