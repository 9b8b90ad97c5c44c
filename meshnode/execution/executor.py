"""From a StartRun to its one RunFinished or RunFailed: fetch, lay out, run in the sandbox or a container, collect.

Nothing here decides about the mesh, and nothing blocks the node's loop: disk work happens in threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

import meshnode.tasks
from meshnode.blobs.errors import BlobError, StoreFull
from meshnode.blobs.store import BlobStore
from meshnode.execution.answering import Questions, fault_of
from meshnode.execution.faults import MachineFault, TaskFault, Unread, with_tail
from meshnode.execution.inputs import JsonObject, input_object, lay_out
from meshnode.execution.linked import TooManyLinks, find_links
from meshnode.execution.models import ModelCache, parse_manifest
from meshnode.execution.outputs import linked_bytes, output_value, store_bytes, store_output
from meshnode.execution.shards import Series, StoredSeries, shard_inputs
from meshnode.jobs.canonical import InvalidJson, canonical_json, loads_strict
from meshnode.runtimes.base import Ended, RunRefused, RunRequest, Runtime, RuntimeFault
from meshnode.runtimes.output import remove_tree
from meshnode.runtimes.pool import WarmKey, WarmPool
from meshnode.runtimes.warm import ModelBroken
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
    warm: bool = False


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
    pool: WarmPool | None = None
    """Keeps models loaded; without it, each run loads its own."""

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
        runtime = self._runtime(order)
        account.runtime = f"{runtime.name}/{runtime.isolation}"
        if order.task.role is not Role.SHARD:
            return await self._run_built_in(order, folder, account, runtime)
        account.image = order.stage.needs.image
        began = trio.current_time()
        try:
            inputs = await shard_inputs(order, lambda what, blob: self._read_json(what, blob, order.sources))
            program = await self._program(order)
        except BlobError as error:
            raise Unread(str(error)) from None
        finally:
            account.transfer_ms = _since(began)
        account.started_at = self.wall()
        answers = StoredSeries(self.folder, alone=len(inputs) == 1)
        try:
            if program.warm and self.pool is not None:
                await self._ask(order, program, account, inputs, answers, self.pool)
                return await answers.store(self.blobs), 0
            output = await self._run_each(order, program, folder, account, runtime, inputs, answers)
            return output or await answers.store(self.blobs), 0
        finally:
            answers.close()

    async def _run_built_in(
        self, order: StartRun, folder: Path, account: _Account, runtime: Runtime
    ) -> tuple[Output, int]:
        """A split or a merge."""
        began = trio.current_time()
        try:
            value = await input_object(order, lambda what, blob: self._read_json(what, blob, order.sources))
            account.input_hash = hashlib.sha256(await _canonical(value)).digest()
        except BlobError as error:
            raise Unread(str(error)) from None
        finally:
            account.transfer_ms = _since(began)
        memory = max(order.stage.needs.memory_bytes, MEMORY_DEFAULT_BYTES)
        program = _Program(("python3", f"{order.task.role.value}.py"), _BUILT_IN, memory_bytes=memory)
        account.started_at = self.wall()
        async with self._room(program):
            ended = await self._run_once(order, program, folder, account, runtime, value, 0)
        stored = await store_output(folder / "output", ended, self.blobs)
        return stored.output, stored.shards() if order.task.role is Role.SPLIT else 0

    async def _run_each(
        self,
        order: StartRun,
        program: _Program,
        folder: Path,
        account: _Account,
        runtime: Runtime,
        inputs: Mapping[int, JsonObject],
        answers: StoredSeries,
    ) -> Output | None:
        """Start the program for each shard in turn. The output of a single one if that is not JSON."""
        asked = Series(alone=len(inputs) == 1)
        try:
            async with self._room(program):
                for index, value in inputs.items():
                    with _named(index, inputs):
                        asked.add(await _canonical(value))
                        if len(inputs) == 1:
                            account.input_hash = asked.finish()
                        ended = await self._run_once(order, program, folder, account, runtime, value, index)
                        output = await output_value(folder / "output", ended, self.blobs)
                        if not isinstance(output, bytes):
                            answers.add(await trio.to_thread.run_sync(canonical_json, output))
                        elif len(inputs) == 1:
                            return await store_bytes(output, self.blobs)
                        else:
                            answers.add(await linked_bytes(output, self.blobs))
                    await trio.to_thread.run_sync(remove_tree, folder)
        finally:
            if len(inputs) > 1:
                account.input_hash = asked.finish()
        return None

    async def _run_once(
        self,
        order: StartRun,
        program: _Program,
        folder: Path,
        account: _Account,
        runtime: Runtime,
        value: JsonObject,
        index: int,
    ) -> Ended:
        """Lay out what a shard, split or merge reads, and run the program on it to its good end."""
        began = trio.current_time()
        try:
            await self._lay_out(order, folder, value)
        except BlobError as error:
            raise Unread(str(error)) from None
        finally:
            account.transfer_ms += _since(began)
        request = self._request(
            order, program, str(order.run), folder / "input", folder / "output", self._env(order, index)
        )
        began, so_far = trio.current_time(), account.run_ms
        try:
            ended = await runtime.run(request)
        finally:
            account.run_ms = so_far + _since(began)
        account.pull_ms += ended.pull_ms
        account.run_ms = so_far + ended.run_ms
        account.image = ended.image_digest or account.image
        _check_end(ended, order, program)
        return ended

    async def _ask(
        self,
        order: StartRun,
        program: _Program,
        account: _Account,
        inputs: Mapping[int, JsonObject],
        answers: StoredSeries,
        pool: WarmPool,
    ) -> None:
        """Have a loaded model answer shard by shard."""
        questions = Questions(
            inputs=inputs,
            env=lambda index: self._env(order, index),
            timeout_s=order.stage.timeout_ms / 1000,
            fetch=lambda links: self._fetch(links, order.sources),
            blobs=self.blobs,
            asked=Series(alone=len(inputs) == 1),
            answers=answers,
        )

        def request(run_id: str, input_dir: Path, output_dir: Path) -> RunRequest:
            return self._request(order, program, run_id, input_dir, output_dir, {})

        key = WarmKey(order.stage.manifest.cid, order.submitter, program.cpu, program.memory_bytes)
        began = trio.current_time()
        try:
            async with pool.lent(key, request) as (model, loaded):
                try:
                    await model.use(lambda: questions.ask_all(model, loaded), pool.limiter)
                except ModelBroken as broken:
                    raise await fault_of(model, broken, questions) from None
        except BlobError as error:
            raise Unread(str(error)) from None
        except TaskFault as fault:
            if questions.shard is None or len(inputs) == 1:
                raise
            raise TaskFault(f"shard {questions.shard}: {fault}") from None
        finally:
            account.input_hash = questions.asked.finish()
            account.pull_ms = questions.load_ms
            account.transfer_ms += questions.transfer_ms
            account.run_ms = max(0, _since(began) - questions.load_ms - questions.transfer_ms)

    @asynccontextmanager
    async def _room(self, program: _Program) -> AsyncIterator[None]:
        """Models that are kept loaded make way for what is about to run."""
        if self.pool is None:
            yield
        else:
            async with self.pool.room(program.memory_bytes):
                yield

    def _runtime(self, order: StartRun) -> Runtime:
        if order.task.role is Role.SHARD and order.stage.needs.image:
            if self.containers is None:
                raise MachineFault("this node has no container engine")
            return self.containers
        if self.sandbox is None:
            raise MachineFault("this node has no sandbox")
        return self.sandbox

    async def _program(self, order: StartRun) -> _Program:
        stage = order.stage
        manifest = parse_manifest(await self._read_json("the model's manifest", stage.manifest, order.sources))
        await self._fetch([file.link for file in manifest.files], order.sources)
        return _Program(
            manifest.command,
            await self.models.directory(stage.manifest.cid, manifest, self.blobs.path),
            stage.needs.image,
            stage.needs.cpu_milli / 1000,
            stage.needs.memory_bytes or MEMORY_DEFAULT_BYTES,
            manifest.warm and not stage.needs.image,
        )

    async def _lay_out(self, order: StartRun, folder: Path, value: JsonObject) -> None:
        try:
            links = find_links(value)
        except TooManyLinks as error:
            raise TaskFault(f"the input of the task: {error}") from None
        await self._fetch(links, order.sources)

        def make() -> None:
            folder.mkdir(parents=True)
            lay_out(folder / "input", value, self.blobs.path)
            (folder / "output").mkdir()

        await trio.to_thread.run_sync(make)

    def _request(
        self,
        order: StartRun,
        program: _Program,
        run_id: str,
        input_dir: Path,
        output_dir: Path,
        env: Mapping[str, str],
    ) -> RunRequest:
        try:
            return RunRequest(
                run_id=run_id,
                command=program.command,
                model_dir=program.directory,
                input_dir=input_dir,
                output_dir=output_dir,
                env=env,
                image=program.image or None,
                cpu=program.cpu,
                memory_bytes=program.memory_bytes,
                timeout_s=order.stage.timeout_ms / 1000,
            )
        except ValueError as error:
            raise TaskFault(f"the task cannot be run: {error}") from None

    def _env(self, order: StartRun, index: int) -> dict[str, str]:
        """What a program is told of the task, and of its shard ``index``."""
        job, task = job_name(order.job, order.alias), order.task
        return {
            "MESH_JOB_ID": job,
            "MESH_TASK_ID": f"{job}-{task.index:02d}" if task.role is Role.SHARD else f"{job}.{task.role.value}",
            "MESH_STAGE": order.stage.name,
            "MESH_SHARD_INDEX": str(index),
            "MESH_SHARD_COUNT": str(max(1, order.shards)),
            "MESH_ATTEMPT": str(order.attempt),
        }

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
    raise TaskFault(with_tail(what, ended.stderr_tail))


@contextmanager
def _named(index: int, inputs: Mapping[int, JsonObject]) -> Iterator[None]:
    """Have a fault say in which of several shards it happened."""
    try:
        yield
    except TaskFault as fault:
        if len(inputs) == 1:
            raise
        raise TaskFault(f"shard {index}: {fault}") from None


async def _canonical(value: JsonObject) -> bytes:
    try:
        return await trio.to_thread.run_sync(canonical_json, value)
    except InvalidJson as error:
        raise TaskFault(f"the input of the task cannot be used: {error}") from None


def _since(began: float) -> int:
    return round((trio.current_time() - began) * 1000)
