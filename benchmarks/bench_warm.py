"""How many tiny shards a second one node gets through, and what keeping the model loaded is worth.

    python benchmarks/bench_warm.py [SHARDS]

Runs a task of SHARDS (5000) shards that do nothing through the node's executor, sandbox and blob store, in one process
that stays loaded; then one of a few shards with a process started for each. Prints one JSON object. What the mesh adds
for a task (award, receipt, record) is not in it: it is the same for a task of one shard and of a thousand.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.executor import Executor
from meshnode.execution.models import ModelCache
from meshnode.jobs.canonical import canonical_json
from meshnode.runtimes.pool import WarmPool
from meshnode.runtimes.sandbox import Sandbox
from meshnode.runtimes.selection import select_runtime
from protocol.batches import shards_of, task_count
from protocol.clock import WallMs
from protocol.effects import StartRun
from protocol.events import RunFinished
from protocol.identity import PeerId
from protocol.records import StageSpec
from protocol.wire import Link, Output, Role, Task

ONCE_SHARDS = 10
REPEATS = 3
PROGRAM = b"from meshmodel import serve\nserve(lambda input: {'n': input['n']})\n"


async def link(blobs: BlobStore, content: bytes) -> Link:
    blob = await blobs.add_bytes(content)
    return Link(cid=blob.cid, size=blob.size)


async def order_of(blobs: BlobStore, serve: str, shards: int) -> StartRun:
    """Task 0 of a job whose tasks have ``shards`` shards each."""
    program = await link(blobs, PROGRAM)
    model: dict[str, Any] = {"model_id": "nothing", "command": ["python3", "main.py"], "serve": serve}
    file = {"path": "main.py", "cid": program.cid, "size": program.size, "mode": 0o644}
    total = shards * 200
    assert (task_count(total), len(shards_of(0, total))) == (200, shards)
    inputs = await link(blobs, canonical_json([{"n": n} for n in range(shards)]))
    listed = {"count": total, "tasks": [{"cid": inputs.cid, "size": inputs.size}]}
    split = await link(blobs, canonical_json(listed))
    return StartRun(
        run=1,
        job=bytes(32),
        task=Task(role=Role.SHARD, index=0),
        attempt=1,
        stage=StageSpec(
            name="main",
            model="nothing",
            manifest=await link(blobs, canonical_json({"model": model, "files": [file]})),
            split="range",
        ),
        input=split,
        shards=total,
        split=Output(cid=split.cid, size=split.size, sha256=bytes(32)),
        parts=(),
        sources=(),
    )


async def seconds(executor: Executor, order: StartRun) -> tuple[float, RunFinished]:
    begin = time.perf_counter()
    ended = await executor.run(order)
    took = time.perf_counter() - begin
    assert isinstance(ended, RunFinished), ended
    return took, ended


async def measure(folder: Path, shards: int) -> dict[str, Any]:
    blobs = BlobStore(folder / "store")
    (folder / "tasks").mkdir()

    async def fetch(links: Iterable[Link], sources: Sequence[PeerId]) -> None:
        assert all(blobs.has(link.cid) for link in links)

    sandbox = await select_runtime("sandbox", home=folder / "sandbox", node_id="bench", boot_id="boot")
    assert isinstance(sandbox, Sandbox)
    async with trio.open_nursery() as nursery:
        pool = await WarmPool.start(sandbox, folder / "warm", nursery, slots=1, memory_bytes=4 << 30, idle_s=600)
        executor = Executor(
            blobs=blobs,
            fetch=fetch,
            models=ModelCache(folder / "models"),
            folder=folder / "tasks",
            wall=lambda: WallMs(time.time_ns() // 1_000_000),
            sandbox=sandbox,
            pool=pool,
        )
        cold, ended = await seconds(executor, await order_of(blobs, "warm", 1))
        order = await order_of(blobs, "warm", shards)
        warm = min([(await seconds(executor, order))[0] for _ in range(REPEATS)])
        order = await order_of(blobs, "once", ONCE_SHARDS)
        once = min([(await seconds(executor, order))[0] for _ in range(REPEATS)])
        nursery.cancel_scope.cancel()
    warm_per_s, once_per_s = shards / warm, ONCE_SHARDS / once
    return {
        "benchmark": "warm",
        "isolation": sandbox.isolation,
        "shards_in_the_task": shards,
        "warm_shards_per_s": round(warm_per_s),
        "once_shards_per_s": round(once_per_s, 1),
        "ratio": round(warm_per_s / once_per_s),
        "cold_task_ms": round(cold * 1000),
        "of_it_loading_ms": ended.pull_ms,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
        print(json.dumps(trio.run(measure, Path(temporary).resolve(), count)), flush=True)
