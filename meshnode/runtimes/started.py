"""A sandboxed task from its start to its end, as the node follows it: time, output, and how it ended."""

import json
import os
from collections.abc import Callable

import trio

from meshnode.runtimes.base import Cause, RunRequest, RuntimeFault
from meshnode.runtimes.cgroups import Cgroup
from meshnode.runtimes.output import exceeds

_LOOK_AT_OUTPUT_EVERY_S = 0.2
_END_WITHIN_S = 15.0

Feed = Callable[[bytes], None]


class Started:
    """A task that runs under a launcher, which ends after the last process of the task."""

    def __init__(self, request: RunRequest, process: trio.Process, report: int, cgroup: Cgroup | None) -> None:
        self._request = request
        self._process = process
        self._report = report
        self._cgroup = cgroup

    async def follow(self, stdout: Feed, stderr: Feed, *, timeout_s: float) -> tuple[Cause, int | None]:
        """Wait for the end, or bring it about when the task takes too long or writes too much. Once.

        How it ended, and the exit code as a shell shows it unless the node ended the task. Raises RuntimeFault when the
        task was never started.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        cause: Cause = "exited"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, self._process.stdout, stdout)
            nursery.start_soon(_drain, self._process.stderr, stderr)
            with trio.move_on_after(timeout_s) as clock:
                cause = await self._until_end()
            if clock.cancelled_caught:
                cause = "timeout"
            await self.end()
            # Both streams end now, unless a process of the task escaped the launcher and still holds them.
            nursery.cancel_scope.deadline = trio.current_time() + _END_WITHIN_S
        exit_code = _exit_code(os.read(self._report, 65536))
        if cause == "exited":
            if await self._writes_too_much():
                cause = "output-too-large"
            elif exit_code and self._cgroup is not None and self._cgroup.out_of_memory_kills():
                cause = "out-of-memory"
        return cause, exit_code if cause in ("exited", "out-of-memory") else None

    async def end(self) -> None:
        """Kill all the task started; no effect if it has ended."""
        await end(self._process)

    async def _until_end(self) -> Cause:
        """Returns early when the output has become too large."""
        while True:
            with trio.move_on_after(_LOOK_AT_OUTPUT_EVERY_S):
                await self._process.wait()
                return "exited"
            if await self._writes_too_much():
                return "output-too-large"

    async def _writes_too_much(self) -> bool:
        return await trio.to_thread.run_sync(exceeds, self._request.output_dir, self._request.output_bytes_max)


async def end(process: trio.Process) -> None:
    """Cut the launcher's lifeline and wait until it has killed all; no effect on one that has ended."""
    with trio.CancelScope(shield=True):
        if process.stdin is not None:
            await trio.aclose_forcefully(process.stdin)
        with trio.move_on_after(_END_WITHIN_S):
            await process.wait()
            return
        process.kill()  # the control group, where there is one, takes the rest
        await process.wait()


async def _drain(stream: trio.abc.ReceiveStream, keep: Feed) -> None:
    async for chunk in stream:
        keep(chunk)


def _exit_code(report: bytes) -> int:
    """The task's exit code. Raises RuntimeFault when the task was never started.

    The launcher tells an exit or a fault; bubblewrap tells `child-pid` once its sandbox stands.
    """
    outcome: dict[str, object] = {}
    for line in report.splitlines():
        outcome |= json.loads(line)
    if "fault" in outcome:
        raise RuntimeFault(f"the sandbox cannot be set up: {outcome['fault']}")
    code = outcome.get("exit")
    if not isinstance(code, int):
        raise RuntimeFault("the sandbox's launcher was killed")
    return code
