"""The journal of a steward's jobs: each step is recorded as it is taken, and taken again when the peer restarts."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.clock import after_ms
from protocol.context import Context
from protocol.durable import (
    Copied,
    Counted,
    Ended,
    Gave,
    JobRow,
    KeeperGone,
    OutputLost,
    Step,
    Table,
    step_key,
)
from protocol.job import Job, JobStatus
from protocol.records import Award, JobSpec, Receipt


class JobLog:
    """Writes and reads the tables ``job`` and ``step``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def keep(self, job: Job) -> None:
        """The job itself: when it is adopted, and when it ends."""
        row = JobRow(
            spec=job.spec.signed,
            holders=tuple(job.holders),
            accepted=job.accepted,
            status=job.status if job.status.ended else "",
            error=job.error,
            completed_at=job.completed_at,
        )
        self._context.record(Table.JOB, job.digest, row)

    def add(self, job: Job, step: Step) -> None:
        """A step that has just been taken."""
        self._context.record(Table.STEP, step_key(job.digest, job.steps), step)
        if isinstance(step, Gave):
            job.steps_of_award[step.award.digest] = [job.steps]
        elif isinstance(step, Ended) and step.award in job.steps_of_award:
            job.steps_of_award[step.award].append(job.steps)
        job.steps += 1

    def forget_award(self, job: Job, award: bytes) -> None:
        """Of an award that nothing came of, the steps need not be kept."""
        for number in job.steps_of_award.pop(award, ()):
            self._context.record(Table.STEP, step_key(job.digest, number), None)

    def forget(self, job: Job) -> None:
        """All of a job that is over and past its time."""
        self._context.record(Table.JOB, job.digest, None)
        for number in range(job.steps):
            self._context.record(Table.STEP, step_key(job.digest, number), None)

    # -- after a restart

    def replay(self, row: JobRow, steps: Iterable[tuple[int, Step]]) -> Job:
        """The job as it was when its last step was recorded."""
        context = self._context
        job = Job(context.open(row.spec, JobSpec), row.accepted, context.now, context.limits)
        job.holders = dict.fromkeys(row.holders)
        for number, step in steps:
            job.steps = number + 1
            self._take(job, number, step)
        if row.status:
            job.close(JobStatus(row.status), row.error, row.completed_at)
        return job

    def _take(self, job: Job, number: int, step: Step) -> None:
        context = self._context
        match step:
            case Gave(award=signed):
                award = context.open(signed, Award)
                left_ms = max(0, award.record.not_after - context.wall)
                given = job.give(award, context.now, after_ms(context.now, left_ms))
                job.note_at_work(given)  # it may be: its worker is heard of, or the lease is lost, soon enough
                job.steps_of_award[award.digest] = [number]
            case Ended(award=digest, outcome=outcome, reason=reason, counts=counts):
                if (open_award := job.given.get(digest)) is not None:
                    job.end(open_award, outcome, reason, counts=counts)
                    job.steps_of_award[digest].append(number)
            case Counted(receipt=signed):
                receipt = context.open(signed, Receipt)
                if receipt.record.award in job.awards:
                    job.count(receipt)
            case Copied(task=task):
                state = job.plan.find(task)
                if state is not None and state.pin is not None:
                    job.found(state, context.me)
            case OutputLost(task=task):
                state = job.plan.find(task)
                if state is not None and state.pin is not None:
                    job.plan.lose_output(state)
            case KeeperGone(peer=peer):
                job.plan.drop_keeper(peer)
                job.holders.pop(peer, None)
            case _:
                raise AssertionError(f"no such step: {step!r}")
