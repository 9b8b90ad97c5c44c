"""Tasks through the executor: real sandbox, real blob store, no network."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from meshnode.blobs.errors import FetchFailed
from meshnode.blobs.store import BlobStore
from meshnode.execution.executor import Executor
from meshnode.execution.models import ModelCache
from meshnode.jobs.canonical import canonical_json
from meshnode.runtimes.pool import WarmPool
from meshnode.runtimes.sandbox import Sandbox
from meshnode.runtimes.selection import select_runtime
from protocol.clock import WallMs
from protocol.effects import StartRun
from protocol.events import RunFailed, RunFinished
from protocol.identity import PeerId
from protocol.records import StageSpec
from protocol.wire import Link, Role, Task

JOB = bytes(range(32))


class Bench:
    """An executor over a store, and what is needed to hand it tasks."""

    def __init__(self, home: Path, executor: Executor) -> None:
        self.home = home
        self.executor = executor
        self.blobs = executor.blobs
        self.runs = 0

    async def add(self, content: bytes | Any) -> Link:
        blob = await self.blobs.add_bytes(content if isinstance(content, bytes) else canonical_json(content))
        return Link(cid=blob.cid, size=blob.size)

    async def model(self, program: str, **settings: Any) -> Link:
        file = await self.add(program.encode())
        return await self.add(
            {
                "model": {"model_id": "m", "command": ["python3", "main.py"], **settings},
                "files": [{"path": "main.py", "cid": file.cid, "size": file.size, "mode": 0o644}],
            }
        )

    async def order(
        self, manifest: Link, value: Any, *, role: Role = Role.SHARD, index: int = 0, settings: Any = None, **more: Any
    ) -> StartRun:
        self.runs += 1
        stage_fields = {key: more.pop(key) for key in ("split", "merge", "timeout_ms", "needs") if key in more}
        if "split_output" in more:
            more["split"] = more.pop("split_output")
        stage = StageSpec(
            name="main", model="m", manifest=manifest, settings=canonical_json(settings or {}), **stage_fields
        )
        fields: dict[str, Any] = {"split": None, "parts": (), "shards": 1, "sources": ()}
        return StartRun(
            run=self.runs,
            job=JOB,
            task=Task(role=role, index=index),
            attempt=1,
            stage=stage,
            input=await self.add(value),
            **{**fields, **more},
        )

    async def run(self, order: StartRun) -> RunFinished | RunFailed:
        ended = await self.executor.run(order)
        assert ended.run == order.run
        assert not list(self.executor.folder.iterdir()), "the run's folder is left behind"
        return ended

    async def output_of(self, ended: RunFinished | RunFailed) -> bytes:
        assert isinstance(ended, RunFinished), ended
        content = await self.blobs.read(ended.output.cid, 0, ended.output.size)
        assert hashlib.sha256(content).digest() == ended.output.sha256
        return content


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    await trio.Path(tmp_path).chmod(0o755)
    blobs = BlobStore(tmp_path / "store", durable=False)

    async def fetch(links: Iterable[Link], sources: Sequence[PeerId]) -> None:
        for link in links:
            if not blobs.has(link.cid):
                raise FetchFailed(link.cid, {}, ())

    folder = tmp_path / "tasks"
    folder.mkdir()
    sandbox = await select_runtime("sandbox", home=tmp_path / "sandbox", node_id="n", boot_id="b")
    executor = Executor(
        blobs=blobs,
        fetch=fetch,
        models=ModelCache(tmp_path / "models"),
        folder=folder,
        wall=lambda: WallMs(1_700_000_000_000),
        sandbox=sandbox,
    )
    async with trio.open_nursery() as nursery:
        assert isinstance(sandbox, Sandbox)
        pool = await WarmPool.start(sandbox, tmp_path / "warm", nursery, slots=2, memory_bytes=4 << 30, idle_s=600)
        yield Bench(tmp_path, replace(executor, pool=pool))
        nursery.cancel_scope.cancel()
