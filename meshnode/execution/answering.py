"""The shards of one task, asked of a model that stays loaded.

All of a task is asked in one thread, question after question. A shard without files is a line out and a line in: no
folder, no file, and no turn of the node's loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from meshnode.blobs.store import BlobStore
from meshnode.execution.faults import TaskFault, with_tail
from meshnode.execution.inputs import JsonObject, place_files
from meshnode.execution.linked import TooManyLinks, find_links
from meshnode.execution.outputs import with_files
from meshnode.execution.series import Series
from meshnode.jobs.canonical import InvalidJson, canonical_json
from meshnode.runtimes.output import reclaim
from meshnode.runtimes.warm import AnswerFailed, ModelBroken, WarmModel
from protocol.wire import Link

_EXIT_WITHIN_S = 2.0
"""From the end of the conversation: how long a model may take to say its exit code."""


@dataclass(slots=True, kw_only=True)
class Questions:
    """What is asked of a model for one task, and what has come of it so far."""

    inputs: Mapping[int, JsonObject]
    env: Callable[[int], Mapping[str, str]]
    """What the environment says of a shard."""
    timeout_s: float
    fetch: Callable[[Sequence[Link]], Awaitable[None]]
    blobs: BlobStore
    asked: Series
    answers: Series
    shard: int | None = None
    """The one that is being asked; None while the model is loaded."""
    load_ms: int = 0
    transfer_ms: int = 0

    def ask_all(self, model: WarmModel, loaded: bool) -> None:
        """Ask shard by shard; in a thread, as the work of ``model.use``. Raises TaskFault, ModelBroken, BlobError."""
        began = time.monotonic()
        if not loaded:
            model.loaded(self.timeout_s)
        model.tidy()  # what it wrote since its last answer is nobody's output
        self.load_ms = _since(began)
        for self.shard, value in self.inputs.items():  # noqa: B020
            self.answers.add(self._answer(model, self.shard, value))

    def _answer(self, model: WarmModel, shard: int, value: JsonObject) -> bytes:
        try:
            canonical = canonical_json(value)
            self.asked.add(canonical)
            if links := find_links(value):
                began = time.monotonic()
                trio.from_thread.run(self.fetch, links)
                canonical = canonical_json(place_files(model.request.input_dir, value, self.blobs.path))
                self.transfer_ms += _since(began)
        except (InvalidJson, TooManyLinks) as error:
            raise TaskFault(f"the input of the task cannot be used: {error}") from None
        try:
            output = model.ask(canonical, self.env(shard), self.timeout_s)
            if has_written := model.has_written():
                reclaim(model.request.output_dir)
                output = trio.from_thread.run(with_files, output, model.request.output_dir, self.blobs)
        except AnswerFailed as error:
            model.tidy()
            raise TaskFault(str(error)) from None
        except TaskFault:
            model.tidy()
            raise
        if links or has_written:
            model.tidy()
        return canonical_json(output)


async def fault_of(model: WarmModel, broken: ModelBroken, questions: Questions) -> TaskFault:
    """What went wrong with a model that broke, which is ended. Raises RuntimeFault when it was never started."""
    how = str(broken)
    ended = await model.ended(grace_s=0 if how else _EXIT_WITHIN_S)
    if ended.cause == "out-of-memory":
        how = f"out of memory: it may use {model.request.memory_bytes >> 20} MiB"
    elif ended.cause == "output-too-large":
        how = "its output is too large"
    elif not how:
        how = f"the model ended with exit code {ended.exit_code}"
    if questions.shard is None:
        how = f"the model cannot be loaded: {how}"
    return TaskFault(with_tail(how, ended.tail))


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
