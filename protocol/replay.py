"""A job made again from its facts: by a steward that has restarted, by one that takes over, or to show how it ended.

Facts come in the order in which this holder learnt them, which need not be the one in which things happened: what
rests on a fact that is still to come waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.clock import after_ms
from protocol.context import Context
from protocol.facts import AnyFact, Copied, Counted, Ended, Gave, Kept
from protocol.job import Job, JobStatus, Needless
from protocol.job_record import JobRecord
from protocol.plan import TaskStatus
from protocol.records import Award, Receipt
from protocol.signing import Opened
from protocol.wire import Ballot, Role


def rebuild(context: Context, kept: JobRecord, ballot: Ballot) -> Job:
    """The job as far as this holder's facts tell; ended if its holders have decided so."""
    job = Job(kept, ballot, context.now, context.limits)
    absorb(context, job, kept.facts)
    if kept.final is not None:
        job.close(kept.final)
    return job


def absorb(context: Context, job: Job, facts: Iterable[AnyFact]) -> Needless:
    """Take facts in, as if this peer had been there; returns the tries that are needless now."""
    needless: Needless = []
    waiting = list(facts)
    while waiting:
        still = [fact for fact in waiting if not _take(context, job, fact, needless)]
        if len(still) == len(waiting):
            break
        waiting = still
    return needless


def _take(context: Context, job: Job, fact: AnyFact, needless: Needless) -> bool:
    """False if it has to wait for another one."""
    facts = job.kept.facts
    match fact:
        case Gave(award=signed):
            return _take_award(context, job, facts.awards[signed.digest])
        case Ended():
            given = job.given.get(fact.award)
            if given is not None:
                job.end(given, fact.outcome, fact.reason, counts=fact.counts)
            return fact.award in job.awards
        case Counted(receipt=signed):
            return _take_receipt(job, facts.receipts[signed.digest], needless)
        case Copied():
            return _take_copy(job, fact, needless)
        case Kept(held=signed):
            job.holders.update(dict.fromkeys(facts.held))
    return True


def _take_award(context: Context, job: Job, award: Opened[Award]) -> bool:
    record, plan = award.record, job.plan
    if award.digest in job.awards:
        return True
    if record.role is Role.SHARD and plan.split is not None and plan.split.pin is None:
        return False
    if record.role is Role.MERGE and plan.merge is not None and plan.merge.status is TaskStatus.WAITING:
        return False
    if not plan.reads_pins(record) or (record.role is Role.SHARD and record.shards != plan.shards_known):
        job.awards[award.digest] = award  # of inputs that no longer count
        return True
    left_ms = max(0, record.not_after - context.wall)
    given = job.give(award, context.now, after_ms(context.now, left_ms))
    job.note_at_work(given)  # it may be: its worker is heard of, or the lease is lost, soon enough
    return True


def _take_receipt(job: Job, receipt: Opened[Receipt], needless: Needless) -> bool:
    record, facts = receipt.record, job.kept.facts
    if record.award not in job.awards:
        return False
    pinned = facts.pins.get(record.task)
    state = job.plan.find(record.task)
    other_counts = pinned is not None and pinned.receipt in facts.receipts and pinned.receipt != receipt.digest
    if other_counts and record.success and state is not None and state.pin is None:
        return False  # its turn comes once the one that counts is in
    counting = job.count(receipt)
    if counting is not None:
        needless += counting.needless
    return True


def _take_copy(job: Job, fact: Copied, needless: Needless) -> bool:
    receipt = job.kept.facts.receipts[fact.receipt]
    state = job.plan.find(receipt.record.task)
    if state is None or state.pin is None:
        return False
    if state.pin.digest == fact.receipt:
        needless += job.found(state, fact.peer)
    return True


def view_of(context: Context, kept: JobRecord) -> Job:
    """The job as a holder sees it that does not look after it."""
    job = rebuild(context, kept, kept.leader or kept.promised)
    if job.status is JobStatus.QUEUED and job.awards:
        job.status = JobStatus.RUNNING
    return job
