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

from meshnode.blobs.errors import BlobError, StoreFull
from meshnode.blobs.store import BlobStore
from meshnode.execution.answering import Questions, fault_of
from meshnode.execution.faults import MachineFault, TaskFault, Unread
from meshnode.execution.inputs import JsonObject, input_object, lay_out, shard_inputs
from meshnode.execution.linked import TooManyLinks, find_links, linked_in
from meshnode.execution.models import ModelCache, parse_manifest
from meshnode.execution.outputs import output_value, store_output, store_split_output
from meshnode.execution.programs import (
    MEMORY_DEFAULT_BYTES,
    Program,
    built_in,
    check_end,
    environment_of,
    reads_files_of_outputs,
    request_for,
    require_plugin,
    runs_model,
)
from meshnode.execution.series import Series, StoredSeries
from meshnode.execution.shards import ReadJson
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
from protocol.wire import Link, Output, Role

Fetch = Callable[[Iterable[Link], Sequence[PeerId]], Awaitable[None]]
"""Has the blobs in the store, from any of the peers. Raises BlobError."""

JSON_BYTES_MAX = 64 << 20


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
        require_plugin(order)
        runtime = self._runtime(order)
        account.runtime = f"{runtime.name}/{runtime.isolation}"
        account.image = order.stage.needs.image if runs_model(order) else ""
        if order.task.role is Role.SHARD:
            return await self._run_shards(order, folder, account, runtime), 0
        with _transfer(account):
            value = await input_object(order, self._reader(order))
            account.input_hash = hashlib.sha256(await _canonical(value)).digest()
            program = await self._model(order) if runs_model(order) else built_in(order)
        account.started_at = self.wall()
        async with self._room(program):
            ended = await self._run_once(order, program, folder, account, runtime, value, 0)
        if order.task.role is Role.SPLIT:
            return await store_split_output(folder / "output", ended, order.stage.max_shards, self.blobs)
        return await store_output(folder / "output", ended, self.blobs), 0

    async def _run_shards(self, order: StartRun, folder: Path, account: _Account, runtime: Runtime) -> Output:
        with _transfer(account):
            inputs = await shard_inputs(order, self._reader(order))
            program = await self._model(order)
        account.started_at = self.wall()
        if program.warm and self.pool is not None:
            return await self._ask(order, program, account, inputs, self.pool)
        async with self._room(program):
            if len(inputs) > 1:
                return await self._run_each(order, program, folder, account, runtime, inputs)
            ((index, value),) = inputs.items()
            account.input_hash = hashlib.sha256(await _canonical(value)).digest()
            ended = await self._run_once(order, program, folder, account, runtime, value, index)
            return await store_output(folder / "output", ended, self.blobs)

    async def _run_each(
        self,
        order: StartRun,
        program: Program,
        folder: Path,
        account: _Account,
        runtime: Runtime,
        inputs: Mapping[int, JsonObject],
    ) -> Output:
        """Start the program for each of several shards in turn."""
        asked, outputs = Series(alone=False), StoredSeries(self.folder, alone=False)
        try:
            for index, value in inputs.items():
                with _named(index):
                    asked.add(await _canonical(value))
                    ended = await self._run_once(order, program, folder, account, runtime, value, index)
                    output = await output_value(folder / "output", ended, self.blobs)
                    outputs.add(await trio.to_thread.run_sync(canonical_json, output))
                await trio.to_thread.run_sync(remove_tree, folder)
            return await outputs.store(self.blobs)
        finally:
            account.input_hash = asked.finish()
            outputs.close()

    async def _run_once(
        self,
        order: StartRun,
        program: Program,
        folder: Path,
        account: _Account,
        runtime: Runtime,
        value: JsonObject,
        shard: int,
    ) -> Ended:
        """Lay out what the program reads, and run it to its good end."""
        with _transfer(account):
            await self._lay_out(order, folder, value)
        request = request_for(
            order,
            program,
            run_id=str(order.run),
            input_dir=folder / "input",
            output_dir=folder / "output",
            env=environment_of(order, shard),
        )
        began, before_ms = trio.current_time(), account.run_ms
        try:
            ended = await runtime.run(request)
        finally:
            account.run_ms = before_ms + _since(began)
        account.pull_ms, account.run_ms = account.pull_ms + ended.pull_ms, before_ms + ended.run_ms
        account.image = ended.image_digest or account.image
        check_end(ended, order, program)
        return ended

    async def _ask(
        self, order: StartRun, program: Program, account: _Account, inputs: Mapping[int, JsonObject], pool: WarmPool
    ) -> Output:
        """Have a model that stays loaded answer shard by shard."""

        def request(run_id: str, input_dir: Path, output_dir: Path) -> RunRequest:
            return request_for(order, program, run_id=run_id, input_dir=input_dir, output_dir=output_dir, env={})

        alone, told = len(inputs) == 1, environment_of(order, 0)
        answers = StoredSeries(self.folder, alone=alone)
        questions = Questions(
            inputs=inputs,
            env=lambda shard: {**told, "MESH_SHARD_INDEX": str(shard)},
            timeout_s=order.stage.timeout_ms / 1000,
            fetch=lambda links: self._fetch(links, order.sources),
            blobs=self.blobs,
            asked=Series(alone=alone),
            answers=answers,
        )
        key = WarmKey(order.stage.manifest.cid, order.submitter, program.cpu, program.memory_bytes)
        began = trio.current_time()
        try:
            async with pool.lent(key, request) as (model, loaded):
                try:
                    await model.use(lambda: questions.ask_all(model, loaded), pool.limiter)
                except ModelBroken as broken:
                    raise await fault_of(model, broken, questions) from None
            return await answers.store(self.blobs)
        except BlobError as error:
            raise Unread(str(error)) from None
        except TaskFault as fault:
            if questions.shard is None or alone:
                raise
            raise TaskFault(f"shard {questions.shard}: {fault}") from None
        finally:
            answers.close()
            account.input_hash = questions.asked.finish()
            account.pull_ms = questions.load_ms
            account.transfer_ms += questions.transfer_ms
            account.run_ms = max(0, _since(began) - questions.load_ms - questions.transfer_ms)

    @asynccontextmanager
    async def _room(self, program: Program) -> AsyncIterator[None]:
        """Models that are kept loaded make way for what is about to run."""
        if self.pool is None:
            yield
        else:
            async with self.pool.room(program.memory_bytes):
                yield

    def _runtime(self, order: StartRun) -> Runtime:
        if runs_model(order) and order.stage.needs.image:
            if self.containers is None:
                raise MachineFault("this node has no container engine")
            return self.containers
        if self.sandbox is None:
            raise MachineFault("this node has no sandbox")
        return self.sandbox

    async def _model(self, order: StartRun) -> Program:
        stage = order.stage
        manifest = parse_manifest(await self._reader(order)("the model's manifest", stage.manifest))
        await self._fetch([file.link for file in manifest.files], order.sources)
        return Program(
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

    def _reader(self, order: StartRun) -> ReadJson:
        return lambda what, blob: self._read_json(what, blob, order.sources)

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


@contextmanager
def _transfer(account: _Account) -> Iterator[None]:
    """Bring something here, which takes time; what nobody delivers is no fault of the task."""
    began = trio.current_time()
    try:
        yield
    except BlobError as error:
        raise Unread(str(error)) from None
    finally:
        account.transfer_ms += _since(began)


@contextmanager
def _named(shard: int) -> Iterator[None]:
    """Have a fault say in which of several shards it happened."""
    try:
        yield
    except TaskFault as fault:
        raise TaskFault(f"shard {shard}: {fault}") from None


async def _canonical(value: JsonObject) -> bytes:
    try:
        return await trio.to_thread.run_sync(canonical_json, value)
    except InvalidJson as error:
        raise TaskFault(f"the input of the task cannot be used: {error}") from None


def _since(began: float) -> int:
    return round((trio.current_time() - began) * 1000)
