"""From a StartRun to its one RunFinished or RunFailed: fetch, lay out, run in the sandbox or a container, collect.

Nothing here decides about the mesh, and nothing blocks the node's loop: disk work happens in threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

import meshnode.tasks
from meshnode.blobs.errors import BlobError, StoreFull
from meshnode.blobs.store import BlobStore
from meshnode.execution.faults import MachineFault, TaskFault, Unread
from meshnode.execution.inputs import JsonObject, input_object, lay_out
from meshnode.execution.linked import TooManyLinks, find_links, linked_in
from meshnode.execution.models import ModelCache, parse_manifest
from meshnode.execution.outputs import store_output, store_split_output
from meshnode.execution.programs import reads_files_of_outputs, require_plugin, runs_model
from meshnode.jobs.canonical import InvalidJson, canonical_json, loads_strict
from meshnode.runtimes.base import Ended, RunRefused, RunRequest, Runtime, RuntimeFault
from meshnode.runtimes.output import remove_tree
from protocol.clock import WallMs
from protocol.effects import StartRun
from protocol.events import RunFailed, RunFinished
from protocol.identity import PeerId
from protocol.limits import TEXT_CHARS_MAX
from protocol.show import job_name
from protocol.wire import Link, Output, Role

Fetch = Callable[[Iterable[Link], Sequence[PeerId]], Awaitable[None]]
"""Has the blobs in the store, from any of the peers. Raises BlobError."""

MEMORY_DEFAULT_BYTES = 1 << 30
"""For a task that does not say, and for split and merge."""
JSON_BYTES_MAX = 64 << 20
OUTPUT_BYTES_MAX = 256 << 20
"""What a shard may write."""
WHOLE_BYTES_MAX = 8 << 30
"""What a split or a merge may write: all of the input or of the output, not a shard's share of it."""
_BUILT_IN = Path(meshnode.tasks.__file__).parent


@dataclass(slots=True)
class _Account:
    """What is known of a run so far, for whichever event ends it."""

    started_at: WallMs
    input_hash: bytes = bytes(32)
    image: str = ""
    runtime: str = ""
    pull_ms: int = 0
    transfer_ms: int = 0
    run_ms: int = 0

    def as_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class _Program:
    """What is run: a model's command, or a program of the node's own."""

    command: tuple[str, ...]
    directory: Path
    image: str = ""
    cpu: float = 1.0
    memory_bytes: int = MEMORY_DEFAULT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Runs tasks, each in a folder of its own below ``folder`` that is gone afterwards."""

    blobs: BlobStore
    fetch: Fetch
    models: ModelCache
    folder: Path
    wall: Callable[[], WallMs]
    sandbox: Runtime | None = None
    """Runs tasks without an image, and split and merge."""
    containers: Runtime | None = None
    """Runs tasks with an image."""

    def clear(self) -> None:
        """Remove what an earlier start of the node, ended in the middle, left of its runs. Blocking."""
        remove_tree(self.folder)
        self.folder.mkdir(parents=True)
        self.models.clear_unfinished()

    async def run(self, order: StartRun) -> RunFinished | RunFailed:
        """Carry out ``order``. Whatever goes wrong is in the answer; cancelled, it leaves nothing behind."""
        account = _Account(started_at=self.wall())
        folder = self.folder / str(order.run)
        try:
            output, shards = await self._run(order, folder, account)
        except TaskFault as fault:
            return self._failed(order, account, str(fault), counts=True)
        except Unread as fault:
            return self._failed(order, account, str(fault), counts=False, unread=True)
        except (MachineFault, RunRefused, RuntimeFault, BlobError) as fault:
            return self._failed(order, account, str(fault), counts=False)
        except OSError as error:
            return self._failed(order, account, f"the node's disk: {error}", counts=False)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove_tree, folder)
        return RunFinished(run=order.run, output=output, shards=shards, **account.as_fields())

    def stopped(self, order: StartRun, reason: str) -> RunFailed:
        """The answer to a run that was cancelled, or ended by a fault of the node's own."""
        return self._failed(order, _Account(started_at=self.wall()), reason, counts=False)

    def _failed(
        self, order: StartRun, account: _Account, reason: str, *, counts: bool, unread: bool = False
    ) -> RunFailed:
        reason = reason[:TEXT_CHARS_MAX]
        return RunFailed(run=order.run, reason=reason, counts=counts, unread=unread, **account.as_fields())

    async def _run(self, order: StartRun, folder: Path, account: _Account) -> tuple[Output, int]:
        require_plugin(order)
        runtime = self._runtime(order)
        account.runtime = f"{runtime.name}/{runtime.isolation}"
        account.image = order.stage.needs.image if runs_model(order) else ""
        began = trio.current_time()
        try:
            value = await input_object(order, lambda what, blob: self._read_json(what, blob, order.sources))
            try:
                canonical = await trio.to_thread.run_sync(canonical_json, value)
            except InvalidJson as error:
                raise TaskFault(f"the input of the task cannot be used: {error}") from None
            account.input_hash = hashlib.sha256(canonical).digest()
            program = await self._program(order)
            await self._lay_out(order, folder, value)
        except BlobError as error:
            raise Unread(str(error)) from None
        finally:
            account.transfer_ms = _since(began)
        account.started_at = self.wall()
        began = trio.current_time()
        try:
            ended = await runtime.run(self._request(order, program, folder))
        finally:
            account.run_ms = _since(began)
        account.pull_ms, account.run_ms = ended.pull_ms, ended.run_ms
        account.image = ended.image_digest or account.image
        _check_end(ended, order, program)
        if order.task.role is Role.SPLIT:
            return await store_split_output(folder / "output", ended, order.stage.max_shards, self.blobs)
        return await store_output(folder / "output", ended, self.blobs), 0

    def _runtime(self, order: StartRun) -> Runtime:
        if runs_model(order) and order.stage.needs.image:
            if self.containers is None:
                raise MachineFault("this node has no container engine")
            return self.containers
        if self.sandbox is None:
            raise MachineFault("this node has no sandbox")
        return self.sandbox

    async def _program(self, order: StartRun) -> _Program:
        stage = order.stage
        if not runs_model(order):
            memory = max(stage.needs.memory_bytes, MEMORY_DEFAULT_BYTES)
            return _Program(("python3", f"{order.task.role.value}.py"), _BUILT_IN, memory_bytes=memory)
        manifest = parse_manifest(await self._read_json("the model's manifest", stage.manifest, order.sources))
        await self._fetch([file.link for file in manifest.files], order.sources)
        return _Program(
            manifest.command,
            await self.models.directory(stage.manifest.cid, manifest, self.blobs.path),
            stage.needs.image,
            stage.needs.cpu_milli / 1000,
            stage.needs.memory_bytes or MEMORY_DEFAULT_BYTES,
        )

    async def _lay_out(self, order: StartRun, folder: Path, value: JsonObject) -> None:
        try:
            links = find_links(value)
            await self._fetch(links, order.sources)
            below: list[Link] = []
            if reads_files_of_outputs(order):
                below = await trio.to_thread.run_sync(linked_in, [self.blobs.path(link.cid) for link in links])
                await self._fetch(below, order.sources)
        except TooManyLinks as error:
            raise TaskFault(f"the input of the task: {error}") from None

        def make() -> None:
            folder.mkdir(parents=True)
            lay_out(folder / "input", value, self.blobs.path, below)
            (folder / "output").mkdir()

        await trio.to_thread.run_sync(make)

    def _request(self, order: StartRun, program: _Program, folder: Path) -> RunRequest:
        job, stage, task = job_name(order.job, order.alias), order.stage, order.task
        name = f"{job}-{task.index:02d}" if task.role is Role.SHARD else f"{job}.{task.role.value}"
        try:
            return RunRequest(
                run_id=str(order.run),
                command=program.command,
                model_dir=program.directory,
                input_dir=folder / "input",
                output_dir=folder / "output",
                env={
                    "MESH_JOB_ID": job,
                    "MESH_TASK_ID": name,
                    "MESH_STAGE": stage.name,
                    "MESH_ROLE": task.role.value,
                    "MESH_SHARD_INDEX": str(task.index),
                    "MESH_SHARD_COUNT": str(max(1, order.shards)),
                    "MESH_ATTEMPT": str(order.attempt),
                },
                image=program.image or None,
                cpu=program.cpu,
                memory_bytes=program.memory_bytes,
                timeout_s=stage.timeout_ms / 1000,
                output_bytes_max=OUTPUT_BYTES_MAX if task.role is Role.SHARD else WHOLE_BYTES_MAX,
            )
        except ValueError as error:
            raise TaskFault(f"the task cannot be run: {error}") from None

    async def _fetch(self, links: Iterable[Link], sources: Sequence[PeerId]) -> None:
        links = list(links)
        try:
            await self.fetch(links, sources)
        except StoreFull as error:
            raise MachineFault(str(error)) from None
        for link in links:
            if (size := self.blobs.size(link.cid)) != link.size:
                raise TaskFault(f"blob {link.cid} has {size} bytes, and the job says {link.size}")

    async def _read_json(self, what: str, blob: Link | Output, sources: Sequence[PeerId]) -> Any:
        if blob.size > JSON_BYTES_MAX:
            raise TaskFault(f"{what} has {blob.size} bytes, more than {JSON_BYTES_MAX}")
        await self._fetch([Link(cid=blob.cid, size=blob.size)], sources)
        content = await self.blobs.read(blob.cid, 0, blob.size)
        try:
            return await trio.to_thread.run_sync(loads_strict, content)
        except InvalidJson as error:
            raise TaskFault(f"{what} cannot be read: {error}") from None


def _check_end(ended: Ended, order: StartRun, program: _Program) -> None:
    """Raise TaskFault unless the command ended well."""
    if ended.cause == "exited" and ended.exit_code == 0:
        return
    match ended.cause:
        case "exited":
            what = f"exit code {ended.exit_code}"
        case "timeout":
            what = f"not done within {order.stage.timeout_ms / 1000:g} s"
        case "out-of-memory":
            what = f"out of memory: it may use {program.memory_bytes >> 20} MiB"
        case "output-too-large":
            what = "its output is too large"
    tail = ended.stderr_tail.strip()
    room = TEXT_CHARS_MAX - len(what) - 2
    raise TaskFault(f"{what}: {tail[-room:]}" if tail else what)


def _since(began: float) -> int:
    return round((trio.current_time() - began) * 1000)
