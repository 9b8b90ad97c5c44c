"""One job at its steward: the spec, the plan, who works on it, and under which awards."""

from __future__ import annotations

from enum import StrEnum

from protocol import auction
from protocol.clock import Instant
from protocol.codec import encode
from protocol.context import clipped
from protocol.identity import PeerId
from protocol.lease import tasks_in
from protocol.limits import (
    DETAILS_BYTES_MAX,
    REASON_CHARS_SHOWN_MAX,
    RECEIPTS_PER_MESSAGE_MAX,
    TRIES_SHOWN_MAX,
    Limits,
)
from protocol.messages import Bid, JobView, RefusalView, TaskView
from protocol.plan import Plan, TaskState, TaskStatus
from protocol.records import Announcement, Award, JobSpec
from protocol.signing import Opened, Signed
from protocol.timers import Timer
from protocol.wire import Output, Task


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

    __slots__ = ("accepted", "award", "expires_at", "heard_at", "left")

    def __init__(self, award: Opened[Award], now: Instant, expires_at: Instant) -> None:
        self.award = award
        self.left: dict[Task, None] = dict.fromkeys(tasks_in(award.record))
        self.accepted = False
        #: When its worker last said anything about it.
        self.heard_at = now
        self.expires_at = expires_at


class Candidate:
    """A peer that has bid for this job, and what its bid turned out to be worth."""

    __slots__ = ("bid", "heard_at", "paused_until", "peer", "run_ms")

    def __init__(self, peer: PeerId, bid: Bid, now: Instant) -> None:
        self.peer = peer
        self.bid = bid
        self.heard_at = now
        self.paused_until = now
        #: Duration of one task as measured (moving average); 0 until a receipt came.
        self.run_ms = 0

    def measured(self, run_ms: int) -> None:
        self.run_ms = run_ms if self.run_ms == 0 else (3 * self.run_ms + run_ms) // 4

    def task_ms(self, typical_ms: int) -> int:
        """Duration of one task: as measured, else as bid, else as tasks usually last."""
        return self.run_ms or self.bid.task_ms or typical_ms


class Job:
    """State only: what to do about it is the steward's."""

    def __init__(self, spec: Opened[JobSpec], now: Instant, limits: Limits) -> None:
        self.spec = spec
        self._limits = limits
        self.plan = Plan(spec.record.stages[0])
        self.status = JobStatus.QUEUED
        self.error = ""
        self.completed_at = 0
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
        self.bidding_open = False
        self.asked: set[PeerId] = set()
        self.answered: set[PeerId] = set()
        self.window: Timer | None = None
        self.next_round: Timer | None = None
        self.pause_ms = 0
        #: Copies of outputs on their way to the steward: fetch number to task and CID.
        self.copying: dict[int, tuple[Task, str]] = {}
        self.created = now

    @property
    def digest(self) -> bytes:
        return self.spec.digest

    @property
    def record(self) -> JobSpec:
        return self.spec.record

    # -- workers

    def outstanding(self, peer: PeerId) -> int:
        """Tasks that ``peer`` holds under awards of this job."""
        return sum(len(given.left) for given in self.given.values() if given.award.record.worker == peer)

    def available(self, now: Instant) -> list[Candidate]:
        """Who could take more: it works off one task per slot and has at most as many waiting."""
        return [
            candidate
            for candidate in self.candidates.values()
            if candidate.paused_until <= now and self.outstanding(candidate.peer) < 2 * candidate.bid.slots
        ]

    def completion_ms(self, candidate: Candidate, state: TaskState) -> int:
        """When ``candidate`` would be through with one more task, as far as this steward can tell."""
        bid = candidate.bid
        outstanding = self.outstanding(candidate.peer)
        start_in_ms = bid.start_in_ms if outstanding == 0 and candidate.run_ms == 0 else 0
        has_inputs = bid.has_inputs or self._keeps_inputs(candidate.peer, state)
        fetch_ms = 0 if bid.warm or candidate.run_ms else self._limits.cold_start_ms
        fetch_ms += 0 if has_inputs else self._limits.fetch_input_ms
        task_ms = candidate.task_ms(self._limits.typical_task_ms)
        return auction.expected_completion_ms(start_in_ms, task_ms, outstanding + 1, bid.slots, fetch_ms)

    def _keeps_inputs(self, peer: PeerId, state: TaskState) -> bool:
        plan = self.plan
        if state is plan.split or plan.split is None:
            return peer in self.holders
        if state is plan.merge:
            return all(peer in shard.keepers for shard in plan.shards if shard.pin is not None)
        return peer in plan.split.keepers

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

    # -- views

    @property
    def output(self) -> Output | None:
        return self.plan.final.output if self.plan.final is not None else None

    @property
    def merge_status(self) -> str:
        if not self.plan.stage.merge or self.plan.stage.merge == "none":
            return "none"
        merge = self.plan.merge
        if merge is not None and merge.status is TaskStatus.DONE:
            return "success"
        return "failed" if self.status in (JobStatus.FAILED, JobStatus.CANCELLED) else "pending"

    def view(self, refusals: dict[PeerId, str], limit: int) -> JobView:
        """The job in one message. ``refusals`` are peers' reasons; at most ``limit`` are shown."""
        plan, record = self.plan, self.record
        waiting = self._waiting(refusals)
        output = self.output if self.status is JobStatus.SUCCESS else None
        final = plan.final
        return JobView(
            job=self.digest,
            alias=record.alias,
            submitter=record.submitter,
            steward=record.steward,
            model=plan.stage.model,
            status=self.status,
            merge_status=self.merge_status,
            total_shards=plan.shards_known,
            succeeded=plan.count(TaskStatus.DONE),
            failed=plan.count(TaskStatus.FAILED),
            running=plan.count(TaskStatus.AWARDED),
            output=output,
            error=self.error,
            issued_at=record.issued_at,
            completed_at=self.completed_at,
            waiting=waiting,
            refusals=tuple(
                RefusalView(peer=peer, reason=clipped(reason, REASON_CHARS_SHOWN_MAX))
                for peer, reason in list(refusals.items())[:limit]
            )
            if waiting
            else (),
            keepers=tuple(final.keepers)[:8] if final is not None and output is not None else (),
        )

    def _waiting(self, refusals: dict[PeerId, str]) -> str:
        if self.status.ended or self.given or not self.plan.ready():
            return ""
        if self.candidates:
            return "waiting for a peer that has bid to take the next task"
        if refusals:
            return f"no peer can run it: {len(refusals)} of {len(refusals)} peers heard from refuse"
        return "waiting for bids"

    def details(self, start: int) -> tuple[tuple[TaskView, ...], tuple[Signed, ...], int]:
        """Tasks from ``start`` on, the awards that their receipts name, and where to go on (0: these are the last).

        As many as fit ``DETAILS_BYTES_MAX``, at least one.
        """
        states = self.plan.tasks()
        views: list[TaskView] = []
        awards: dict[bytes, Signed] = {}
        size = 0
        for state in states[start : start + RECEIPTS_PER_MESSAGE_MAX]:
            pin = state.pin if state.status is TaskStatus.DONE else None
            view = TaskView(
                task=state.task,
                status=self._status_of(state),
                tries=tuple(one.view() for one in state.tries[-TRIES_SHOWN_MAX:]),
                receipt=pin.signed if pin is not None else None,
            )
            size += len(encode(view))
            if pin is not None and pin.record.award not in awards:
                award = self.awards[pin.record.award].signed
                size += len(award.payload)
                if size <= DETAILS_BYTES_MAX or not views:
                    awards[award.digest] = award
            if size > DETAILS_BYTES_MAX and views:
                break
            views.append(view)
        following = start + len(views)
        return tuple(views), tuple(awards.values()), following if following < len(states) else 0

    def _status_of(self, state: TaskState) -> str:
        match state.status:
            case TaskStatus.AWARDED:
                return "running"
            case TaskStatus.DONE | TaskStatus.FAILED:
                return state.status
            case _:
                return "cancelled" if self.status.ended else "queued"
