"""Looking after jobs: find workers, award tasks, count receipts, end the job.

The steward of a job decides alone what is a matter of work: whom to award what, what to try again. It keeps copies of
outputs, so that the loss of a worker costs what it was running and no more.
"""

from __future__ import annotations

from protocol import auction
from protocol.clock import after_ms
from protocol.context import Context, clipped
from protocol.copies import Copies
from protocol.dissemination import Dissemination
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.job import Candidate, Given, Job, JobStatus
from protocol.lease import covers, ranges_of
from protocol.limits import RANGES_PER_AWARD_MAX, TRIES_SHOWN_MAX
from protocol.messages import (
    JobClosed,
    Offer,
    OfferAccepted,
    OfferDeclined,
    Progress,
    Receipts,
    ReceiptsAck,
    Returned,
    Revoke,
)
from protocol.plan import TaskState, TaskStatus, Try, flaw_in
from protocol.records import Award, Cancel, JobSpec, Receipt
from protocol.recruiting import Recruiting
from protocol.signing import Opened
from protocol.views import Views
from protocol.wire import Ballot, Role


class Steward:
    """All jobs this peer is steward of."""

    def __init__(self, context: Context, views: Views, dissemination: Dissemination) -> None:
        self._context = context
        self._views = views
        self._jobs: dict[bytes, Job] = {}
        self.recruiting = Recruiting(context, views, dissemination, self._jobs, self._assign)
        self.copies = Copies(context, self._advance)
        views.on_gone.append(self._on_gone)

    def start(self) -> None:
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

    def adopt(self, spec: Opened[JobSpec], holders: list[PeerId]) -> Job:
        """Look after an accepted job; ``holders`` have its model and inputs."""
        job = Job(spec, self._context.now, self._context.limits)
        job.holders = dict.fromkeys(holders)
        self._jobs[job.digest] = job
        self._forget_old()
        self.recruiting.announce(job)
        return job

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.status.ended]
        for job in ended:
            expired = job.record.not_after < self._context.wall
            if expired or len(self._jobs) > self._context.limits.jobs_max:
                del self._jobs[job.digest]

    # -- awarding

    def _assign(self, job: Job) -> None:
        """Award what is ready to those who would be through with it first."""
        while not job.status.ended and not job.bidding_open:
            ready = job.plan.ready()
            if ready and ready[0].task.role is Role.MERGE and job.copying:
                return  # the merge reads copies that are still on their way
            available = job.available(self._context.now)
            if not ready or not available:
                return
            announcement = job.announcement
            assert announcement is not None
            state = ready[0]
            best = min(
                available,
                key=lambda one: (job.completion_ms(one, state), auction.tie_break(announcement.digest, one.peer)),
            )
            self._award(job, best, self._take(job, best, ready, available))

    def _take(
        self, job: Job, candidate: Candidate, ready: list[TaskState], available: list[Candidate]
    ) -> list[TaskState]:
        """The next tasks for a candidate: one role, one attempt number, a fair share."""
        first = ready[0]
        alike = [
            state for state in ready if state.task.role is first.task.role and len(state.tries) == len(first.tries)
        ]
        slots = candidate.bid.slots
        total_slots = sum(one.bid.slots for one in available)
        target_ms = self._context.limits.award_target_ms
        size = auction.award_size(len(alike), total_slots, slots, candidate.run_ms, target_ms)
        taken = alike[:size]
        while len(ranges_of([state.task.index for state in taken])) > RANGES_PER_AWARD_MAX:
            taken.pop()
        return taken

    def _award(self, job: Job, candidate: Candidate, states: list[TaskState]) -> None:
        context, limits, plan = self._context, self._context.limits, job.plan
        role = states[0].task.role
        split = plan.split if role is Role.SHARD else None
        rounds = -(-len(states) // candidate.bid.slots)
        lease_ms = rounds * plan.stage.timeout_ms + limits.lease_slack_ms
        award = context.sign(
            Award(
                job=job.digest,
                holders=job.record.holders,
                steward=context.me,
                ballot=Ballot(peer=context.me),
                worker=candidate.peer,
                stage=0,
                role=role,
                ranges=ranges_of([state.task.index for state in states]),
                attempt=len(states[0].tries) + 1,
                shards=plan.shards_known if role is not Role.SPLIT else 0,
                split=split.output if split is not None else None,
                split_receipt=split.pin.digest if split is not None and split.pin is not None else None,
                parts=plan.parts() if role is Role.MERGE else (),
                lease_ms=lease_ms,
                nonce=context.new_id(),
                issued_at=context.wall,
                not_after=context.wall + lease_ms,
            )
        )
        given = Given(award, context.now, after_ms(context.now, lease_ms))
        job.awards[award.digest] = award
        job.given[award.digest] = given
        for state in states:
            state.status = TaskStatus.AWARDED
            state.tries.append(Try(award.digest, candidate.peer, award.record.attempt))
            del state.tries[:-TRIES_SHOWN_MAX]
        sources = job.sources_for(states[0], context.me)[:16]
        records = [self._views.record_of(peer) for peer in sources]
        offer = Offer(
            award=award.signed,
            spec=job.spec.signed,
            sources=tuple(sources),
            records=tuple(opened.signed for opened in records if opened is not None),
        )
        context.after(limits.offer_timeout_ms, lambda: self._offer_unanswered(job, given))
        context.send(candidate.peer, offer)

    def _given(self, sender: PeerId, award: bytes) -> tuple[Job, Given] | None:
        """An open award of this steward to ``sender``."""
        for job in self._jobs.values():
            given = job.given.get(award)
            if given is not None and given.award.record.worker == sender:
                return job, given
        return None

    def _offer_unanswered(self, job: Job, given: Given) -> None:
        if not given.accepted and given.award.digest in job.given:
            self._context.send(given.award.record.worker, Revoke(award=given.award.digest, reason="no answer in time"))
            self._end_award(job, given, "lost", "the offer was not answered", counts=True)

    def on_offer_accepted(self, sender: PeerId, message: OfferAccepted) -> None:
        found = self._given(sender, message.award)
        if found is None:
            return
        job, given = found
        given.accepted = True
        given.heard_at = self._context.now
        self._note_heard(job, sender)
        for task in given.left:
            state = job.plan.find(task)
            one = state.try_of(message.award) if state is not None else None
            if one is not None and one.outcome == "offered":
                one.outcome = "running"
        if job.status is JobStatus.QUEUED:
            job.status = JobStatus.RUNNING

    def on_offer_declined(self, sender: PeerId, message: OfferDeclined) -> None:
        found = self._given(sender, message.award)
        if found is not None:
            job, given = found
            job.refusals[sender] = message.reason
            self._end_award(job, given, "declined", message.reason, counts=False)

    def on_returned(self, sender: PeerId, message: Returned) -> None:
        found = self._given(sender, message.award)
        if found is not None:
            job, given = found
            self._end_award(job, given, "lost", message.reason, counts=True)

    def on_progress(self, sender: PeerId, message: Progress) -> None:
        found = self._given(sender, message.award)
        if found is None:
            self._context.send(sender, Revoke(award=message.award, reason="not an open award"))
            return
        job, given = found
        given.accepted = True
        given.heard_at = self._context.now
        self._note_heard(job, sender)

    def _note_heard(self, job: Job, sender: PeerId) -> None:
        candidate = job.candidates.get(sender)
        if candidate is not None:
            candidate.heard_at = self._context.now

    def _end_award(self, job: Job, given: Given, outcome: str, reason: str, *, counts: bool) -> None:
        """What is left of an award goes back to the ready tasks; its worker pauses."""
        if job.given.pop(given.award.digest, None) is None:
            return
        record = given.award.record
        for task in given.left:
            state = job.plan.find(task)
            if state is None:
                continue
            one = state.try_of(given.award.digest)
            if one is not None:
                one.outcome, one.reason = outcome, reason
            if state.status is TaskStatus.AWARDED and not self._awarded_elsewhere(job, state):
                job.plan.lose_try(state, reason, counts=counts)
        candidate = job.candidates.get(record.worker)
        if candidate is not None and outcome != "revoked":
            candidate.paused_until = after_ms(self._context.now, self._context.limits.worker_pause_ms)
            self._context.after(self._context.limits.worker_pause_ms + 1, lambda: self._assign(job))
        self._advance(job)

    def _awarded_elsewhere(self, job: Job, state: TaskState) -> bool:
        return any(state.task in given.left for given in job.given.values())

    def _watch(self) -> None:
        """Leases that ran out, workers that fell silent, jobs past their deadline."""
        limits, now = self._context.limits, self._context.now
        for job in list(self._jobs.values()):
            if job.status.ended:
                continue
            for given in list(job.given.values()):
                silent = after_ms(given.heard_at, limits.progress_timeout_ms) <= now
                if given.expires_at <= now or silent:
                    outcome, reason = ("lost", "nothing heard of it") if silent else ("expired", "the lease ran out")
                    self._context.send(given.award.record.worker, Revoke(award=given.award.digest, reason=reason))
                    self._end_award(job, given, outcome, reason, counts=True)
            self.recruiting.forget_silent(job)
            if self._context.wall > job.record.issued_at + job.record.deadline_ms:
                self._end(job, JobStatus.FAILED, "the job's deadline has passed")
        self._forget_old()
        self._context.after_jittered(limits.progress_interval_ms, self._watch)

    def _on_gone(self, peer: PeerId) -> None:
        """A peer is believed dead: what it was running starts elsewhere, what only it had is made again."""
        for job in list(self._jobs.values()):
            job.refusals.pop(peer, None)
            if job.status.ended:
                continue
            job.candidates.pop(peer, None)
            for given in [one for one in job.given.values() if one.award.record.worker == peer]:
                self._end_award(job, given, "lost", "the worker is gone", counts=True)
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
            receipt = self._context.open(signed, Receipt)
            self._count(job, receipt)
            acknowledged.append(receipt.digest)
        self._context.send(sender, ReceiptsAck(receipts=tuple(acknowledged)))
        self._note_heard(job, sender)
        self._advance(job)

    def _count(self, job: Job, receipt: Opened[Receipt]) -> None:
        """Count a receipt if it is admissible: its worker is the award's, its task in the award."""
        record = receipt.record
        award = job.awards.get(record.award)
        if award is None or record.job != job.digest:
            return
        if record.worker != award.record.worker or not covers(award.record, record.task):
            raise RemoteProtocolError("a receipt that its award does not cover")
        state = job.plan.find(record.task)
        if state is None:
            return
        given = job.given.get(award.digest)
        one = state.try_of(award.digest)
        if one is not None and one.outcome == "failed":
            return  # counted already; a success that comes again may count anew, after its pin was lost
        if given is not None:
            given.accepted = True
            given.heard_at = self._context.now
            given.left.pop(record.task, None)
            if not given.left:
                del job.given[award.digest]
        flaw = flaw_in(record, job.plan.stage)
        if one is not None:
            one.outcome = "success" if flaw is None else "failed"
            one.reason = "" if flaw is None else clipped(flaw)
        if flaw is not None:
            if state.status is TaskStatus.AWARDED and not self._awarded_elsewhere(job, state):
                job.plan.fail_try(state, flaw)
            return
        if job.plan.succeed(receipt, award.record):
            candidate = job.candidates.get(record.worker)
            if candidate is not None and record.task.role is Role.SHARD:
                candidate.measured(record.run_ms)
            self._revoke_twins(job, state)
            self.copies.make(job, state)
        elif state.status is TaskStatus.AWARDED and not self._awarded_elsewhere(job, state):
            state.status = TaskStatus.READY  # made from inputs that no longer count

    def _revoke_twins(self, job: Job, state: TaskState) -> None:
        """Another try of a task that is done now is waste."""
        for given in [one for one in job.given.values() if state.task in one.left]:
            del given.left[state.task]
            one = state.try_of(given.award.digest)
            if one is not None:
                one.outcome, one.reason = "revoked", "another try was first"
            if not given.left:
                del job.given[given.award.digest]
                self._context.send(
                    given.award.record.worker, Revoke(award=given.award.digest, reason="another try was first")
                )

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
            self._assign(job)

    def cancel(self, cancel: Cancel) -> str:
        """End a job on its submitter's word; returns the status it has then, ``unknown`` if it is not known here."""
        job = self._jobs.get(cancel.job)
        if job is None or cancel.submitter != job.record.submitter:
            return "unknown"
        if not job.status.ended:
            self._end(job, JobStatus.CANCELLED, "cancelled by its submitter")
        return job.status

    def _end(self, job: Job, status: JobStatus, error: str) -> None:
        job.status = status
        job.error = clipped(error)
        job.completed_at = self._context.wall
        for timer in (job.window, job.next_round):
            if timer is not None:
                timer.cancel()
        workers = {award.record.worker: None for award in job.awards.values()}
        for state in job.plan.tasks():
            for one in state.tries:
                if one.outcome in ("offered", "running"):
                    one.outcome, one.reason = "revoked", "the job has ended"
        job.given.clear()
        job.candidates.clear()
        for worker in workers:
            self._context.send(worker, JobClosed(job=job.digest))
        self._context.notice("info", f"job {status}{': ' + error if error else ''}", job=job.digest)
