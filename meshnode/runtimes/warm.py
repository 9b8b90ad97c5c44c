"""A model that stays loaded: one sandboxed process, asked one thing at a time over a pair of connected Unix sockets.

The model inherits its end under the number in `$MESH_SOCKET`. A pair needs no path that both sides could see, no file
and no right to make sockets, so it works under every confinement. What the lines say stands in `meshmodel.py`, which
is shown to the model; but the model is a stranger's program, and nothing it sends is believed.

Asking blocks, and is done in a thread for a whole task at a time: with a thousand questions a second, waking the node's
loop for each would cost more than the answers.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import trio

from meshnode.jobs.canonical import InvalidJson, loads_strict
from meshnode.runtimes.base import STDERR_TAIL_BYTES, Cause, RunRequest, RuntimeFault
from meshnode.runtimes.meshmodel import ANSWER_BYTES_MAX, ERROR_CHARS_MAX, SOCKET
from meshnode.runtimes.output import empty_folder
from meshnode.runtimes.sandbox import Sandbox
from meshnode.runtimes.streams import Tail

_PIECE_BYTES = 1 << 18
_TIDY_WITHIN_S = 10.0
T = TypeVar("T")


class AnswerFailed(Exception):
    """The model says why it has no answer to this question. It goes on."""


class ModelBroken(Exception):
    """The model did not answer as it should, and is of no more use. The message says how; empty if it just ended."""


@dataclass(frozen=True, slots=True)
class ModelEnded:
    """How a model ended, and the last it printed."""

    cause: Cause
    exit_code: int | None
    tail: str


class WarmModel:
    """One loaded model. Made by whoever starts `serve`, and of use after `loaded`."""

    def __init__(self, sandbox: Sandbox, request: RunRequest) -> None:
        self.request = request
        self.broken = False
        """Whether a question was left without its answer: the next answer would be to that one."""
        self._sandbox = sandbox
        self._channel, self._models_end = socket.socketpair()
        self._buffer = bytearray()
        self._asked = 0
        self._env: dict[str, str] = {}
        self._printed = Tail(STDERR_TAIL_BYTES)
        self._ended: ModelEnded | RuntimeFault | None = None
        self._has_ended = trio.Event()
        self._is_to_end = trio.Event()

    async def serve(self) -> None:
        """Run the model's process until it ends, or `finish` is called; never raises but when cancelled."""
        try:
            number = self._models_end.fileno()
            request = replace(self.request, env={**self.request.env, SOCKET: str(number)})
            async with self._sandbox.started(request, inherit=(number,)) as started:
                self._models_end.close()
                async with trio.open_nursery() as nursery:

                    async def end_when_asked() -> None:
                        await self._is_to_end.wait()
                        await started.end()

                    nursery.start_soon(end_when_asked)
                    feed = self._printed.feed
                    cause, exit_code = await started.follow(feed, feed, timeout_s=math.inf)
                    self._ended = ModelEnded(cause, exit_code, self._printed.text())
                    nursery.cancel_scope.cancel()
        except RuntimeFault as fault:
            self._ended = fault
        except Exception as error:  # a bug of ours: it must not take the other models with it
            self._ended = RuntimeFault(f"the sandbox failed: {error!r}")
        finally:
            self._models_end.close()
            if self._ended is None:
                self._ended = RuntimeFault("the node ends")
            self._cut_off()
            self._has_ended.set()

    @property
    def is_running(self) -> bool:
        return not self._has_ended.is_set() and not self._is_to_end.is_set()

    async def finish(self) -> None:
        """End the model if it has not ended, and wait until nothing of it is left."""
        self._is_to_end.set()
        await self._has_ended.wait()

    async def ended(self, *, grace_s: float = 0) -> ModelEnded:
        """How the model ended; it is ended after `grace_s`. Raises RuntimeFault when it never ran."""
        with trio.move_on_after(grace_s):
            await self._has_ended.wait()
        await self.finish()
        if isinstance(self._ended, RuntimeFault):
            raise RuntimeFault(str(self._ended))
        assert self._ended is not None
        return self._ended

    async def use(self, work: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """Run `work`, which calls `ask`, in a thread. Cancelled, the model is cut off, so that the thread ends too."""
        self._printed.clear()
        done = False
        result: T | Exception

        async def cut_off_if_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                if not done:
                    self.broken = True
                    self._cut_off()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_off_if_cancelled)
            try:
                result = await trio.to_thread.run_sync(work, limiter=limiter)
            except Exception as error:  # raised below, or the nursery would make it a group
                result = error
            done = True
            nursery.cancel_scope.cancel()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Let go of the socket, after the end and when no thread uses it."""
        self._channel.close()

    def _cut_off(self) -> None:
        # Not closed: a thread may be reading, and the number would be another file's before it looks again.
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    # -- in a thread ---------------------------------------------------------------------------------------------------

    def loaded(self, timeout_s: float) -> None:
        """Wait until the model says that it is ready. Blocking. Raises ModelBroken."""
        answer = self._exchange(b"", timeout_s)
        if answer.get("ready") != 1:
            raise self._break("the model does not begin with serve() of meshmodel")

    def ask(self, canonical: bytes, env: Mapping[str, str], timeout_s: float) -> Any:
        """The model's answer, strict JSON, to the input with these bytes. Blocking.

        Raises AnswerFailed or ModelBroken.
        """
        self._asked += 1
        news = {name: value for name, value in env.items() if self._env.get(name) != value}
        self._env.update(news)
        also = b',"env":' + json.dumps(news).encode() if news else b""
        answer = self._exchange(b'{"id":%d,"input":%b%b}\n' % (self._asked, canonical, also), timeout_s)
        if answer.get("id") != self._asked:
            raise self._break("the model answered something it was not asked")
        if "output" in answer:
            return answer["output"]
        error = answer.get("error")
        raise AnswerFailed(error[:ERROR_CHARS_MAX] if isinstance(error, str) else "the answer is no output")

    def has_written(self) -> bool:
        """Whether the model has left anything in its output folder. Blocking."""
        with os.scandir(self.request.output_dir) as entries:
            return next(entries, None) is not None

    def tidy(self) -> None:
        """Have both folders empty for the next question. Blocking. Raises ModelBroken."""
        try:
            empty_folder(self.request.output_dir, within_s=_TIDY_WITHIN_S)
            empty_folder(self.request.input_dir)
        except OSError:
            raise self._break("the model still writes files after its answer") from None

    def _exchange(self, line: bytes, timeout_s: float) -> dict[str, Any]:
        self.broken = True
        deadline = time.monotonic() + timeout_s
        try:
            self._channel.settimeout(timeout_s)
            if line:
                self._channel.sendall(line)
            answer = loads_strict(self._read_line(deadline), size_max=ANSWER_BYTES_MAX)
        except TimeoutError:
            raise self._break(f"not done within {timeout_s:g} s") from None
        except OSError:
            raise self._break("") from None
        except InvalidJson as error:
            raise self._break(f"the model's answer cannot be read: {error}") from None
        if not isinstance(answer, dict):
            raise self._break("the model's answer is not a JSON object")
        self.broken = False
        return answer

    def _read_line(self, deadline: float) -> bytes:
        looked = 0
        while (end := self._buffer.find(b"\n", looked)) < 0:
            looked = len(self._buffer)
            if looked > ANSWER_BYTES_MAX:
                raise self._break(f"the model's answer is longer than {ANSWER_BYTES_MAX} bytes")
            if looked:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._channel.settimeout(left)
            piece = self._channel.recv(_PIECE_BYTES)
            if not piece:
                raise self._break("")
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _break(self, how: str) -> ModelBroken:
        self.broken = True
        return ModelBroken(how)
