"""Looking after jobs: find workers, award tasks, count receipts, end the job.

The steward of a job decides alone what is a matter of work: whom to award what, what to try again. It keeps copies of
outputs, so that the loss of a worker costs what it was running and no more.
"""

from __future__ import annotations

from protocol.awarding import Awarding
from protocol.context import Context, clipped
from protocol.copies import Copies
from protocol.dissemination import Dissemination
from protocol.durable import Counted, JobRow, KeeperGone, Step
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.job import Job, JobStatus
from protocol.job_log import JobLog
from protocol.lease import covers
from protocol.limits import RECEIPT_BYTES_MAX
from protocol.messages import JobClosed, Receipts, ReceiptsAck, SubmitReply
from protocol.records import Cancel, JobSpec, Receipt
from protocol.recruiting import Recruiting
from protocol.signing import Opened
from protocol.views import Views
from protocol.wire import Role


class Steward:
    """All jobs this peer is steward of."""

    def __init__(self, context: Context, views: Views, dissemination: Dissemination) -> None:
        self._context = context
        self._jobs: dict[bytes, Job] = {}
        self._log = JobLog(context)
        self.awarding = Awarding(context, views, self._jobs, self._log, self._advance)
        self.recruiting = Recruiting(context, views, dissemination, self._jobs, self.awarding.assign)
        self.copies = Copies(context, self._log, self._advance, self.awarding.revoke_idle)
        views.on_gone.append(self._on_gone)

    def restore(self, row: JobRow, steps: list[tuple[int, Step]]) -> Job:
        """Take up a job again that an earlier start of this node looked after."""
        job = self._log.replay(row, steps)
        self._jobs[job.digest] = job
        return job

    def start(self) -> None:
        for job in [job for job in self._jobs.values() if not job.status.ended]:
            for state in job.plan.tasks():
                if state.pin is not None:
                    self.copies.make(job, state)
            self.recruiting.announce(job)
            self._advance(job)
        self._context.after_jittered(self._context.limits.progress_interval_ms, self._watch)

    # -- jobs

    @property
    def jobs(self) -> tuple[bytes, ...]:
        return tuple(self._jobs)

    def find(self, digest: bytes) -> Job | None:
        return self._jobs.get(digest)

    def full(self) -> str | None:
        running = sum(1 for job in self._jobs.values() if not job.status.ended)
        if running >= self._context.limits.running_jobs_max:
            return f"this node already looks after {running} running jobs"
        return None

    def adopt(self, spec: Opened[JobSpec], holders: list[PeerId], accepted: SubmitReply) -> Job:
        """Look after an accepted job; ``holders`` have its model and inputs."""
        job = Job(spec, accepted, self._context.now, self._context.limits)
        job.holders = dict.fromkeys(holders)
        self._jobs[job.digest] = job
        self._log.keep(job)
        self._forget_old()
        self.recruiting.announce(job)
        return job

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.status.ended]
        for job in ended:
            expired = job.record.not_after < self._context.wall
            if expired or len(self._jobs) > self._context.limits.jobs_max:
                del self._jobs[job.digest]
                self._log.forget(job)

    def _watch(self) -> None:
        """Overdue leases, silent candidates, jobs past their deadline."""
        for job in [job for job in self._jobs.values() if not job.status.ended]:
            self.awarding.end_overdue(job)
            self.recruiting.forget_silent(job)
            if self._context.wall > job.record.issued_at + job.record.deadline_ms:
                self._end(job, JobStatus.FAILED, "the job's deadline has passed")
        self._forget_old()
        self._context.after_jittered(self._context.limits.progress_interval_ms, self._watch)

    def _on_gone(self, peer: PeerId) -> None:
        """A peer is believed dead: what it was running starts elsewhere, what only it had is made again."""
        for job in list(self._jobs.values()):
            job.refusals.pop(peer, None)
            if job.status.ended:
                continue
            job.candidates.pop(peer, None)
            self.awarding.end_awards_of(job, peer)
            if peer in job.holders or any(peer in state.keepers for state in job.plan.tasks()):
                self._log.add(job, KeeperGone(peer=peer))
            for state in job.plan.drop_keeper(peer):
                self._context.notice("info", f"output of {state.task.role} {state.task.index} was lost", job=job.digest)
            job.holders.pop(peer, None)
            self._advance(job)

    # -- receipts

    def on_receipts(self, sender: PeerId, message: Receipts) -> None:
        job = self._jobs.get(message.job)
        if job is None or job.status.ended:
            self._context.send(sender, JobClosed(job=message.job))
            return
        acknowledged = []
        for signed in message.receipts:
            if len(signed.payload) > RECEIPT_BYTES_MAX:
                raise RemoteProtocolError(f"a receipt of {len(signed.payload)} bytes")
            receipt = self._context.open(signed, Receipt)
            self._count(job, receipt)
            acknowledged.append(receipt.digest)
        self._context.send(sender, ReceiptsAck(receipts=tuple(acknowledged)))
        self._advance(job)

    def _count(self, job: Job, receipt: Opened[Receipt]) -> None:
        """Count a receipt if it is admissible: its worker is the award's, its task in the award."""
        record = receipt.record
        award = job.awards.get(record.award)
        if award is None or record.job != job.digest:
            return
        if record.worker != award.record.worker or not covers(award.record, record.task):
            raise RemoteProtocolError("a receipt that its award does not cover")
        given = job.given.get(award.digest)
        if given is not None:
            self.awarding.note_at_work(job, given)
            given.worked_at = self._context.now
        counting = job.count(receipt)
        if counting is None:
            return
        self._log.add(job, Counted(receipt=receipt.signed))
        for idle in counting.idle:
            self.awarding.revoke_idle(idle)
        if counting.pinned is not None:
            candidate = job.candidates.get(record.worker)
            if candidate is not None and record.task.role is Role.SHARD:
                candidate.measured(record.run_ms)
            self.copies.make(job, counting.pinned)

    # -- ending

    def _advance(self, job: Job) -> None:
        """After anything changed: end the job if it is decided, else award what is ready."""
        if job.status.ended:
            return
        if job.plan.failure:
            self._end(job, JobStatus.FAILED, job.plan.failure)
        elif job.plan.final is not None and not job.copying:
            self._end(job, JobStatus.SUCCESS, "")
        else:
            self.awarding.assign(job)

    def cancel(self, cancel: Cancel) -> str:
        """End a job on its submitter's word; returns the status it has then, ``unknown`` if it is not known here."""
        job = self._jobs.get(cancel.job)
        if job is None or cancel.submitter != job.record.submitter:
            return "unknown"
        if not job.status.ended:
            self._end(job, JobStatus.CANCELLED, "cancelled by its submitter")
        return job.status

    def _end(self, job: Job, status: JobStatus, error: str) -> None:
        if job.status.ended:
            return
        workers = {award.record.worker: None for award in job.awards.values()}
        job.close(status, clipped(error), self._context.wall)
        self._log.keep(job)
        for timer in (job.window, job.next_round):
            if timer is not None:
                timer.cancel()
        for worker in workers:
            self._context.send(worker, JobClosed(job=job.digest))
        self._context.notice("info", f"job {status}{': ' + error if error else ''}", job=job.digest)
