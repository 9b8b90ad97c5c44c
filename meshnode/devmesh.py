"""A local mesh of real node processes on loopback, for demos, development and tests.

    with DevMesh.run(Path("mesh"), peers=4) as mesh:
        mesh.nodes[0].api

A node lives as long as the process that started it: it watches its stdin, whose other end is held here, so not even
a kill -9 of this process leaves one behind. Identities, journals and ports stay in the folder over restarts.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from meshnode.client.client import Client
from meshnode.client.errors import ClientError
from meshnode.keystore import peer_id_at

START_WITHIN_S = 60.0
MEET_WITHIN_S = 60.0
END_WITHIN_S = 10.0
PORT_FILE = "devmesh-port"
"""In a home: where its node was reached last, so that it is found there again."""
_POLL_S = 0.1
# below the range from which systems take the local ports of outgoing connections
_PORTS = range(15_000, 32_000)


class DevMeshError(Exception):
    """A local mesh that did not come up; one sentence."""


@dataclass
class DevNode:
    """One node process."""

    home: Path
    address: str
    """Multiaddress with the peer id."""
    process: subprocess.Popen[bytes] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    flags: Mapping[str, Any] = field(repr=False)
    """What it was started with, and is started with again."""
    api: str = ""
    """URL of the API with the token as user name."""
    isolation: tuple[str, ...] = ()

    @property
    def node_id(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def as_json(self) -> dict[str, Any]:
        return {"api": self.api, "node_id": self.node_id, "pid": self.pid, "home": str(self.home)}

    @contextmanager
    def client(self, home: Path | None = None) -> Iterator[Client]:
        """A client of this node; its submitter is the mesh's own, or the one whose home this is."""
        with Client.to_node(self.api, home=home or self.home.parent / "submitter") as client:
            yield client

    def kill(self) -> None:
        """End the process without a word, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def close_pipes(self) -> None:
        """Let go of a process that has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def stderr(self) -> str:
        """What the process had to complain about."""
        try:
            return (self.home / "stderr").read_text(errors="replace").strip()
        except OSError:
            return ""


class DevMesh:
    """Node processes below one folder. Made by ``DevMesh.run``."""

    command: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "meshnode")

    def __init__(self, folder: Path, *, mesh: str, runtime: str, slots: int) -> None:
        self.folder = folder
        self.nodes: list[DevNode] = []
        self._flags = {"mesh": mesh, "runtime": runtime, "slots": slots}

    @classmethod
    @contextmanager
    def run(
        cls, folder: Path, peers: int, *, mesh: str = "dev", runtime: str = "auto", slots: int | None = None
    ) -> Iterator[DevMesh]:
        """Run ``peers`` nodes until the block is left, bootstrapped to each other. Raises DevMeshError.

        They are up, and all see each other, when the block begins. ``slots``: tasks that each runs at once; by default
        the machine's processors are shared out.
        """
        shared = max(1, len(os.sched_getaffinity(0)) // max(1, peers))
        made = cls(folder, mesh=mesh, runtime=runtime, slots=slots or shared)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            made.add(peers)
            yield made
        finally:
            made.close()

    def add(
        self,
        count: int = 1,
        *,
        meet: bool = True,
        environment: Mapping[str, str] | None = None,
        **flags: Any,
    ) -> list[DevNode]:
        """Start ``count`` more nodes at once, and wait until they are up and (``meet``) all see each other.

        ``flags`` are options of ``infra up`` that replace the mesh's own.
        """
        homes = [self.folder / f"node{len(self.nodes) + number}" for number in range(count)]
        identities = [peer_id_at(home) for home in homes]  # makes the homes that are new
        places = [f"{place}/p2p/{identity}" for place, identity in zip(self._places_of(homes), identities, strict=True)]
        known = [node.address for node in self.nodes if node.running] + places
        added = []
        for home, address in zip(homes, places, strict=True):
            process = self._start(home, address, known, environment or {}, flags)
            node = self._node(home, address, process, environment or {}, flags)
            self.nodes.append(node)
            added.append(node)
        for node in added:
            _await_up(node)
        if meet:
            self.wait_until_met()
        return added

    def restart(self, *nodes: DevNode, meet: bool = True) -> None:
        """Start nodes that have ended again, all at once, with their homes and addresses; wait as ``add`` does."""
        known = [node.address for node in self.nodes if node.running or node in nodes]
        for node in nodes:
            assert not node.running
            node.close_pipes()
            node.process = self._start(node.home, node.address, known, node.environment, node.flags)
        for node in nodes:
            _await_up(node)
        if meet:
            self.wait_until_met()

    def wait_until_met(self) -> None:
        """Return when every running node knows every other. Raises DevMeshError."""
        running = [node for node in self.nodes if node.running]
        everybody = {node.node_id for node in running}

        def met() -> bool:
            return all(everybody <= _known_to(node) for node in running)

        if not wait_for(met, MEET_WITHIN_S):
            raise DevMeshError(f"the {len(running)} nodes did not all find each other within {MEET_WITHIN_S:g} s")

    def close(self) -> None:
        """End all nodes: ask, then insist."""
        for node in self.nodes:
            if node.running:
                with contextlib.suppress(OSError):
                    node.process.send_signal(signal.SIGCONT)  # one that is stopped would not hear the rest
                node.process.terminate()
        deadline = time.monotonic() + END_WITHIN_S
        for node in self.nodes:
            try:
                node.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.kill()
            node.close_pipes()

    def _places_of(self, homes: list[Path]) -> list[str]:
        """Where the nodes that live there listen: multiaddresses without a peer id."""
        return [f"/ip4/127.0.0.1/tcp/{port}" for port in ports_of(homes)]

    def _node(
        self,
        home: Path,
        address: str,
        process: subprocess.Popen[bytes],
        environment: Mapping[str, str],
        flags: Mapping[str, Any],
    ) -> DevNode:
        return DevNode(home, address, process, environment, flags)

    def _start(
        self, home: Path, address: str, known: list[str], environment: Mapping[str, str], flags: Mapping[str, Any]
    ) -> subprocess.Popen[bytes]:
        words = [*self.command, "up", "--json", "--until-stdin-closes", "--home", str(home)]
        words += ["--listen", address.partition("/p2p/")[0]]
        for place in known:
            if place != address:
                words += ["--join", place]
        for key, value in {**self._flags, **flags}.items():
            words += [f"--{key.replace('_', '-')}", str(value)]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MESHNODE_", "INFRA_"))}
        with (home / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**inherited, **environment},
                start_new_session=True,  # Ctrl-C is for the mesh as a whole, which ends its nodes in order
            )


def remove_devmesh(folder: Path) -> None:
    """Remove a mesh's folder with all its homes."""
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether ``condition`` came true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _await_up(node: DevNode) -> None:
    """Read the one line that a node prints when it is up."""
    stdout = node.process.stdout
    assert stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        line = stdout.readline() if selector.select(START_WITHIN_S) else b""
    if not line:
        node.kill()
        raise DevMeshError(f"the node at {node.home} did not start: {node.stderr() or 'it said nothing'}")
    told = json.loads(line)
    node.api, node.isolation = told["api"], tuple(told["isolation"])
    (node.home / PORT_FILE).write_text(f"{_port_in(node.address)}\n")


def _known_to(node: DevNode) -> set[str]:
    try:
        with node.client() as client:
            return {peer["node_id"] for peer in client.peers()}
    except ClientError:
        return set()


def ports_of(homes: list[Path]) -> list[int]:
    """A port on loopback for each home: the one it had before, unless somebody else listens there now."""
    found: list[int] = []
    for home in homes:
        drawn = random.sample(_PORTS, len(_PORTS))
        port = next((port for port in (*_last_port(home), *drawn) if port not in found and _is_free(port)), None)
        if port is None:
            raise DevMeshError("no free port on 127.0.0.1")
        found.append(port)
    return found


def _last_port(home: Path) -> list[int]:
    try:
        port = int((home / PORT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return []
    return [port] if port in _PORTS else []


def _port_in(address: str) -> str:
    return address.partition("/tcp/")[2].partition("/")[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended lately do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
