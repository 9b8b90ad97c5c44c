"""Rules about the work on one machine: within its slots, under a live lease, each run answered once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS
from protocol.effects import Send, StartRun
from protocol.events import MessageReceived, RunFailed, RunFinished
from protocol.identity import PeerId
from protocol.lease import covers
from protocol.messages import Decided, Offer, Revoke
from protocol.records import Award
from protocol.wire import Task
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.runs import Run
    from simulations.world import World


class _Books:
    """What is known of one boot of a machine."""

    __slots__ = ("last_run", "leases", "offers", "revoked", "running")

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.last_run = 0
        self.offers: dict[bytes, Award] = {}
        self.leases: dict[bytes, tuple[Award, int]] = {}
        """Accepted awards, and when each lease ends."""
        self.revoked: set[tuple[bytes, int]] = set()
        """Single tasks, by award and index, that were done elsewhere."""


class RunRules:
    """Keeps books of every machine's leases and runs, from what crosses its peer's border."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._books: dict[int, _Books] = {}

    def starting(self, machine: Machine) -> None:
        self._books[machine.index] = _Books()

    def running(self, machine: Machine) -> int:
        return len(self._books[machine.index].running)

    def jobs_of(self, machine: Machine) -> dict[bytes, None]:
        """The jobs that a machine has leases or runs of."""
        running = dict.fromkeys(run.effect.job for run in machine.runs.values())
        return running | dict.fromkeys(award.job for award, _ in self._books[machine.index].leases.values())

    def was_offered(self, machine: Machine, job: bytes, task: Task, attempt: int) -> bool:
        """Whether another peer has offered an award with this task to a machine."""
        return any(
            award.job == job and award.attempt == attempt and covers(award, task)
            for award in self._books[machine.index].offers.values()
        )

    # -- leases

    def offered(self, machine: Machine, message: Offer) -> None:
        award = self._world.reader.open(message.award, Award)
        self._books[machine.index].offers[award.digest] = award.record

    def accepted(self, machine: Machine, effect: Send) -> None:
        books, digest = self._books[machine.index], effect.message.award  # type: ignore[attr-defined]
        award = books.offers.get(digest)
        if award is None or award.steward != effect.to:
            raise Violation("leases", f"peer {machine.index} accepts an award that it was not offered")
        books.leases.setdefault(digest, (award, self._world.agenda.now + award.lease_ms * NS_PER_MS))

    def returned(self, machine: Machine, effect: Send) -> None:
        self._books[machine.index].leases.pop(effect.message.award, None)  # type: ignore[attr-defined]

    def revoked(self, machine: Machine, event: MessageReceived) -> None:
        message = event.message
        assert isinstance(message, Revoke)
        assert machine.peer is not None
        if machine.peer.is_banned(event.sender):
            return  # not heard
        books = self._books[machine.index]
        lease = books.leases.get(message.award)
        given_up = lease is not None and lease[0].steward == event.sender
        if not message.ranges:
            if lease is not None and given_up:
                self._must_stop(machine, lease[0])
            self._end(machine, event.sender, lambda digest, _: digest == message.award)
        elif given_up:
            books.revoked.update(
                (message.award, index) for span in message.ranges for index in range(span.start, span.stop)
            )

    def _must_stop(self, machine: Machine, award: Award) -> None:
        """What runs under an award that is revoked is stopped by the same call, as can be seen right after it."""
        awards = [one for one, _ in self._books[machine.index].leases.values() if one.job == award.job]
        for run in machine.runs.values():
            of = [one for one in awards if one.attempt == run.effect.attempt and covers(one, run.effect.task)]
            if run.effect.job == award.job and of == [award]:
                self._world.agenda.after(0, self._check_stopped, machine, machine.boot, run)

    def _check_stopped(self, machine: Machine, boot: int, run: Run) -> None:
        if machine.boot == boot and machine.alive and not run.stopped and run.effect.run in machine.runs:
            task = run.effect.task
            raise Violation("leases", f"peer {machine.index} goes on with {task.role} {task.index}, which was revoked")

    def closed(self, machine: Machine, message: Decided) -> None:
        """Whoever says so, if it is proved."""
        books = self._books[machine.index]
        if self._world.checkers.records.is_end(message.job, message.body):
            for digest in [digest for digest, (award, _) in books.leases.items() if award.job == message.job]:
                del books.leases[digest]

    def _end(self, machine: Machine, by: PeerId, which: Callable[[bytes, Award], bool]) -> None:
        """Leases end on their steward's word; others say such things too, when they know nothing of the job."""
        books = self._books[machine.index]
        for digest, (award, _) in list(books.leases.items()):
            if award.steward == by and which(digest, award):
                del books.leases[digest]

    # -- runs

    def asked(self, machine: Machine, effect: StartRun) -> None:
        books = self._books[machine.index]
        if effect.run <= books.last_run:
            raise Violation("runs", f"peer {machine.index} uses run number {effect.run} again")
        books.last_run = effect.run
        books.running.add(effect.run)
        if len(books.running) > machine.slots:
            raise Violation("runs", f"peer {machine.index} runs {len(books.running)} tasks in {machine.slots} slots")
        if not self._is_leased(machine, books, effect):
            raise Violation("leases", f"peer {machine.index} runs {effect.task} without a live lease on it")

    def answered(self, machine: Machine, event: RunFinished | RunFailed) -> None:
        books = self._books[machine.index]
        if event.run not in books.running:
            raise Violation("runs", f"run {event.run} of peer {machine.index} is answered twice, or was never started")
        books.running.remove(event.run)

    def _is_leased(self, machine: Machine, books: _Books, effect: StartRun) -> bool:
        job = self._world.workload.jobs.get(effect.job)
        if job is not None and self._world.checkers.records.has_held(job, machine.peer_id):
            return True  # a steward's award to itself never crosses its border
        now = self._world.agenda.now
        return any(
            award.job == effect.job
            and award.attempt == effect.attempt
            and covers(award, effect.task)
            and ends > now
            and (digest, effect.task.index) not in books.revoked
            for digest, (award, ends) in books.leases.items()
        )
