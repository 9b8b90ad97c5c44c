"""A rule against doing again what has been done: what counts is not given out again while its output is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.effects import FetchBlobs, Send, StartRun
from protocol.events import BlobsFetched, RunFinished
from protocol.lease import tasks_in
from protocol.records import Award
from protocol.wire import Task
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World


class RepeatRules:
    """A steward makes no new award of a task that counts, unless the output was lost before its copy had arrived."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._copies: dict[tuple[int, bytes], set[str]] = {}
        """By machine and store, the blobs that its peer was told to be on its disk."""
        self._fetching: dict[tuple[int, int, int], tuple[str, ...]] = {}
        """By machine, boot and fetch."""

    def fetching(self, machine: Machine, effect: FetchBlobs) -> None:
        self._fetching[machine.index, machine.boot, effect.fetch] = tuple(link.cid for link in effect.blobs)

    def fetched(self, machine: Machine, event: BlobsFetched) -> None:
        self._copies_of(machine).update(self._fetching.pop((machine.index, machine.boot, event.fetch), ()))

    def finished(self, machine: Machine, event: RunFinished) -> None:
        self._copies_of(machine).add(event.output.cid)

    def offered(self, machine: Machine, effect: Send) -> None:
        award = self._world.reader.open(effect.message.award, Award).record  # type: ignore[attr-defined]
        for task in tasks_in(award):
            self._check(machine, award.job, task, award.attempt)

    def asked(self, machine: Machine, effect: StartRun) -> None:
        """What a steward gives to itself never crosses its border: its runs are all that is seen of it."""
        if self._world.checkers.runs.was_offered(machine, effect.job, effect.task, effect.attempt):
            return  # by another one
        assert machine.peer is not None
        if effect.job not in machine.peer.stewarding:
            return  # it gave it to itself while it was steward, and waits for the next one's word
        self._check(machine, effect.job, effect.task, effect.attempt)

    def called_off(self, machine: Machine, effect: Send) -> None:
        """Nor is anything given out of a job that was cancelled."""
        award = self._world.reader.open(effect.message.award, Award).record  # type: ignore[attr-defined]
        assert machine.peer is not None
        record = machine.peer.record_of(award.job)
        if record is not None and record.facts.cancelled:
            raise Violation(
                "repeats", f"peer {machine.index} gives tasks out of {award.job.hex()[:8]}, which is cancelled"
            )

    def _copies_of(self, machine: Machine) -> set[str]:
        return self._copies.setdefault((machine.index, machine.store), set())

    def _check(self, machine: Machine, digest: bytes, task: Task, attempt: int) -> None:
        job = self._world.workload.jobs.get(digest)
        if job is None:
            return
        output, latest = job.pins.get((machine.index, machine.boot, task), ("", 0))
        if attempt > latest and output in self._copies_of(machine):
            raise Violation("repeats", f"{job.name} {task.role} {task.index} is done, and is given out again")
