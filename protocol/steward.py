"""Looking after jobs: find workers, award tasks, count receipts, have the job's end decided.

The steward of a job decides alone what is a matter of work: whom to award what, what to try again. What it does it
notes as facts, so that another holder can go on where it was; the end of a job is decided by its holders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from protocol.awarding import Awarding
from protocol.candidate import Experience
from protocol.clock import after_ms
from protocol.context import Context, clipped
from protocol.copies import Copies
from protocol.dissemination import Dissemination
from protocol.ending import body_of
from protocol.errors import RemoteProtocolError
from protocol.facts import Accepted, AnyFact, Cancelled, Counted, Gave, Kept, Pinned
from protocol.identity import PeerId
from protocol.job import Job, JobStatus
from protocol.job_record import JobRecord
from protocol.lead import Lead
from protocol.leadership import Leadership
from protocol.lease import covers
from protocol.limits import AWARDS_ASKED_MAX, RECEIPT_BYTES_MAX
from protocol.messages import Decided, Leads, Progress, Receipts, ReceiptsAck
from protocol.pace import note_begun
from protocol.periodic import Periodic
from protocol.plan import TaskStatus
from protocol.record_keeper import RecordKeeper
from protocol.records import Award, Receipt
from protocol.recruiting import Recruiting
from protocol.replay import absorb
from protocol.signing import Opened, Signed
from protocol.views import Views
from protocol.wire import Role


class Steward:
    """All jobs that this peer looks after."""

    def __init__(
        self,
        context: Context,
        views: Views,
        dissemination: Dissemination,
        keeper: RecordKeeper,
        leadership: Leadership,
    ) -> None:
        self._context = context
        self._views = views
        self._keeper = keeper
        self._leadership = leadership
        self._jobs: dict[bytes, Job] = {}
        self._experience = Experience(context.limits.experience_max)
        self.awarding = Awarding(context, views, self._jobs, self.note, self.advance, self._left_ms)
        self.recruiting = Recruiting(context, views, dissemination, self._jobs, self._experience, self.awarding.assign)
        self.copies = Copies(context, self.note, self.advance, self.awarding.stop_needless, self._witness_of)
        self._watching = Periodic(context, self._watch, self._pace)
        views.on_gone.append(self._on_gone)
        views.relied_on.append(self._relied_on)

    # -- jobs

    @property
    def jobs(self) -> tuple[bytes, ...]:
        return tuple(self._jobs)

    def find(self, digest: bytes) -> Job | None:
        """A job that this peer looks after."""
        return self._jobs.get(digest)

    def full(self) -> str | None:
        if len(self._jobs) >= self._context.limits.running_jobs_max:
            return f"this node already looks after {len(self._jobs)} running jobs"
        return None

    def _urgent_first(self) -> list[Job]:
        return sorted(self._jobs.values(), key=lambda job: -job.record.priority)

    def take_up(self, lead: Lead) -> None:
        """Look after a job from now on: a new one, or one that this or another peer looked after before."""
        context, limits, record = self._context, self._context.limits, lead.record
        if record.final is not None:
            return  # it was handed in here again, and others brought it to its end meanwhile
        job = Job(record, lead.ballot, context.now, limits)
        needless = absorb(context, job, record.facts)
        self._jobs[job.digest] = job
        self._watching.wake()
        if lead.members and (job.awards or lead.ballot.epoch):  # others may have awarded what is not known here
            job.quiet_until = after_ms(context.now, limits.takeover_grace_ms)
            context.after(limits.takeover_grace_ms + 1, lambda: self.advance(job))
        self._ask_workers(job)
        self.awarding.stop_needless(needless)
        self._copy_all(job)
        if not record.facts.cancelled:
            self.recruiting.announce(job)
        self.advance(job)

    def _ask_workers(self, job: Job) -> None:
        """Everybody who ever got an award hears who is steward now, and says what of it is still being worked on."""
        chain = tuple(job.kept.chain.certificates)
        open_awards: dict[PeerId, list[bytes]] = {award.record.worker: [] for award in job.awards.values()}
        for digest, given in job.given.items():
            open_awards[given.award.record.worker].append(digest)
        job.unheard = dict.fromkeys(job.given)
        for worker, awards in open_awards.items():
            asked = tuple(awards[:AWARDS_ASKED_MAX])
            self._context.send(worker, Leads(job=job.digest, ballot=job.ballot, chain=chain, awards=asked))

    def leave(self, record: JobRecord) -> None:
        """Another peer looks after it."""
        job = self._jobs.pop(record.job, None)
        if job is not None:
            job.leave()

    def on_facts(self, record: JobRecord, facts: list[AnyFact]) -> None:
        """Other holders knew more."""
        job = self._jobs.get(record.job)
        if job is not None:
            had_shards = job.plan.shards_known > 0
            self.awarding.stop_needless(absorb(self._context, job, facts))
            self._take_what_waited(job, had_shards)
            self._copy_all(job)
            self.advance(job)

    def _take_what_waited(self, job: Job, had_shards: bool) -> None:
        """Once the split is in: awards and receipts of its shards, which may have come before it."""
        if not had_shards and job.plan.shards_known:
            self.awarding.stop_needless(absorb(self._context, job, job.kept.facts))

    def _copy_all(self, job: Job) -> None:
        for state in job.plan.tasks():
            if state.pin is not None:
                self.copies.make(job, state)

    def note(self, job: Job, fact: AnyFact) -> None:
        """Something that was done about a job: the other holders are to know."""
        lead = self._leadership.find(job.digest)
        if lead is not None:
            self._leadership.learn(lead, fact)

    def _witness_of(self, job: Job) -> PeerId | None:
        """Another holder that was heard of lately, to keep what only this peer has."""
        lead, now = self._leadership.find(job.digest), self._context.now
        for peer, member in lead.members.items() if lead is not None else ():
            lately = after_ms(member.heard_at, self._context.limits.deaf_ms) > now
            if lately and not member.forgetful and peer in self._views:
                return peer
        return None

    def _pace(self) -> int | None:
        return self._context.limits.progress_interval_ms if self._jobs else None

    def _watch(self) -> None:
        """Overdue leases, silent candidates, jobs past their deadline."""
        for job in self._urgent_first():
            self.awarding.end_overdue(job)
            self.recruiting.forget_silent(job)
            self.advance(job)
            lead = self._leadership.find(job.digest)
            if lead is not None:
                lead.idle = bool(job.plan.ready()) and not job.given

    def _relied_on(self) -> Iterator[PeerId]:
        """Who works for a job, and who has what was made for it."""
        for job in self._jobs.values():
            for given in job.given.values():
                yield given.award.record.worker
            for state in job.plan.tasks():
                yield from state.keepers

    def _on_gone(self, peer: PeerId) -> None:
        """A peer is believed dead: what it was running starts elsewhere, what only it had is made again."""
        self.copies.on_gone(peer)
        for job in self._urgent_first():
            job.refusals.pop(peer, None)
            job.candidates.pop(peer, None)
            self.awarding.end_awards_of(job, peer)
            lost = job.plan.drop_keeper(peer)
            for state in lost:
                self._context.notice("info", f"output of {state.task.role} {state.task.index} was lost", job=job.digest)
            if lost:
                self.copies.make_needed(job)
            self.advance(job)

    # -- receipts

    def on_receipts(self, sender: PeerId, message: Receipts) -> None:
        """From a worker, whoever gave it the work; acknowledged only by the steward, who will see the job through."""
        record = self._keeper.find(message.job)
        job = self._jobs.get(message.job)
        if record is None or job is None:
            if record is not None and record.final is None:
                self._keeper.learn_signed(record, message.awards, message.receipts)
            self._keeper.answer_worker(sender, message.job)  # how the job ended, or who looks after it
            return
        for award in message.awards:
            self._admit(job, award)
        contents = {hashlib.sha256(content).digest(): content for content in message.contents}
        acknowledged = []
        for signed in message.receipts:
            if len(signed.payload) > RECEIPT_BYTES_MAX:
                raise RemoteProtocolError(f"a receipt of {len(signed.payload)} bytes")
            receipt = self._context.open(signed, Receipt)
            self._count(job, receipt, contents)
            acknowledged.append(receipt.digest)
        self._context.send(sender, ReceiptsAck(receipts=tuple(acknowledged)))
        self.advance(job)

    def on_progress(self, sender: PeerId, message: Progress) -> None:
        """A worker is at work on an award, perhaps on one that another steward gave it."""
        if message.signed is not None:
            award = self._context.open(message.signed, Award).record
            job = self._jobs.get(award.job)
            if job is None:
                self._keeper.answer_worker(sender, award.job)
                return
            if award.worker == sender:
                self._admit(job, message.signed)
        elif not self.awarding.knows(sender, message.award):
            led_elsewhere = self._led_elsewhere(message.award)
            if led_elsewhere is not None:
                self._keeper.answer_worker(sender, led_elsewhere)
                return
        self.awarding.on_progress(sender, message)

    def _led_elsewhere(self, award: bytes) -> bytes | None:
        """The job of a known award that this peer does not look after now: say, because it has just restarted."""
        for record in self._keeper.records:
            if record.job not in self._jobs and award in record.facts.awards:
                return record.job
        return None

    def _admit(self, job: Job, signed: Signed) -> None:
        """An award that another steward of this job gave, and that this one had not heard of."""
        if signed.digest not in job.awards:
            fact = Gave(award=signed)
            self.note(job, fact)
            if signed.digest in job.kept.facts.awards:
                absorb(self._context, job, (fact,))

    def _count(self, job: Job, receipt: Opened[Receipt], contents: dict[bytes, bytes]) -> None:
        """Count a receipt if it is admissible: its worker is the award's, its task in the award.

        ``contents``: outputs that came with it, by their SHA-256.
        """
        record = receipt.record
        award = job.awards.get(record.award)
        if record.job != job.digest:
            return
        if award is None:
            self.note(job, Counted(receipt=receipt.signed))  # its turn may still come
            return
        if record.worker != award.record.worker or not covers(award.record, record.task):
            raise RemoteProtocolError("a receipt that its award does not cover")
        given = job.given.get(award.digest)
        if given is not None:
            self.awarding.note_at_work(job, given)
            given.worked_at = self._context.now
        had_shards = job.plan.shards_known > 0
        counting = job.count(receipt)
        note_begun(job, record.worker, self._context.now)
        self.note(job, Counted(receipt=receipt.signed))
        self._take_what_waited(job, had_shards)
        if counting is None:
            return
        self._note_pin(job, receipt)
        self.awarding.stop_needless(counting.needless)
        if counting.pinned is not None:
            candidate = job.candidates.get(record.worker)
            if candidate is not None and record.task.role is Role.SHARD:
                candidate.measured(record.transfer_ms + record.run_ms)
                self._experience.learn(candidate.peer, candidate.bid.task_ms, record.run_ms)
            output = counting.pinned.output
            self.copies.make(job, counting.pinned, contents.get(output.sha256) if output is not None else None)

    def _note_pin(self, job: Job, receipt: Opened[Receipt]) -> None:
        """Of several successes of a task, others must know which counts; a single one speaks for itself."""
        record, facts = receipt.record, job.kept.facts
        state = job.plan.find(record.task)
        if not record.success or state is None or state.pin is None or facts.successes_of(record.task) < 2:
            return
        known = facts.pins.get(record.task)
        if known is None or known.receipt != state.pin.digest or known.ballot < job.ballot:
            number = known.number + 1 if known is not None else 0
            pinned = Pinned(task=record.task, receipt=state.pin.digest, ballot=job.ballot, number=number)
            self.note(job, pinned)

    # -- ending

    def advance(self, job: Job) -> None:
        """After anything changed: have the job's end decided if it has come, else award what is ready."""
        if job.left:
            return
        lead = self._leadership.find(job.digest)
        if lead is None:
            return
        if lead.elected:
            job.ballot = lead.ballot  # a higher one, perhaps, or that of other holders
        if job.kept.facts.cancelled:
            self._end(job, lead, JobStatus.CANCELLED, "cancelled by its submitter")
        elif job.plan.final is not None:
            if not job.results_under_way:
                self._end(job, lead, JobStatus.SUCCESS, "")
        elif job.plan.failure:
            self._end(job, lead, JobStatus.FAILED, job.plan.failure)
        elif self._left_ms(job) < -self._context.limits.deadline_margin_ms:
            self._end(job, lead, JobStatus.FAILED, _too_late(job))
        else:
            job.wish = None
            self.awarding.assign(job)

    def _left_ms(self, job: Job) -> int:
        """To the deadline, by the clock of a majority of the job's holders; all of it while that is not known."""
        lead = self._leadership.find(job.digest)
        wall = self._leadership.wall(lead) if lead is not None else None
        return job.record.deadline_ms - (wall - job.record.issued_at if wall is not None else 0)

    def _end(self, job: Job, lead: Lead, status: JobStatus, error: str) -> None:
        """Propose how the job is to end. A failure only once everything that a majority knows is known here."""
        if status is JobStatus.CANCELLED:
            self.awarding.revoke_all(job, error)
        if job.wish is None or job.wish.status != status:
            job.wish = body_of(
                job.digest,
                job.plan,
                status,
                clipped(error),
                me=self._context.me,
                completed_at=self._context.wall,
                clock=self._leadership.wall(lead) or self._context.wall,
            )
        if lead.elected and (status is not JobStatus.FAILED or lead.has_read_a_majority):
            self._leadership.propose_end(lead, job.wish)

    def on_end(self, record: JobRecord) -> None:
        """The job's holders have decided how it ended."""
        job = self._jobs.pop(record.job, None)
        if job is None:
            return
        assert record.final is not None
        chain = tuple(record.chain.certificates)
        for worker in dict.fromkeys(award.record.worker for award in job.awards.values()):
            self._context.send(worker, Decided(job=job.digest, chain=chain, body=record.final))
        job.close(record.final)
        body = record.final
        self._context.notice("info", f"job {body.status}{': ' + body.error if body.error else ''}", job=job.digest)

    def cancel(self, record: JobRecord, signed: Signed) -> None:
        """The submitter's word, which its holders then decide on. Raises RemoteProtocolError if it is not that."""
        fact = Cancelled(cancel=signed)
        lead = self._leadership.find(record.job)
        if lead is None:
            record.learn(fact)
            return
        self._leadership.learn(lead, fact)
        job = self._jobs.get(record.job)
        if job is not None:
            self.advance(job)

    # -- taking in

    def note_accepted(self, lead: Lead, accepted: Accepted) -> None:
        self._leadership.learn(lead, accepted)

    def note_kept(self, lead: Lead, held: Signed) -> None:
        """A peer has signed that it keeps the job's files."""
        fact = Kept(held=held)
        self._leadership.learn(lead, fact)
        job = self._jobs.get(lead.record.job)
        if job is not None:
            absorb(self._context, job, (fact,))


def _too_late(job: Job) -> str:
    plan, limit_s = job.plan, job.record.deadline_ms / 1_000
    done = f"{plan.count(TaskStatus.DONE)} of {plan.shards_known} shards" if plan.shards_known else "nothing"
    return f"the job's deadline of {limit_s:g} s has passed with {done} done"
