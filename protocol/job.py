"""One job at its steward: the spec, the plan, who works on it, and under which awards."""

from __future__ import annotations

from enum import StrEnum

from protocol.candidate import Candidate
from protocol.clock import Instant
from protocol.context import clipped
from protocol.decrees import FinalBody
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.lease import tasks_in
from protocol.limits import TRIES_SHOWN_MAX, Limits
from protocol.plan import Plan, TaskState, TaskStatus, Try, flaw_in
from protocol.records import Announcement, Award, JobSpec, Receipt
from protocol.signing import Opened
from protocol.timers import Timer
from protocol.wire import Ballot, Role, Task


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.CANCELLED)


class Given:
    """An award as its steward keeps it, until all its tasks have ended."""

    __slots__ = ("accepted", "award", "began", "expires_at", "heard_at", "left", "worked_at")

    def __init__(self, award: Opened[Award], now: Instant, expires_at: Instant) -> None:
        self.award = award
        self.left: dict[Task, None] = dict.fromkeys(tasks_in(award.record))
        #: Which of these run, as far as is known, and since when: ``protocol.pace``.
        self.began: dict[Task, Instant] = {}
        self.accepted = False
        #: When its worker last said anything about it.
        self.heard_at = now
        #: When it last ran one of the tasks, by its own word, or finished one.
        self.worked_at = now
        self.expires_at = expires_at


Needless = list[tuple[Given, Task]]
"""Tries of tasks that are done now, each taken from its award."""


class Counting:
    """What a receipt changed: the task it pinned, and other tries of it."""

    __slots__ = ("needless", "pinned")

    def __init__(self, pinned: TaskState | None, needless: Needless) -> None:
        self.pinned = pinned
        self.needless = needless


class Job:
    """State only: what to do about it is the steward's."""

    def __init__(self, kept: JobRecord, ballot: Ballot, now: Instant, limits: Limits) -> None:
        self.kept = kept
        self.spec = kept.spec
        #: Under which its steward acts.
        self.ballot = ballot
        self._limits = limits
        self.plan = Plan(kept.spec.record.stages[0])
        self.status = JobStatus.QUEUED if ballot.epoch == 0 else JobStatus.RUNNING
        #: How it ended, once its holders have decided that.
        self.body: FinalBody | None = None
        #: How it would end, while that is not decided.
        self.wish: FinalBody | None = None
        #: Nobody gets anything before: workers may still hold awards that this steward does not know of.
        self.quiet_until = now
        #: Awards of before this steward's time whose workers have not been heard of.
        self.unheard: dict[bytes, None] = {}
        #: Whether this peer has ceased to look after it.
        self.left = False
        #: Peers that have the job's model and inputs.
        self.holders: dict[PeerId, None] = {}
        self.candidates: dict[PeerId, Candidate] = {}
        self.refusals: dict[PeerId, str] = {}
        #: Every award ever given for the job; the receipts in ``plan`` name them.
        self.awards: dict[bytes, Opened[Award]] = {}
        self.given: dict[bytes, Given] = {}
        self.announcement: Opened[Announcement] | None = None
        #: The latest rounds by digest: answers to these are taken.
        self.announced: dict[bytes, Announcement] = {}
        self.round = 0
        #: Bids that the latest round asks for, and those who have bid for the first time since.
        self.wanted = self.new_bidders = 0
        self.bidding_open = False
        self.asked: set[PeerId] = set()
        self.answered: set[PeerId] = set()
        self.window: Timer | None = None
        self.next_round: Timer | None = None
        self.pause_ms = 0
        #: Second copies of outputs on their way: number to task and CID.
        self.copying: dict[int, tuple[Task, str]] = {}

    @property
    def digest(self) -> bytes:
        return self.spec.digest

    @property
    def record(self) -> JobSpec:
        return self.spec.record

    # -- workers

    def held(self) -> dict[PeerId, int]:
        """How many tasks each worker holds under awards of this job."""
        held: dict[PeerId, int] = {}
        for given in self.given.values():
            worker = given.award.record.worker
            held[worker] = held.get(worker, 0) + len(given.left)
        return held

    def bidders(self, now: Instant) -> list[Candidate]:
        """Who may be given something: all that have bid, and have not just declined or lost a task."""
        return [candidate for candidate in self.candidates.values() if candidate.paused_until <= now]

    def open_tries(self, state: TaskState) -> int:
        """Under how many awards a task is being worked on."""
        return sum(state.task in given.left for given in self.given.values())

    def inputs_to_fetch(self, candidate: Candidate, state: TaskState) -> int:
        """How many of the outputs, or inputs, that a task reads ``candidate`` has not got."""
        plan, peer = self.plan, candidate.peer
        if state is plan.merge:
            return sum(peer not in shard.keepers for shard in plan.shards if shard.pin is not None)
        keepers = self.holders if state is plan.split or plan.split is None else plan.split.keepers
        return int(not candidate.bid.has_inputs and peer not in keepers)

    def sources_for(self, state: TaskState, me: PeerId) -> list[PeerId]:
        """Who has what a task reads, and the model: this steward first, it keeps copies of all."""
        sources: dict[PeerId, None] = {me: None}
        plan = self.plan
        if state is plan.merge:
            for shard in plan.shards:
                sources.update(shard.keepers)
        elif state is not plan.split and plan.split is not None:
            sources.update(plan.split.keepers)
        sources.update(self.holders)
        return list(sources)

    @property
    def results_under_way(self) -> bool:
        """Whether second copies are being made of what the merge, or the submitter, will read."""
        return any(task.role is not Role.SPLIT for task, _ in self.copying.values())

    def heard_of(self, award: bytes, now: Instant) -> None:
        """Once all old awards are accounted for, there is nothing to be quiet for."""
        if self.unheard.pop(award, self) is None and not self.unheard:
            self.quiet_until = min(self.quiet_until, now)

    # -- transitions: each is noted as a fact, from which ``replay`` takes it again

    def give(self, award: Opened[Award], now: Instant, expires_at: Instant) -> Given:
        """Its tasks are under an award."""
        given = Given(award, now, expires_at)
        self.awards[award.digest] = award
        self.given[award.digest] = given
        for task in given.left:
            state = self.plan.find(task)
            if state is not None:
                state.status = TaskStatus.AWARDED if not state.ended else state.status
                state.tries.append(Try(award.digest, award.record.worker, award.record.attempt, award.record.why))
                del state.tries[:-TRIES_SHOWN_MAX]
        return given

    def note_at_work(self, given: Given) -> None:
        """A worker has shown that it took an award."""
        given.accepted = True
        if self.status is JobStatus.QUEUED:
            self.status = JobStatus.RUNNING
        for state, one in self._tries_of(given):
            if one.outcome == "offered" and state.status is TaskStatus.AWARDED:
                one.outcome = "running"

    def end(self, given: Given, outcome: str, reason: str, *, counts: bool) -> None:
        """What is left of an award is ready again."""
        del self.given[given.award.digest]
        for _, one in self._tries_of(given):
            one.outcome, one.reason = outcome, reason
        for task in given.left:
            state = self.plan.find(task)
            if state is not None and state.status is TaskStatus.AWARDED and not self.open_tries(state):
                self.plan.lose_try(state, reason, counts=counts)

    def count(self, receipt: Opened[Receipt]) -> Counting | None:
        """Count a receipt that an award of this job covers; None if that changes nothing."""
        record = receipt.record
        award = self.awards[record.award]
        state = self.plan.find(record.task)
        one = state.try_of(award.digest) if state is not None else None
        if state is None or (one is not None and one.outcome == "failed"):
            return None  # counted already; a success that comes again may count anew, after its output was lost
        given = self.given.get(award.digest)
        was_left = given is not None and record.task in given.left
        if given is not None and was_left:
            self._take_from(given, record.task)
        flaw = flaw_in(record, self.plan.stage)
        if one is not None:
            one.outcome = "success" if flaw is None else "failed"
            one.reason = "" if flaw is None else clipped(flaw)
        pinned = flaw is None and self.plan.succeed(receipt, award.record)
        if pinned:
            return Counting(state, self._free_twins(state))
        if state.status is TaskStatus.AWARDED and self.open_tries(state):
            state.failures += flaw is not None  # and the other try goes on
        elif state.status is TaskStatus.AWARDED:
            if flaw is not None:
                self.plan.fail_try(state, flaw)
            else:
                state.status = TaskStatus.READY  # made from inputs that no longer count
            return Counting(None, [])
        return Counting(None, []) if was_left else None

    def found(self, state: TaskState, keeper: PeerId) -> Needless:
        """``keeper`` has the pinned output of a task. If it was to be made again it need not be."""
        state.keepers[keeper] = None
        if state.ended or state.pin is None or not self.plan.reads_pins(self.awards[state.pin.record.award].record):
            return []
        self.plan.settle(state)
        return self._free_twins(state)

    def _free_twins(self, state: TaskState) -> Needless:
        """Other tries of a task that is done now are waste."""
        needless = [(given, state.task) for given in self.given.values() if state.task in given.left]
        for given, task in needless:
            one = state.try_of(given.award.digest)
            if one is not None:
                one.outcome, one.reason = "revoked", "another try was first"
            self._take_from(given, task)
        return needless

    def _take_from(self, given: Given, task: Task) -> None:
        del given.left[task]
        given.began.pop(task, None)
        if not given.left:
            del self.given[given.award.digest]

    def _tries_of(self, given: Given) -> list[tuple[TaskState, Try]]:
        """The tries of an award's remaining tasks."""
        states = [state for task in given.left if (state := self.plan.find(task)) is not None]
        return [(state, one) for state in states if (one := state.try_of(given.award.digest)) is not None]

    def close(self, body: FinalBody) -> None:
        """The job has ended; nothing changes it any more."""
        self.status, self.body, self.wish = JobStatus(body.status), body, None
        receipts = self.kept.facts.receipts
        known = [one for one in body.entries if one.receipt is None or one.receipt in receipts]
        counted = {one.task: receipts[one.receipt] if one.receipt is not None else None for one in known}
        self.plan.close(counted, body.total_shards)
        for state in self.plan.tasks():
            for one in state.tries:
                if one.is_open:
                    one.outcome, one.reason = "revoked", "the job has ended"
        self.leave()

    def leave(self) -> None:
        """This peer looks after it no more."""
        self.left = True
        for timer in (self.window, self.next_round):
            if timer is not None:
                timer.cancel()
        self.given.clear()
        self.candidates.clear()
