"""Rules about jobs, as their steward shows them: what counts was signed by those who had the right to.

The steward is asked as a client would ask it. Asking changes nothing, which is itself a rule here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from protocol.batches import shards_in
from protocol.clock import Instant
from protocol.effects import Notice, Reply
from protocol.events import StatusAsked
from protocol.lease import covers
from protocol.messages import JobView, StatusReply, TaskView
from protocol.records import Award, Receipt
from protocol.wire import Output, Role, Task
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.workload import Job
    from simulations.world import World

_STAGE_OF = {"queued": 0, "running": 1, "success": 2, "failed": 2, "cancelled": 2}
_TERMINAL = 2
_NO_REQUEST = 0
"""The number of the checkers' own requests; clients count from one."""


class JobRules:
    """Asks a job's steward after each event that may have changed the job."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._checked: set[tuple[bytes, bytes]] = set()
        """(job, receipt) already found good."""
        self._stages: dict[tuple[int, int, bytes], int] = {}
        """How far a job was, as each boot of each steward had it."""

    def inspect(self, machine: Machine, _: Any) -> None:
        """Look at every task of the jobs that ``machine`` looks after."""
        for job in self._jobs_of(machine):
            self.inspect_job(job, machine)

    def glance(self, machine: Machine, _: Any) -> None:
        """Look at the summaries of the jobs that ``machine`` looks after."""
        for job in self._jobs_of(machine):
            view = self._ask(job, machine, None).view
            if view is not None:
                self._check_progress(job, machine, view)

    def restarted(self, machine: Machine) -> None:
        """A job that has ended is shown by its holders as it was."""
        assert machine.peer is not None
        for job in self._world.workload.jobs.values():
            record = machine.peer.record_of(job.digest)
            if record is not None and record.final is not None and record.complete:
                self.inspect_job(job, machine)

    def inspect_job(self, job: Job, machine: Machine) -> None:
        """Look at all of a job's tasks, as a machine shows them, and compare them with its summary."""
        tasks: list[TaskView] = []
        awards: dict[bytes, Award] = {}
        start: int | None = 0
        while start is not None:
            reply = self._ask(job, machine, start)
            if reply.view is None:
                return
            view, start = reply.view, reply.next or None
            tasks += reply.tasks
            for signed in reply.awards:
                award = self._world.reader.open(signed, Award)
                awards[award.digest] = award.record
        self._check_tasks(job, machine, view, tasks, awards)
        if _is_complete(machine, job):
            self._check_ancestry(job, tasks)
        self._check_progress(job, machine, view)
        job.tasks = tuple(tasks)

    def shown_by(self, machine: Machine) -> Iterator[tuple[Job, TaskView]]:
        """All tasks of the jobs that ``machine`` looks after."""
        for job in self._jobs_of(machine):
            start: int | None = 0
            while start is not None:
                reply = self._ask(job, machine, start)
                yield from ((job, shown) for shown in reply.tasks)
                start = reply.next or None

    def seen_from_afar(self, job: Job, view: JobView) -> None:
        """What some other peer was told: an end is the end, and the one that the holders have decided."""
        if _STAGE_OF[view.status] == _TERMINAL:
            self._check_end(job, view)

    def _jobs_of(self, machine: Machine) -> list[Job]:
        assert machine.peer is not None
        jobs = self._world.workload.jobs
        looked_after = [jobs[digest] for digest in machine.peer.stewarding if digest in jobs]
        return [job for job in looked_after if _is_complete(machine, job)]

    def _ask(self, job: Job, machine: Machine, start: int | None) -> StatusReply:
        peer, now = machine.peer, Instant(self._world.agenda.now)
        assert peer is not None
        effects = peer.handle(StatusAsked(_NO_REQUEST, job.digest, machine.peer_id, start), now=now)
        replies = [effect for effect in effects if isinstance(effect, Reply) and effect.request == _NO_REQUEST]
        if len(replies) != 1 or any(not isinstance(effect, Reply | Notice) for effect in effects):
            raise Violation("jobs", f"asking for {job.name} had effects: {effects!r:.200}")
        answer = replies[0].answer
        if not isinstance(answer, StatusReply):
            raise Violation("jobs", f"asking for {job.name} was answered by a {type(answer).__name__}")
        return answer

    def _check_progress(self, job: Job, machine: Machine, view: JobView) -> None:
        """A job is queued, then runs, then ends; and what has ended stays as it is."""
        job.view = view
        if view.status not in _STAGE_OF:
            raise Violation("status", f"{job.name} is {view.status!r}")
        stage = _STAGE_OF[view.status]
        if stage == _TERMINAL:
            self._check_end(job, view)
        if view.succeeded + view.failed > view.total_shards and view.total_shards:
            raise Violation("status", f"{job.name} has {view.succeeded} + {view.failed} shards of {view.total_shards}")
        key = (machine.index, machine.boot, job.digest)
        if stage < self._stages.get(key, stage):
            raise Violation("status", f"{job.name} went back to {view.status}")
        self._stages[key] = stage

    def _check_end(self, job: Job, view: JobView) -> None:
        """The first end that anybody was told of is the only one, and a majority of the holders has voted for it."""
        if job.end is None:
            job.end = _essence(view)
            job.finished_at = self._world.agenda.now
        elif job.end != _essence(view):
            raise Violation("status", f"{job.name} ended as {job.end}, and is now {_essence(view)}")
        body = self._world.checkers.records.ended(job)
        if body is not None and (body.status, body.output, body.completed_at) != (
            view.status,
            view.output,
            view.completed_at,
        ):
            raise Violation("status", f"{job.name} is shown as {view.status}, and its holders decided {body.status}")

    def _check_tasks(
        self, job: Job, machine: Machine, view: JobView, tasks: list[TaskView], awards: dict[bytes, Award]
    ) -> None:
        seen: set[Task] = set()
        succeeded = 0
        for shown in tasks:
            if shown.task in seen:
                raise Violation("receipts", f"{job.name} lists {shown.task} twice")
            seen.add(shown.task)
            if shown.status == "success":
                receipt = self._check_receipt(job, shown, awards)
                if receipt.output is not None and shown.tries:
                    key = (machine.index, machine.boot, shown.task)
                    job.pins[key] = (receipt.output.cid, shown.tries[-1].attempt)
                succeeded += shards_in(shown.task, view.total_shards)
        if _is_complete(machine, job) and succeeded != view.succeeded:
            raise Violation("receipts", f"{job.name} counts {view.succeeded} shards, but lists {succeeded} that count")

    def _check_ancestry(self, job: Job, tasks: list[TaskView]) -> None:
        """Each receipt that counts names receipts of all that it read.

        A steward that took over may count another receipt of the same output.
        """
        counted = {
            shown.task: self._world.reader.open(shown.receipt, Receipt)
            for shown in tasks
            if shown.receipt is not None and shown.status == "success"
        }
        has_split = any(task.role is Role.SPLIT for task in counted)
        shards = sum(task.role is Role.SHARD for task in counted)
        for task, opened in counted.items():
            if task.role is Role.SHARD and has_split and len(opened.record.upstream) != 1:
                raise Violation("ancestry", f"{job.name} shard {task.index} does not name the split that counts")
            if task.role is Role.MERGE and len(opened.record.upstream) != shards:
                raise Violation("ancestry", f"the merge of {job.name} does not name the shards that count")

    def _check_receipt(self, job: Job, shown: TaskView, awards: dict[bytes, Award]) -> Receipt:
        """Signed by the award's worker, the award by a holder of the job; and the output is what the inputs imply."""
        what = f"{job.name} {shown.task.role} {shown.task.index}"
        if shown.receipt is None:
            raise Violation("receipts", f"{what} counts without a receipt")
        opened = self._world.reader.open(shown.receipt, Receipt)
        key = (job.digest, opened.digest)
        receipt, award = opened.record, awards.get(opened.record.award)
        if key in self._checked:
            return receipt
        if award is None:
            raise Violation("receipts", f"{what} counts by a receipt whose award is not shown")
        if not receipt.success or receipt.job != job.digest or receipt.task != shown.task:
            raise Violation("receipts", f"{what} counts by a receipt of something else")
        if award.job != job.digest or not self._world.checkers.records.has_held(job, award.steward):
            raise Violation("receipts", f"{what} counts by an award that no holder of it made")
        if receipt.worker != award.worker or receipt.attempt != award.attempt or not covers(award, shown.task):
            raise Violation("receipts", f"{what} counts by a receipt that its award does not allow")
        if receipt.output != self._expected(job, shown.task):
            raise Violation("receipts", f"{what} has an output that its inputs do not imply")
        self._checked.add(key)
        return receipt

    def _expected(self, job: Job, task: Task) -> Output:
        match task.role:
            case Role.SPLIT:
                spec = job.spec.record
                return self._world.library.split(spec.stages[0], spec.input.cid).output
            case Role.SHARD:
                return job.expected_shards[task.index]
            case Role.MERGE:
                return job.expected_output


def _is_complete(machine: Machine, job: Job) -> bool:
    """Whether a machine can be expected to know all receipts of a job: not right after it heard of the end."""
    assert machine.peer is not None
    record = machine.peer.record_of(job.digest)
    return record is not None and (record.final is None or record.complete)


def _essence(view: JobView) -> tuple[object, ...]:
    return (view.status, view.output, view.total_shards, view.succeeded, view.failed, view.completed_at)
