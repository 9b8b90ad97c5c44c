"""Node processes on hosts: a local mesh whose nodes reach each other over a network that can fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshnode.client.client import Client
from meshnode.devmesh import DevMesh, DevNode, wait_for
from meshnode.recorder import FILE_NAME as TRACE_FILE
from meshnode.runtimes.cgroups import CgroupFactory, CgroupsUnavailable
from tests.e2e.testbed.network import Host, Network

PORT = 4001
GONE_WITHIN_S = 10.0
_KEPT_TRACES = "traces"


@dataclass
class BedNode(DevNode):
    """A node process on its host."""

    host: Host = None  # type: ignore[assignment]  # the fields before it have defaults

    @contextmanager
    def client(self, home: Path | None = None) -> Iterator[Client]:
        """A client on the same host: the API is for that host only."""
        with self.host.inside(), super().client(home) as client:
            yield client

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The process stands still while the block runs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


class BedMesh(DevMesh):
    """The node at ``node3`` runs on the network's fourth host, and so on. Made by ``BedMesh.on``."""

    nodes: list[BedNode]  # type: ignore[assignment]
    network: Network

    @classmethod
    @contextmanager
    def on(cls, network: Network, folder: Path, *, slots: int = 1) -> Iterator[BedMesh]:
        """A mesh without nodes as yet. When the block is left, nothing of it must be left either."""
        made = cls(folder, mesh="bed", runtime="sandbox", slots=slots)
        made.network = network
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield made
        finally:
            made.close()
            for node in made.nodes:
                _remove_groups(node)
        assert wait_for(lambda: not processes_of(folder), GONE_WITHIN_S), processes_of(folder)

    def restart(self, *nodes: DevNode, meet: bool = True) -> None:
        for node in nodes:
            _keep_trace(node.home)
        super().restart(*nodes, meet=meet)

    def traces_of(self, node: DevNode) -> list[Path]:
        """For each start of a node that records: a folder that ``infra replay`` takes."""
        return [*sorted(node.home.glob(f"{_KEPT_TRACES}/*")), node.home]

    def _places_of(self, homes: list[Path]) -> list[str]:
        return [f"/ip4/{self._host_of(home).address}/tcp/{PORT}" for home in homes]

    def _node(
        self,
        home: Path,
        address: str,
        process: subprocess.Popen[bytes],
        environment: Mapping[str, str],
        flags: Mapping[str, Any],
    ) -> BedNode:
        return BedNode(home, address, process, environment, flags, host=self._host_of(home))

    def _start(self, home: Path, *rest: Any) -> subprocess.Popen[bytes]:
        with self._host_of(home).inside():
            return super()._start(home, *rest)

    def _host_of(self, home: Path) -> Host:
        return self.network.hosts[int(home.name.removeprefix("node"))]


def _keep_trace(home: Path) -> None:
    """Move what a node recorded until it ended out of the way of its next starts: it keeps the latest two only."""
    if (home / TRACE_FILE).exists():
        kept = home / _KEPT_TRACES / str(len(list(home.glob(f"{_KEPT_TRACES}/*"))))
        kept.mkdir(parents=True)
        (home / TRACE_FILE).rename(kept / TRACE_FILE)
        shutil.copy(home / "node.key", kept)


def processes_of(folder: Path) -> list[int]:
    """Living processes that have to do with ``folder``, wherever their network is."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and int(process.name) != os.getpid():
                text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
                if str(folder).encode() in text:
                    found.append(int(process.name))
    return found


def _remove_groups(node: DevNode) -> None:
    """Remove the control groups of a node that was killed: it would itself, at its next start."""
    with suppress(CgroupsUnavailable):
        for group in CgroupFactory().named(f"mesh-{node.node_id}-"):
            group.destroy()
