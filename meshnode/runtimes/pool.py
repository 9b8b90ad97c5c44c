"""Models that are kept loaded: lent to one task at a time, and ended when they are in the way or not asked for.

The pool knows all that runs on the node, warm or not, because a loaded model that waits for work holds memory that the
mesh believes to be free. Whoever needs room gets it: the model that was used longest ago goes first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from meshnode import machine
from meshnode.runtimes.base import RunRequest
from meshnode.runtimes.output import remove_tree
from meshnode.runtimes.sandbox import Sandbox
from meshnode.runtimes.warm import WarmModel

LOOK_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class WarmKey:
    """What two tasks must have in common to be answered by the same process."""

    manifest: str
    """CID of the model."""
    submitter: str
    """A model could carry what it read in one task into the output of another: never to a stranger's."""
    cpu: float
    memory_bytes: int


MakeRequest = Callable[[str, Path, Path], RunRequest]
"""The request from run id, input folder and output folder."""


@dataclass(slots=True)
class _Idle:
    key: WarmKey
    model: WarmModel
    since: float


class WarmPool:
    """The loaded models of one node. Made by `WarmPool.start`."""

    def __init__(
        self, sandbox: Sandbox, folder: Path, nursery: trio.Nursery, *, slots: int, memory_bytes: int, idle_s: float
    ) -> None:
        self.limiter = trio.CapacityLimiter(slots + 1)
        """Threads that ask models: of their own, because each may wait for minutes."""
        self._sandbox = sandbox
        self._folder = folder
        self._nursery = nursery
        self._slots = slots
        self._memory_bytes = memory_bytes
        self._idle_s = idle_s
        self._idle: list[_Idle] = []  # the one used longest ago first
        self._busy = 0
        self._busy_memory = 0
        self._made = 0

    @classmethod
    async def start(
        cls, sandbox: Sandbox, folder: Path, nursery: trio.Nursery, *, slots: int, memory_bytes: int, idle_s: float
    ) -> WarmPool:
        """A pool whose models end with `nursery`. `folder` is the pool's own.

        slots, memory_bytes: what all that runs on the node may take, loaded models included.
        idle_s: how long a model is kept without work.
        """

        def afresh() -> None:
            remove_tree(folder)
            folder.mkdir(parents=True)

        await trio.to_thread.run_sync(afresh)
        pool = cls(sandbox, folder, nursery, slots=slots, memory_bytes=memory_bytes, idle_s=idle_s)
        nursery.start_soon(pool._end_unused)
        return pool

    @property
    def idle(self) -> tuple[WarmKey, ...]:
        """The models that wait for work, the one used longest ago first."""
        return tuple(entry.key for entry in self._idle)

    @asynccontextmanager
    async def room(self, memory_bytes: int) -> AsyncIterator[None]:
        """Room for one run of any kind: models that wait make way for it."""
        async with self._taken(memory_bytes):
            await self._make_way()
            yield

    @asynccontextmanager
    async def lent(self, key: WarmKey, make_request: MakeRequest) -> AsyncIterator[tuple[WarmModel, bool]]:
        """A model for the work of one task, and whether it is loaded already; else it is only being started.

        It is kept afterwards if it still answers, and ended otherwise. Raises RuntimeFault, OSError.
        """
        async with self._taken(key.memory_bytes):
            model, loaded = self._take(key), True
            await self._make_way()
            if model is None:
                model, loaded = await self._start(make_request), False
            try:
                yield model, loaded
            finally:
                if model.is_running and not model.broken:
                    self._idle.append(_Idle(key, model, trio.current_time()))
                else:
                    await self._discard(model)

    @asynccontextmanager
    async def _taken(self, memory_bytes: int) -> AsyncIterator[None]:
        self._busy += 1
        self._busy_memory += memory_bytes
        try:
            yield
        finally:
            self._busy -= 1
            self._busy_memory -= memory_bytes

    def _take(self, key: WarmKey) -> WarmModel | None:
        """The one used last, because it is the likeliest to be in the processor's caches still."""
        for entry in reversed(self._idle):
            if entry.key == key and entry.model.is_running:
                self._idle.remove(entry)
                return entry.model
        return None

    async def _start(self, make_request: MakeRequest) -> WarmModel:
        self._made += 1
        name = f"warm-{self._made}"
        folder = self._folder / name

        def make_folders() -> None:
            for below in ("input", "output"):
                (folder / below).mkdir(parents=True)
                (folder / below).chmod(0o755)

        try:
            await trio.to_thread.run_sync(make_folders)
            model = WarmModel(self._sandbox, make_request(name, folder / "input", folder / "output"))
        except BaseException:
            remove_tree(folder)
            raise
        self._nursery.start_soon(self._serve, model, folder)
        return model

    async def _serve(self, model: WarmModel, folder: Path) -> None:
        try:
            await model.serve()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove_tree, folder)

    async def _discard(self, model: WarmModel) -> None:
        with trio.CancelScope(shield=True):
            await model.finish()
        model.close()

    # -- making way ----------------------------------------------------------------------------------------------------

    async def _make_way(self) -> None:
        while self._idle and self._is_crowded():
            await self._discard(self._idle.pop(0).model)

    def _is_crowded(self) -> bool:
        memory = self._busy_memory + sum(entry.key.memory_bytes for entry in self._idle)
        return self._busy + len(self._idle) > self._slots or memory > self._memory_bytes or _is_memory_short()

    async def _end_unused(self) -> None:
        while True:
            await trio.sleep(min(LOOK_EVERY_S, self._idle_s / 4))
            now = trio.current_time()
            for entry in list(self._idle):
                if entry in self._idle and (now - entry.since > self._idle_s or not entry.model.is_running):
                    self._idle.remove(entry)
                    await self._discard(entry.model)
            await self._make_way()


def _is_memory_short() -> bool:
    """Whether the machine itself is short of memory, whatever was promised to whom."""
    available, total = machine.memory_available()
    return available < total // 20
