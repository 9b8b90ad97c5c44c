"""A lease as its worker keeps it: which tasks of one award wait, run, or are done."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from protocol.batches import task_count
from protocol.clock import Instant
from protocol.identity import PeerId
from protocol.records import Award, JobSpec, StageSpec
from protocol.signing import Opened
from protocol.wire import Range, Role, Task

WHOLE = (Range(start=0, stop=1),)
"""The ranges of a split or a merge: its one task."""


def tasks_in(award: Award) -> list[Task]:
    """The tasks an award names, in order."""
    return [
        Task(stage=award.stage, role=award.role, index=index)
        for span in award.ranges
        for index in range(span.start, span.stop)
    ]


def covers(award: Award, task: Task) -> bool:
    """Whether an award names a task."""
    return (
        award.stage == task.stage
        and award.role == task.role
        and any(span.start <= task.index < span.stop for span in award.ranges)
    )


def ranges_of(indexes: list[int]) -> tuple[Range, ...]:
    """Ascending indexes as the fewest ranges."""
    ranges: list[Range] = []
    for index in indexes:
        if ranges and ranges[-1].stop == index:
            ranges[-1] = Range(start=ranges[-1].start, stop=index + 1)
        else:
            ranges.append(Range(start=index, stop=index + 1))
    return tuple(ranges)


def well_formed(award: Award, stage: StageSpec) -> bool:
    """Whether an award's tasks exist in its stage, are ascending, and come with what they read."""
    ranges = award.ranges
    if any(span.start >= span.stop for span in ranges):
        return False
    if any(before.stop > after.start for before, after in pairwise(ranges)):
        return False
    match award.role:
        case Role.SPLIT:
            return ranges == WHOLE and bool(stage.split)
        case Role.MERGE:
            return ranges == WHOLE and bool(stage.merge) and len(award.parts) == task_count(award.shards)
        case Role.SHARD:
            exist = ranges[-1].stop <= task_count(award.shards) and award.shards <= stage.max_shards
            return exist and bool(stage.split) == (award.split is not None)


class Lease:
    """One accepted award at its worker."""

    def __init__(
        self,
        award: Opened[Award],
        spec: Opened[JobSpec],
        sources: tuple[PeerId, ...],
        tasks: list[Task],
        now: Instant,
        expires_at: Instant,
    ) -> None:
        self.award = award
        self.spec = spec
        self.sources = sources
        self.waiting = deque(tasks)
        self.running: dict[Task, int] = {}
        self.free_since = now
        """When the last slot came free for this lease: what a task then waited is its ``queued_ms``."""
        self.expires_at = expires_at

    @property
    def job(self) -> bytes:
        return self.award.record.job

    @property
    def stage(self) -> StageSpec:
        return self.spec.record.stages[self.award.record.stage]

    @property
    def left(self) -> int:
        return len(self.waiting) + len(self.running)
