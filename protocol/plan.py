"""The tasks of a job and how far they are: what is ready, what counts, what must run again.

One stage for now: an optional split, the shards, an optional merge. A task that succeeded is *pinned* to one receipt
whose inputs are the pinned outputs of the tasks before it; when the last copy of a pinned output that is still needed
is lost, the task is unpinned and runs again (``docs/specs/auction.md``, "Counting").
"""

from __future__ import annotations

from enum import StrEnum

from protocol.batches import shards_per_task, task_count
from protocol.context import clipped
from protocol.identity import PeerId
from protocol.limits import REASON_CHARS_SHOWN_MAX
from protocol.messages import TryView
from protocol.records import Award, Part, Receipt, StageSpec
from protocol.signing import Opened
from protocol.wire import Output, Role, Task


class TaskStatus(StrEnum):
    WAITING = "waiting"
    """For a task before it."""
    READY = "ready"
    AWARDED = "awarded"
    DONE = "success"
    FAILED = "failed"


class Try:
    """One execution of a task under one award; outcomes as in ``TryView``."""

    __slots__ = ("attempt", "award", "outcome", "reason", "why", "worker")

    def __init__(self, award: bytes, worker: PeerId, attempt: int, why: str = "") -> None:
        self.award = award
        self.worker = worker
        self.attempt = attempt
        self.outcome = "offered"
        self.reason = ""
        self.why = why

    @property
    def is_open(self) -> bool:
        return self.outcome in ("offered", "running")

    def view(self) -> TryView:
        return TryView(
            worker=self.worker,
            attempt=self.attempt,
            award=self.award,
            outcome=self.outcome,
            reason=clipped(self.reason, REASON_CHARS_SHOWN_MAX),
            why=clipped(self.why, REASON_CHARS_SHOWN_MAX),
        )


class TaskState:
    """One task: its status, its tries, and its pin if it has one."""

    __slots__ = ("failures", "keepers", "losses", "pin", "status", "task", "tries")

    def __init__(self, task: Task, status: TaskStatus) -> None:
        self.task = task
        self.status = status
        self.tries: list[Try] = []
        #: Signed failures, and tries that ended without a receipt.
        self.failures = 0
        self.losses = 0
        self.pin: Opened[Receipt] | None = None
        #: Who has the pinned output; nobody while the task runs again to replace a lost one.
        self.keepers: dict[PeerId, None] = {}

    @property
    def output(self) -> Output | None:
        return self.pin.record.output if self.pin is not None else None

    @property
    def ended(self) -> bool:
        return self.status in (TaskStatus.DONE, TaskStatus.FAILED)

    @property
    def next_attempt(self) -> int:
        """The number that the next try goes by."""
        return self.tries[-1].attempt + 1 if self.tries else 1

    def try_of(self, award: bytes) -> Try | None:
        return next((one for one in self.tries if one.award == award), None)


def flaw_in(receipt: Receipt, stage: StageSpec) -> str | None:
    """Why a try failed, by its receipt: its own word, or a success that cannot be one. None if it succeeded."""
    if not receipt.success:
        return receipt.error or "failed without a reason"
    if receipt.output is None:
        return "a success without an output"
    if receipt.task.role is Role.SPLIT and not 1 <= receipt.shards <= stage.max_shards:
        return f"split into {receipt.shards} shards where 1 to {stage.max_shards} are allowed"
    return None


class Plan:
    """The tasks of one stage."""

    def __init__(self, stage: StageSpec, stage_index: int = 0) -> None:
        self.stage = stage
        self._stage_index = stage_index
        self.split = TaskState(self._task(Role.SPLIT), TaskStatus.READY) if stage.split else None
        #: The tasks that run shards, one or several each: ``protocol.batches``.
        self.shards: list[TaskState] = []
        #: How many shards there are; 0 until the split is done.
        self.shards_known = 0
        self.merge = TaskState(self._task(Role.MERGE), TaskStatus.WAITING) if stage.merge else None
        #: One sentence once the job cannot succeed any more.
        self.failure = ""
        if self.split is None:
            self._create_shards(1)

    def _task(self, role: Role, index: int = 0) -> Task:
        return Task(stage=self._stage_index, role=role, index=index)

    def _create_shards(self, count: int) -> None:
        self.shards_known = count
        self.shards = [TaskState(self._task(Role.SHARD, index), TaskStatus.READY) for index in range(task_count(count))]

    # -- reading

    def tasks(self) -> list[TaskState]:
        """All tasks that exist so far: split, shards in order, merge."""
        return [state for state in (self.split, *self.shards, self.merge) if state is not None]

    def find(self, task: Task) -> TaskState | None:
        if task.stage != self._stage_index:
            return None
        match task.role:
            case Role.SPLIT:
                return self.split
            case Role.MERGE:
                return self.merge
            case Role.SHARD:
                return self.shards[task.index] if task.index < len(self.shards) else None

    def ready(self) -> list[TaskState]:
        """What can be awarded now; while a lost split runs again, its shards wait for it."""
        split_done = self.split is None or self.split.status is TaskStatus.DONE
        return [
            state
            for state in self.tasks()
            if state.status is TaskStatus.READY and (split_done or state.task.role is not Role.SHARD)
        ]

    def count(self, status: TaskStatus) -> int:
        """Shards, not split and merge, in a status."""
        tasks = sum([state.status is status for state in self.shards])
        if not tasks:
            return 0
        size = shards_per_task(self.shards_known)
        missing = len(self.shards) * size - self.shards_known  # in the last task, which may be smaller
        return tasks * size - (missing if self.shards[-1].status is status else 0)

    def timeout_ms(self, role: Role) -> int:
        """How long one task of a role may run: each of its shards as long as the stage says."""
        return self.stage.timeout_ms * (shards_per_task(self.shards_known) if role is Role.SHARD else 1)

    @property
    def final(self) -> TaskState | None:
        """The task whose output is the job's, once it is done."""
        last = self.merge if self.merge is not None else next(iter(self.shards), None)
        return last if last is not None and last.status is TaskStatus.DONE else None

    def parts(self) -> tuple[Part, ...]:
        """What a merge reads now."""
        return tuple(
            Part(
                index=state.task.index,
                output=state.output,
                receipt=state.pin.digest if state.pin is not None else None,
            )
            for state in self.shards
        )

    def still_needed(self, state: TaskState) -> bool:
        """Whether somebody will read this task's output."""
        if state is self.split:
            return any(not shard.ended for shard in self.shards)
        if self.merge is not None and state is not self.merge:
            return self.merge.status is not TaskStatus.DONE
        return True

    def reads_pins(self, award: Award) -> bool:
        """Whether an award's inputs are the outputs that are pinned now."""
        match award.role:
            case Role.SPLIT:
                return True
            case Role.SHARD:
                pinned = self.split.output if self.split is not None else None
                return _same(award.split, pinned)
            case Role.MERGE:
                parts = self.parts()
                return len(parts) == len(award.parts) and all(
                    mine.index == theirs.index and _same(mine.output, theirs.output)
                    for mine, theirs in zip(parts, award.parts, strict=True)
                )

    # -- changing

    def succeed(self, receipt: Opened[Receipt], award: Award) -> bool:
        """Pin a success; False if it does not count: its task has ended, or it is over other inputs.

        A lost output that was made again with the same hash keeps the receipt it had: those who read it name that
        one. A success that cannot be one is a failure of the try: see ``flaw_in``.
        """
        state = self.find(receipt.record.task)
        if state is not None and state.status is TaskStatus.DONE and _same(state.output, receipt.record.output):
            state.keepers[receipt.record.worker] = None  # a second try made the same
        if state is None or state.ended or not self.reads_pins(award):
            return False
        state.status = TaskStatus.DONE
        state.keepers = {receipt.record.worker: None}
        if not _same(state.output, receipt.record.output):
            state.pin = receipt
            if state is self.split:
                self._take_split(receipt.record)
        if state is self.merge:
            self._settle_what_was_read()
        self._update_merge()
        return True

    def fail_try(self, state: TaskState, reason: str) -> None:
        """A signed failure: the task is tried again until its attempts are used up."""
        state.failures += 1
        if not state.ended and state.failures >= self.stage.attempts:
            self._fail(state, reason)
        elif not state.ended:
            state.status = TaskStatus.READY

    def lose_try(self, state: TaskState, reason: str, *, counts: bool) -> None:
        """A try ended without a receipt; ``counts`` unless it never began."""
        state.losses += counts
        if not state.ended and state.losses >= self.stage.max_lost:
            self._fail(state, f"lost {state.losses} times, at last: {reason}")
        elif not state.ended:
            state.status = TaskStatus.READY

    def drop_keeper(self, peer: PeerId) -> list[TaskState]:
        """``peer`` no longer has any output; returns the tasks that must run again for it."""
        lost = []
        for state in self.tasks():
            if state.keepers.pop(peer, self) is None and not state.keepers and self.still_needed(state):
                lost.append(state)
        for state in lost:
            self.lose_output(state)
        return lost

    def lose_output(self, state: TaskState) -> None:
        """Nobody has a pinned output any more: the task runs again, and so does what it reads if that is lost too."""
        lost = [state]
        if state is self.merge:
            lost += [shard for shard in self.shards if shard.status is TaskStatus.DONE and not shard.keepers]
        reads_split = any(one.task.role is Role.SHARD for one in lost)
        if reads_split and self.split is not None and self.split.status is TaskStatus.DONE and not self.split.keepers:
            lost.append(self.split)
        for one in lost:
            one.keepers = {}
            one.status = TaskStatus.READY
            self.lose_try(one, "nobody has its output any more", counts=True)
        self._update_merge()

    def settle(self, state: TaskState) -> None:
        """A lost output was found again: its task counts as before."""
        state.status = TaskStatus.DONE
        self._update_merge()

    def close(self, counted: dict[Task, Opened[Receipt] | None], shards: int) -> None:
        """The job has ended: these receipts count, a task with none has failed, and all else never came to an end."""
        if self.shards_known != shards:
            self._create_shards(shards)
        for state in self.tasks():
            if state.task in counted:
                state.pin = counted[state.task]
                state.status = TaskStatus.DONE if state.pin is not None else TaskStatus.FAILED
            else:
                state.pin = None
                state.status = TaskStatus.WAITING

    def _settle_what_was_read(self) -> None:
        """What the merge read counts, also what was just being made again because its output was lost."""
        for state in self.tasks():
            if state.pin is not None:
                state.status = TaskStatus.DONE

    def _take_split(self, receipt: Receipt) -> None:
        """The shards of a new split; one that ran again and made something else voids those of the old one."""
        if self.shards_known != receipt.shards:
            self._create_shards(receipt.shards)
        else:
            for state in self.shards:
                state.pin = None
                state.keepers = {}
                state.status = TaskStatus.READY

    def _fail(self, state: TaskState, reason: str) -> None:
        state.status = TaskStatus.FAILED
        state.pin = None
        state.keepers = {}
        role = state.task.role
        if role is not Role.SHARD:
            self.failure = f"{role} failed: {reason}"
        elif self.count(TaskStatus.FAILED) > self.stage.allow_failures:
            self.failure = f"shard {state.task.index} failed: {reason}"
        self._update_merge()

    def _update_merge(self) -> None:
        """A merge is ready when every shard has ended, and waits again when one of them was unpinned."""
        if self.merge is None or self.merge.ended:
            return
        complete = bool(self.shards) and all(state.ended for state in self.shards)
        if complete and self.merge.status is TaskStatus.WAITING:
            self.merge.status = TaskStatus.READY
        elif not complete:
            self.merge.status = TaskStatus.WAITING


def _same(one: Output | None, other: Output | None) -> bool:
    return (one is None) == (other is None) and (one is None or other is None or one.sha256 == other.sha256)
