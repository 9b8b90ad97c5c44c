"""The local mesh as developers use it: ``infra devmesh``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshnode.client.client import Client
from meshnode.devmesh import wait_for


@contextmanager
def devmesh(home: Path, peers: int) -> Iterator[tuple[subprocess.Popen[bytes], list[dict[str, Any]]]]:
    words = ["devmesh", "--peers", str(peers), "--home", str(home), "--runtime", "sandbox"]
    process = subprocess.Popen([sys.executable, "-m", "meshnode", *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["nodes"]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_see_each_other_and_one_that_dies_stays_dead(tmp_path: Path) -> None:
    with devmesh(tmp_path / "home", 3) as (process, nodes):
        for node in nodes:
            with Client.to_node(node["api"], home=tmp_path / "submitter") as client:
                assert {peer["node_id"] for peer in client.peers()} == {other["node_id"] for other in nodes}
            assert Path(node["home"]).is_dir()
        os.kill(nodes[1]["pid"], signal.SIGKILL)
        assert wait_for(lambda: not alive(nodes[1]["pid"]), 10)
        assert [alive(node["pid"]) for node in nodes] == [True, False, True]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert not any(alive(node["pid"]) for node in nodes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_node_outlives_it(tmp_path: Path, number: signal.Signals) -> None:
    with devmesh(tmp_path / "home", 2) as (process, nodes):
        process.send_signal(number)
        process.wait(20)
        assert wait_for(lambda: not any(alive(node["pid"]) for node in nodes), 10)


def test_a_second_mesh_in_the_same_home_is_refused(tmp_path: Path) -> None:
    with devmesh(tmp_path / "home", 2):
        words = ["devmesh", "--peers", "2", "--home", str(tmp_path / "home")]
        second = subprocess.run(
            [sys.executable, "-m", "meshnode", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 2
        assert "another node" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
