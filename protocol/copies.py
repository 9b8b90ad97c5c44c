"""A second copy of every output that counts, at the steward: so that losing a worker loses no finished work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from protocol.context import Context
from protocol.durable import Copied, OutputLost
from protocol.effects import FetchBlobs
from protocol.job import Given, Job
from protocol.job_log import JobLog
from protocol.plan import TaskState, TaskStatus
from protocol.wire import Link


class Copies:
    """Copies on their way to this peer.

    ``advance`` is told of the job when one arrives or is given up, ``revoke`` of awards that it made needless.
    """

    def __init__(
        self, context: Context, log: JobLog, advance: Callable[[Job], None], revoke: Callable[[Given], None]
    ) -> None:
        self._context = context
        self._log = log
        self._advance = advance
        self._revoke = revoke
        self._fetches: dict[int, tuple[Job, int]] = {}
        """The job, and how often this copy was tried."""

    def make(self, job: Job, state: TaskState) -> None:
        """Fetch a pinned output, unless it is here or larger than this peer copies."""
        output = state.output
        if output is None or self._context.me in state.keepers:
            return
        if output.size <= self._context.limits.keep_output_bytes_max:
            self._fetch(job, state, tries=1)

    def _fetch(self, job: Job, state: TaskState, tries: int) -> None:
        assert state.output is not None
        number, link = self._context.new_id(), Link(cid=state.output.cid, size=state.output.size)
        self._fetches[number] = (job, tries)
        job.copying[number] = (state.task, link.cid)
        self._context.emit(FetchBlobs(number, (link,), tuple(state.keepers), job.record.not_after, deep=True))

    def on_fetched(self, fetch: int, failure: str | None) -> bool:
        """A fetch ended; False if it was not one of these. What nobody delivers is lost, and made again."""
        job, tries = self._fetches.pop(fetch, (None, 0))
        if job is None:
            return False
        task, cid = job.copying.pop(fetch)
        state = job.plan.find(task)
        if state is not None and state.output is not None and state.output.cid == cid:
            if failure is None:
                self._log.add(job, Copied(task=task))
                for needless in job.found(state, self._context.me):
                    self._revoke(needless)
            elif not self._is_last_hope(job, state, cid):
                pass
            elif tries < self._context.limits.copy_tries:
                job.copying[fetch] = (task, cid)  # as long as there is hope it is on its way
                again = partial(self._again, job, state, fetch, tries)
                self._context.after_jittered(self._context.limits.copy_retry_ms, again)
            else:
                self._context.notice("warning", f"no copy of an output: {failure}", job=job.digest)
                job.plan.lose_output(state)
                self._log.add(job, OutputLost(task=task))
        self._advance(job)
        return True

    def _again(self, job: Job, state: TaskState, fetch: int, tries: int) -> None:
        """A steward that has just restarted, say, knows nobody's address yet: one failure is not the end."""
        _, cid = job.copying.pop(fetch)
        if state.output is not None and state.output.cid == cid and self._is_last_hope(job, state, cid):
            self._fetch(job, state, tries + 1)
        else:
            self._advance(job)

    def _is_last_hope(self, job: Job, state: TaskState, cid: str) -> bool:
        """Whether it matters that a copy failed: not if one is here or under way, or the task runs again already."""
        if job.status.ended or state.status is not TaskStatus.DONE or self._context.me in state.keepers:
            return False
        return (state.task, cid) not in job.copying.values()
