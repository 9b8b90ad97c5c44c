"""The sandbox: a task as a process of this machine, fenced in, on the node's own Python."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import trio

from meshnode.runtimes import launcher
from meshnode.runtimes.base import (
    STDERR_TAIL_BYTES,
    STDOUT_BYTES_MAX,
    Ended,
    Isolation,
    RunRefused,
    RunRequest,
    RuntimeFault,
)
from meshnode.runtimes.cgroups import Cgroup, CgroupFactory, CgroupsUnavailable
from meshnode.runtimes.confinement import Confinement, Plan, Task, fresh_uid, require_open_to_others
from meshnode.runtimes.interpreter import Interpreter
from meshnode.runtimes.output import reclaim, remove_tree
from meshnode.runtimes.started import Started, end
from meshnode.runtimes.streams import Head, Tail


class Sandbox:
    """Runs tasks under one confinement.

    `home` is the node's own folder for tasks; no other process may use it at the same time. `boot_id` tells this start
    of the node from earlier ones. Both ids consist of letters and digits.
    """

    name: Literal["sandbox"] = "sandbox"

    def __init__(
        self, confinement: Confinement, interpreter: Interpreter, *, home: Path, node_id: str, boot_id: str
    ) -> None:
        if not (node_id.isalnum() and boot_id.isalnum()):  # with a dash, one node's prefix could be another's too
            raise ValueError(f"node id {node_id!r} and boot id {boot_id!r} must be letters and digits")
        self._confinement = confinement
        self._interpreter = interpreter
        self._home = home
        self._boot_id = boot_id
        self._group_prefix = f"mesh-{node_id}-"
        self.why_no_cgroups = ""
        """Why memory and processes are limited per process only; empty when control groups do it per task."""
        self._cgroups: CgroupFactory | None = None
        try:
            self._cgroups = CgroupFactory()
        except (CgroupsUnavailable, OSError) as error:
            self.why_no_cgroups = str(error)

    @property
    def isolation(self) -> Isolation:
        return self._confinement.isolation

    @property
    def title(self) -> str:
        return self._confinement.title

    async def run(self, request: RunRequest) -> Ended:
        stdout, stderr = Head(STDOUT_BYTES_MAX), Tail(STDERR_TAIL_BYTES)
        async with self.started(request) as started:
            started_at, begin = time.time_ns() // 1_000_000, trio.current_time()
            cause, exit_code = await started.follow(stdout.feed, stderr.feed, timeout_s=request.timeout_s)
            run_ms = round((trio.current_time() - begin) * 1000)
        return Ended(
            cause=cause,
            exit_code=exit_code,
            stdout=bytes(stdout),
            stdout_truncated=stdout.truncated,
            stderr_tail=stderr.text(),
            started_at=started_at,
            run_ms=run_ms,
        )

    @contextlib.asynccontextmanager
    async def started(self, request: RunRequest, *, inherit: tuple[int, ...] = ()) -> AsyncIterator[Started]:
        """The task as it runs, with the file descriptors `inherit`; all of it is gone when the block is left.

        Whoever uses this sees to time and output. Raises RunRefused or RuntimeFault.
        """
        if request.image is not None:
            raise RunRefused(f"the sandbox runs no images, the task wants {request.image}")
        async with self._prepared(request, inherit) as (task, cgroup):
            async with self._launched(task) as (process, report):
                yield Started(request, process, report, cgroup)

    async def sweep(self) -> int:
        return await trio.to_thread.run_sync(self._sweep)

    def _sweep(self) -> int:
        removed = 0
        if self._cgroups is not None:
            for group in self._cgroups.named(self._group_prefix):
                if not group.name.startswith(f"{self._group_prefix}{self._boot_id}-"):
                    group.destroy()
                    removed += 1
        if self._home.exists():
            for folder in self._home.iterdir():
                if folder.name != self._boot_id:
                    remove_tree(folder)
                    removed += 1
        return removed

    @contextlib.asynccontextmanager
    async def _prepared(
        self, request: RunRequest, inherit: tuple[int, ...]
    ) -> AsyncIterator[tuple[Task, Cgroup | None]]:
        """A folder, a user and a control group for the task; all gone afterwards, with whatever is in them."""
        scratch = self._home / self._boot_id / request.run_id
        cgroup: Cgroup | None = None
        try:
            scratch.mkdir(parents=True, mode=0o755)
        except FileExistsError:
            raise RuntimeFault(f"run id {request.run_id} is in use") from None
        try:
            uid = fresh_uid() if os.geteuid() == 0 else None
            if uid is not None:
                require_open_to_others(request)
                os.chown(request.output_dir, uid, uid)
            cgroup = self._new_cgroup(request)
            yield Task(request, scratch, uid, cgroup.entrances if cgroup else (), inherit), cgroup
        except OSError as error:
            raise RuntimeFault(f"the sandbox cannot be set up: {error}") from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_clean_up, request.output_dir, scratch, cgroup)

    def _new_cgroup(self, request: RunRequest) -> Cgroup | None:
        if self._cgroups is None:
            return None
        try:
            return self._cgroups.create(
                f"{self._group_prefix}{self._boot_id}-{request.run_id}",
                memory_bytes=request.memory_bytes,
                pids=request.pids + self._confinement.own_processes,
                cpu=request.cpu,
            )
        except CgroupsUnavailable as error:
            raise RuntimeFault(str(error)) from None

    @contextlib.asynccontextmanager
    async def _launched(self, task: Task) -> AsyncIterator[tuple[trio.Process, int]]:
        """The launcher with the task below it, and the pipe on which it reports; both gone afterwards."""
        report, report_end = os.pipe()
        os.set_blocking(report, False)
        try:
            try:
                plan = self._confinement.plan(task, report_end)
                process = await self._launch(task, plan, report_end)
            finally:
                os.close(report_end)
            try:
                yield process, report
            finally:
                with trio.CancelScope(shield=True):
                    await end(process)
                for stream in (process.stdout, process.stderr):
                    if stream is not None:
                        await trio.aclose_forcefully(stream)
        finally:
            os.close(report)

    async def _launch(self, task: Task, plan: Plan, report_end: int) -> trio.Process:
        try:
            process = await trio.lowlevel.open_process(
                [self._interpreter.executable, "-I", "-S", launcher.__file__, str(report_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(report_end, *plan.descriptors, *task.inherit),
                env=self._interpreter.library_path(str(self._interpreter.prefix)),
                cwd="/",
                start_new_session=True,
            )
        finally:
            for descriptor in plan.descriptors:
                os.close(descriptor)
        assert process.stdin is not None
        with trio.CancelScope(shield=True), contextlib.suppress(trio.BrokenResourceError):
            await process.stdin.send_all(json.dumps(plan.launch).encode() + b"\n")
        return process


def _clean_up(output_dir: Path, scratch: Path, cgroup: Cgroup | None) -> None:
    try:
        if cgroup is not None:
            cgroup.destroy()
        if os.geteuid() == 0:
            os.chown(output_dir, os.geteuid(), os.getegid())
        reclaim(output_dir)
        remove_tree(scratch)
    except OSError as error:
        raise RuntimeFault(f"what the task left cannot be removed: {error}") from error
