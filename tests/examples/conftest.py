"""A node's whole way through one job, without the mesh: the real client, store, sandbox and programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from meshnode.api import requests
from meshnode.blobs.store import BlobStore
from meshnode.client.connection import Progress
from meshnode.client.submission import submit_file
from meshnode.execution.executor import Executor
from meshnode.execution.models import ModelCache
from meshnode.runtimes.selection import select_runtime
from protocol.batches import task_count
from protocol.clock import WallMs
from protocol.effects import StartRun
from protocol.events import RunFinished
from protocol.identity import Ed25519Signer, Ed25519Verifier, PeerId
from protocol.records import JobSpec, Part
from protocol.show import read_signed
from protocol.signing import RecordReader
from protocol.wire import Link, Output, Role, Task

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE = Ed25519Signer(b"n" * 32).peer_id
NOW_MS = 1_790_000_000_000


class OneNode:
    """Takes a job as a node's API does, and runs its tasks one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = BlobStore(folder / "store", durable=False)
        self.spec: JobSpec | None = None
        self.shards = 0

    # -- what the client asks ------------------------------------------------------------------------------------------

    def ask(self, request: requests.AnyRequest) -> Any:
        match request:
            case requests.Propose():
                holders = [{"node_id": NODE, "store": "ab" * 16}]
                return {"mesh": "m", "node_id": NODE, "steward": NODE, "holders": holders, "wall_ms": NOW_MS}
            case requests.Submit(signed=signed):
                self.spec = RecordReader(Ed25519Verifier()).open(read_signed(signed), JobSpec).record
                return {"job_id": "j", "full_id": "j", "steward": NODE, "copies": 1, "pointers": 1}
        raise AssertionError(request)

    def add_file(self, path: Path, progress: Progress | None = None) -> Link:
        blob = trio.run(self.store.add_file, path)
        return Link(cid=blob.cid, size=blob.size)

    def add_bytes(self, data: bytes) -> Link:
        blob = trio.run(self.store.add_bytes, data)
        return Link(cid=blob.cid, size=blob.size)

    def blob_size(self, cid: str) -> int | None:
        return self.store.size(cid)

    def read_blob(self, blob: Link) -> Iterator[bytes]:
        yield self.store.path(blob.cid).read_bytes()

    # -- running the job -----------------------------------------------------------------------------------------------

    def run(self, job: Path) -> bytes:
        """Hand in the job file, as a user does; the job's output."""
        submit_file(self, job, self.folder / "home")
        return trio.run(self._run_all)

    async def _run_all(self) -> bytes:
        assert self.spec is not None
        (stage,) = self.spec.stages

        async def fetch(links: Iterable[Link], sources: Sequence[PeerId]) -> None:
            assert all(self.store.has(link.cid) for link in links)

        tasks = self.folder / "tasks"
        tasks.mkdir(exist_ok=True)
        executor = Executor(
            blobs=self.store,
            fetch=fetch,
            models=ModelCache(self.folder / "models"),
            folder=tasks,
            wall=lambda: WallMs(NOW_MS),
            sandbox=await select_runtime("sandbox", home=self.folder / "sandbox", node_id="n", boot_id="b"),
        )
        runs = 0

        async def run(role: Role, index: int, split: Output | None, parts: tuple[Part, ...]) -> RunFinished:
            nonlocal runs
            assert self.spec is not None
            runs += 1
            order = StartRun(
                run=runs,
                job=bytes(32),
                task=Task(role=role, index=index),
                attempt=1,
                stage=stage,
                input=self.spec.input,
                shards=self.shards,
                split=split,
                parts=parts,
                sources=(),
            )
            ended = await executor.run(order)
            assert isinstance(ended, RunFinished), ended
            return ended

        split = await run(Role.SPLIT, 0, None, ())
        self.shards = split.shards
        outputs = [(await run(Role.SHARD, i, split.output, ())).output for i in range(task_count(split.shards))]
        parts = tuple(Part(index=index, output=output) for index, output in enumerate(outputs))
        output = (await run(Role.MERGE, 0, None, parts)).output
        return self.store.path(output.cid).read_bytes()


@pytest.fixture
def node(tmp_path: Path) -> OneNode:
    tmp_path.chmod(0o755)
    return OneNode(tmp_path)


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """Copies an example, so that files which it needs can be put beside it; the folder of the copy."""

    def copy(name: str) -> Path:
        return shutil.copytree(EXAMPLES / name, tmp_path / "examples" / name)

    return copy


def with_job(folder: Path, **changes: Any) -> Path:
    """The example's job file, changed."""
    import yaml

    job = yaml.safe_load((folder / "job.yaml").read_text())
    for key, value in changes.items():
        job[key] = {**job.get(key, {}), **value} if isinstance(value, dict) else value
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    return file
