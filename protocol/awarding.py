"""Awarding tasks: who gets which, as leases that end when they run out or their worker falls silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protocol.allotting import Allotment, alike, allot
from protocol.clock import after_ms
from protocol.context import Context, clipped
from protocol.facts import AnyFact, Ended, Gave
from protocol.identity import PeerId
from protocol.job import Given, Job, Needless
from protocol.lease import ranges_of
from protocol.messages import Offer, OfferAccepted, OfferDeclined, Progress, Returned, Revoke
from protocol.pace import note_begun, note_running
from protocol.plan import TaskStatus
from protocol.records import Award
from protocol.stragglers import second_tries
from protocol.views import Views
from protocol.wire import Role


class Awarding:
    """The open awards of one steward's jobs.

    ``advance`` is told of a job when one of its awards ends; ``left_ms`` tells how long it is to a job's deadline.
    """

    def __init__(
        self,
        context: Context,
        views: Views,
        jobs: Mapping[bytes, Job],
        note: Callable[[Job, AnyFact], None],
        advance: Callable[[Job], None],
        left_ms: Callable[[Job], int],
    ) -> None:
        self._context = context
        self._note = note
        self._views = views
        self._jobs = jobs
        self._advance = advance
        self._left_ms = left_ms

    def assign(self, job: Job) -> None:
        """Award what is ready to those who would be through with it first; what nobody is quick with, twice."""
        now, limits = self._context.now, self._context.limits
        if job.left or job.wish is not None or job.bidding_open or job.quiet_until > now or job.announcement is None:
            return
        ready = job.plan.ready()
        if self._too_late(job):
            return
        for states in alike(ready):
            if states[0].task.role is Role.MERGE and job.results_under_way:
                continue  # the merge reads copies that are still on their way
            for allotment in allot(job, states, now, limits):
                self._award(job, allotment)
        if not ready:
            for allotment in second_tries(job, now, limits):
                self._award(job, allotment)

    def _too_late(self, job: Job) -> bool:
        """Whether nobody could be done with another task before the job's deadline."""
        shards_wait = any(state.status is TaskStatus.READY for state in job.plan.shards)
        fastest_ms = min((one.run_ms for one in job.candidates.values() if one.run_ms), default=0)
        return self._left_ms(job) <= (fastest_ms if shards_wait else 0)

    def _award(self, job: Job, allotment: Allotment) -> None:
        context, limits, plan = self._context, self._context.limits, job.plan
        candidate, states, why = allotment
        role = states[0].task.role
        split = plan.split if role is Role.SHARD else None
        rounds = -(-len(states) // candidate.bid.slots)
        lease_ms = rounds * plan.timeout_ms(role) + limits.lease_slack_ms
        lease_ms = min(lease_ms, self._left_ms(job) + limits.deadline_margin_ms)
        award = context.sign(
            Award(
                job=job.digest,
                holders=job.kept.chain.current.holders,
                steward=context.me,
                ballot=job.ballot,
                worker=candidate.peer,
                stage=0,
                role=role,
                ranges=ranges_of([state.task.index for state in states]),
                attempt=states[0].next_attempt,
                shards=plan.shards_known if role is not Role.SPLIT else 0,
                split=split.output if split is not None else None,
                split_receipt=split.pin.digest if split is not None and split.pin is not None else None,
                parts=plan.parts() if role is Role.MERGE else (),
                price=candidate.bid.price,
                why=clipped(why),
                lease_ms=lease_ms,
                nonce=context.new_id(),
                issued_at=context.wall,
                not_after=context.wall + lease_ms,
            )
        )
        given = job.give(award, context.now, after_ms(context.now, lease_ms))
        self._note(job, Gave(award=award.signed))
        note_begun(job, candidate.peer, context.now)
        self._trim(job)
        sources = job.sources_for(states[0], context.me)[:16]
        records = [self._views.record_of(peer) for peer in sources]
        offer = Offer(
            award=award.signed,
            spec=job.spec.signed,
            chain=tuple(job.kept.chain.certificates),
            sources=tuple(sources),
            records=tuple(opened.signed for opened in records if opened is not None),
        )
        context.after(limits.offer_timeout_ms, lambda: self._offer_unanswered(job, given))
        context.send(candidate.peer, offer)

    def _trim(self, job: Job) -> None:
        """Late receipts name old awards; one that the facts no longer have is none any more."""
        known = job.kept.facts.awards
        for digest in [digest for digest in job.awards if digest not in known and digest not in job.given]:
            del job.awards[digest]

    def _given(self, sender: PeerId, award: bytes) -> tuple[Job, Given] | None:
        """An open award of this steward to ``sender``."""
        for job in self._jobs.values():
            given = job.given.get(award)
            if given is not None and given.award.record.worker == sender:
                return job, given
        return None

    def knows(self, worker: PeerId, award: bytes) -> bool:
        """Whether ``worker`` holds this open award of a job that is looked after here."""
        return self._given(worker, award) is not None

    def _offer_unanswered(self, job: Job, given: Given) -> None:
        if not given.accepted and given.award.digest in job.given:
            self._context.send(given.award.record.worker, Revoke(award=given.award.digest, reason="no answer in time"))
            self.end_award(job, given, "lost", "the offer was not answered", counts=True)

    def on_offer_accepted(self, sender: PeerId, message: OfferAccepted) -> None:
        found = self._given(sender, message.award)
        if found is not None:
            self.note_at_work(*found)

    def on_offer_declined(self, sender: PeerId, message: OfferDeclined) -> None:
        found = self._given(sender, message.award)
        if found is not None:
            job, given = found
            job.refusals[sender] = message.reason
            self.end_award(job, given, "declined", message.reason, counts=False)

    def on_returned(self, sender: PeerId, message: Returned) -> None:
        found = self._given(sender, message.award)
        if found is not None:
            job, given = found
            if message.unread:  # others would not fare better, until who has it is back
                pause_ms = self._context.limits.worker_pause_ms
                job.quiet_until = max(job.quiet_until, after_ms(self._context.now, pause_ms))
                self._context.after(pause_ms + 1, lambda: self.assign(job))
            self.end_award(job, given, "lost", message.reason, counts=not message.unread)
        self._context.send(sender, Revoke(award=message.award, reason="returned"))

    def on_progress(self, sender: PeerId, message: Progress) -> None:
        found = self._given(sender, message.award)
        if found is None:
            self._context.send(sender, Revoke(award=message.award, reason="not an open award"))
        else:
            job, given = found
            self.note_at_work(job, given)
            note_running(given, message.running, self._context.now)
            if message.running:
                given.worked_at = self._context.now

    def note_at_work(self, job: Job, given: Given) -> None:
        """Its worker has said something that shows it took the award."""
        given.heard_at = self._context.now
        job.heard_of(given.award.digest, self._context.now)
        candidate = job.candidates.get(given.award.record.worker)
        if candidate is not None:
            candidate.heard_at = self._context.now
        if not given.accepted:
            job.note_at_work(given)

    def end_award(self, job: Job, given: Given, outcome: str, reason: str, *, counts: bool) -> None:
        """What is left of an award goes back to the ready tasks; its worker pauses."""
        if given.award.digest not in job.given:
            return
        job.end(given, outcome, clipped(reason), counts=counts)
        note_begun(job, given.award.record.worker, self._context.now)
        job.heard_of(given.award.digest, self._context.now)
        self._note(job, Ended(award=given.award.digest, outcome=outcome, reason=clipped(reason), counts=counts))
        candidate = job.candidates.get(given.award.record.worker)
        if candidate is not None:
            candidate.paused_until = after_ms(self._context.now, self._context.limits.worker_pause_ms)
            self._context.after(self._context.limits.worker_pause_ms + 1, lambda: self.assign(job))
        self._advance(job)

    def end_overdue(self, job: Job) -> None:
        """End leases that ran out, those of workers that fell silent, and of those that won and do nothing."""
        limits, now = self._context.limits, self._context.now
        for given in list(job.given.values()):
            if after_ms(given.heard_at, limits.progress_timeout_ms) <= now:
                self._end_overdue(job, given, "lost", "nothing heard of it", counts=True)
            elif given.expires_at <= now:
                self._end_overdue(job, given, "expired", "the lease ran out", counts=True)
            elif after_ms(given.worked_at, limits.idle_winner_ms) <= now and self._others_free(job, given):
                self._end_overdue(job, given, "lost", "its worker does nothing about it", counts=False)

    def _end_overdue(self, job: Job, given: Given, outcome: str, reason: str, *, counts: bool) -> None:
        self._context.send(given.award.record.worker, Revoke(award=given.award.digest, reason=reason))
        self.end_award(job, given, outcome, reason, counts=counts)

    def _others_free(self, job: Job, given: Given) -> bool:
        """Whether somebody else could take the tasks: a worker that is merely busy keeps them otherwise."""
        held = job.held()
        return any(
            one.peer != given.award.record.worker and held.get(one.peer, 0) < 2 * one.bid.slots
            for one in job.bidders(self._context.now)
        )

    def end_awards_of(self, job: Job, worker: PeerId) -> None:
        """A worker is gone."""
        for given in [one for one in job.given.values() if one.award.record.worker == worker]:
            self.end_award(job, given, "lost", "the worker is gone", counts=True)

    def revoke_all(self, job: Job, reason: str) -> None:
        """Nothing of the job shall run any more."""
        for given in list(job.given.values()):
            self._context.send(given.award.record.worker, Revoke(award=given.award.digest, reason=reason))
            job.end(given, "revoked", reason, counts=False)
            self._note(job, Ended(award=given.award.digest, outcome="revoked", reason=clipped(reason), counts=False))

    def stop_needless(self, needless: Needless) -> None:
        """Tries of tasks that are done; an award of which nothing is left ends with them."""
        for given, task in needless:
            ranges = ranges_of([task.index]) if given.left else ()
            revoke = Revoke(award=given.award.digest, reason="another try was first", ranges=ranges)
            self._context.send(given.award.record.worker, revoke)
