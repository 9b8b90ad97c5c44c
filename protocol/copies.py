"""A second copy of every output that counts, at the steward: so that losing a worker loses no finished work."""

from __future__ import annotations

from collections.abc import Callable

from protocol.context import Context
from protocol.durable import Copied, OutputLost
from protocol.effects import FetchBlobs
from protocol.job import Job
from protocol.job_log import JobLog
from protocol.plan import TaskState, TaskStatus
from protocol.wire import Link


class Copies:
    """Copies on their way to this peer; ``advance`` is told of the job when one arrives or cannot be had."""

    def __init__(self, context: Context, log: JobLog, advance: Callable[[Job], None]) -> None:
        self._context = context
        self._log = log
        self._advance = advance
        self._jobs: dict[int, Job] = {}

    def make(self, job: Job, state: TaskState) -> None:
        """Fetch a pinned output, unless it is here or larger than this peer copies."""
        output = state.output
        if output is None or self._context.me in state.keepers:
            return
        if output.size > self._context.limits.keep_output_bytes_max:
            return
        number = self._context.new_id()
        self._jobs[number] = job
        job.copying[number] = (state.task, output.cid)
        link = Link(cid=output.cid, size=output.size)
        self._context.emit(FetchBlobs(number, (link,), tuple(state.keepers), job.record.not_after, deep=True))

    def on_fetched(self, fetch: int, failure: str | None) -> bool:
        """A fetch ended; False if it was not one of these. What nobody delivers is lost, and made again."""
        job = self._jobs.pop(fetch, None)
        if job is None:
            return False
        task, cid = job.copying.pop(fetch)
        state = job.plan.find(task)
        if state is not None and state.output is not None and state.output.cid == cid:
            if failure is None:
                state.keepers[self._context.me] = None
                self._log.add(job, Copied(task=task))
            elif not job.status.ended and self._is_last_hope(job, state, cid):
                self._context.notice("warning", f"no copy of an output: {failure}", job=job.digest)
                job.plan.lose_output(state)
                self._log.add(job, OutputLost(task=task))
        self._advance(job)
        return True

    def _is_last_hope(self, job: Job, state: TaskState, cid: str) -> bool:
        """Whether a copy that failed means anything: not if one is here, under way, or the task runs again already."""
        if state.status is not TaskStatus.DONE or self._context.me in state.keepers:
            return False
        return (state.task, cid) not in job.copying.values()
