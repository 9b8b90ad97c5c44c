"""A node without a network: the real core in a small mesh of virtual time, the real blob store on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import trio

from meshnode.api.http import serve_http
from meshnode.api.service import Service
from meshnode.blobs.cid import RAW, Cid
from meshnode.blobs.errors import BlobError, FetchFailed
from meshnode.blobs.store import BlobStore
from meshnode.node import NotAnswered
from protocol import effects, events
from protocol.clock import WallMs
from protocol.effects import Proposal
from protocol.events import Event
from protocol.identity import PeerId
from protocol.messages import Message
from protocol.peer import PeerSnapshot
from protocol.profile import Policy
from protocol.records import JobSpec
from protocol.signing import Signed
from protocol.wire import Link, Output, Role
from tests.protocol.mesh import Mesh

TOKEN = "a-token-for-tests-only"


class OutputMesh(Mesh):
    """A mesh whose tasks make outputs that really exist, as JSON."""

    def __init__(self, *names: str, **given: Any) -> None:
        self.contents: dict[str, bytes] = {}
        self.nodes: dict[PeerId, FakeNode] = {}
        super().__init__(*names, **given)

    def _carry_out(self, me: PeerId, effect: effects.Effect) -> None:
        """What a peer with a node around it has to fetch from outside of this mesh is that node's to fetch."""
        node = self.nodes.get(me)
        if isinstance(effect, effects.FetchBlobs) and node is not None and node.lacks(effect.blobs):
            node.to_fetch.append(effect)
        else:
            super()._carry_out(me, effect)

    def finish(self, me: PeerId, run: effects.StartRun, salt: bytes = b"") -> None:
        if run.task in self.fail_task:
            super().finish(me, run, salt)
            return
        content = f'["{run.task.role} {run.task.index}"]'.encode()
        cid = str(Cid.of(RAW, content))
        self.contents[cid] = content
        finished = events.RunFinished(
            run=run.run,
            output=Output(cid=cid, size=len(content), sha256=hashlib.sha256(content).digest()),
            input_hash=bytes(32),
            shards=run.stage.shard_count if run.task.role is Role.SPLIT else 0,
            image="",
            runtime="sandbox/namespace",
            pull_ms=0,
            transfer_ms=1,
            run_ms=10,
            started_at=self.wall,
        )
        self._later(10, me, finished)


class FakeNode:
    """One peer of the mesh as the API sees it. Blobs come from ``contents``, as if other peers had them."""

    def __init__(self, mesh: OutputMesh, name: str, folder: Path, pace_s: float = 0) -> None:
        """``pace_s``: how far the mesh goes on after each answer, for clients that poll."""
        self.mesh = mesh
        self.pace_s = pace_s
        self.name = name
        self.peer_id = mesh.ids[name]
        self.blobs = BlobStore(folder, durable=False)
        self.asked: list[Event] = []
        self.to_fetch: list[effects.FetchBlobs] = []
        self.policy = Policy()
        self._number = 1_000_000 * (1 + list(mesh.ids).index(name))
        mesh.nodes[self.peer_id] = self

    def wall(self) -> WallMs:
        return self.mesh.wall

    def snapshot(self) -> PeerSnapshot:
        return self.mesh.peers[self.peer_id].snapshot()

    async def ask(self, make_event: Callable[[int], Event], timeout_s: float) -> Message | Proposal:
        self._number += 1
        number, event = self._number, make_event(self._number)
        self.asked.append(event)
        self.mesh.give(self.peer_id, event)
        for _ in range(int(timeout_s * 100)):
            await self._fetch()
            if number in self.mesh.replies:
                answer: Message | Proposal = self.mesh.replies.pop(number)
                self.mesh.run_for(self.pace_s)
                return answer
            self.mesh.run_for(0.01)
            await trio.lowlevel.checkpoint()
        raise NotAnswered(f"no answer from the mesh within {timeout_s:g} s")

    def lacks(self, blobs: Sequence[Link]) -> bool:
        """Whether one of the blobs is neither here nor in the mesh; those with made-up names are everywhere."""
        real = [link.cid for link in blobs if not link.cid.startswith("cid-")]
        return any(not self.blobs.has(cid) and cid not in self.mesh.contents for cid in real)

    async def _fetch(self) -> None:
        """Carry out what the core wants fetched."""
        while self.to_fetch:
            order = self.to_fetch.pop(0)
            event: Event = events.BlobsFetched(order.fetch)
            try:
                for link in order.blobs:
                    await self.fetch_blob(link, [peer for peer in order.sources if peer != self.peer_id])
            except BlobError as error:
                event = events.BlobsFailed(order.fetch, str(error))
            self.mesh.give(self.peer_id, event)

    def refuses(self, spec: JobSpec) -> str | None:
        return self.policy.refuses_job(spec)

    async def fetch_blob(self, link: Link, sources: Sequence[PeerId], records: Sequence[Signed] = ()) -> None:
        if self.blobs.has(link.cid):
            return
        if link.cid not in self.mesh.contents:
            raise FetchFailed(link.cid, dict.fromkeys(sources, "not-found: no such blob here"), ())
        await self.blobs.add_bytes(self.mesh.contents[link.cid])

    async def doctor(self) -> dict[str, Any]:
        connected = f"{len(self.snapshot().neighbours)} neighbours"
        return {"ok": True, "checks": [{"name": "mesh", "ok": True, "text": connected}]}


@contextmanager
def running_api(folder: Path, mesh: OutputMesh | None = None) -> Iterator[tuple[FakeNode, str]]:
    """The HTTP API of ann in a thread, for synchronous clients; yields her node and the URL with the token."""
    node = FakeNode(mesh or a_mesh(), "ann", folder, pace_s=0.3)
    ready: Future[str] = Future()
    stop = trio.Event()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_http, Service(node), TOKEN)
            token.append(trio.lowlevel.current_trio_token())
            ready.set_result(url.replace("http://", f"http://{TOKEN}@"))
            await stop.wait()
            nursery.cancel_scope.cancel()

    token: list[trio.lowlevel.TrioToken] = []
    thread = Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        yield node, ready.result(timeout=10)
    finally:
        token[0].run_sync_soon(stop.set)
        thread.join(10)


def a_mesh(*names: str, **profiles: dict[str, Any]) -> OutputMesh:
    """Peers that know each other."""
    mesh = OutputMesh(*(names or ("ann", "bob", "cyd")), **profiles)
    mesh.run_for(5)
    return mesh
