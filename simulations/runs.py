"""Tasks on machines: fetch what is read, take some time, make the output, and answer each ``StartRun`` once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, WallMs
from protocol.effects import StartRun
from protocol.events import RunFailed, RunFinished
from protocol.wire import Role, Task
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_STOP_NS = 5 * NS_PER_MS
_SIGMA = 0.5
_STRAGGLER = 10
_BUILT_IN_MS = 20
"""Median duration of a split or a merge."""


class Run:
    """One execution on one machine."""

    __slots__ = ("arrived", "boot", "effect", "machine", "started", "stopped")

    def __init__(self, machine: Machine, effect: StartRun, now: int) -> None:
        self.machine = machine
        self.boot = machine.boot
        self.effect = effect
        self.arrived = now
        self.started = now
        self.stopped = False


class Runs:
    """All executions of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._failures: Counter[tuple[bytes, Task]] = Counter()
        self._done: set[tuple[bytes, Task]] = set()
        self.finished = 0
        self.wasted = 0
        """Runs that finished after another one of the same task had."""

    def start(self, machine: Machine, effect: StartRun) -> None:
        run = Run(machine, effect, self._world.agenda.now)
        machine.runs[effect.run] = run
        reads = self._world.library.reads(effect)
        self._world.transfers.bring(machine, reads, effect.sources, lambda problem: self._begin(run, problem))

    def stop(self, machine: Machine, number: int) -> None:
        run = machine.runs.get(number)
        if run is not None and not run.stopped:
            run.stopped = True
            self._world.agenda.after(_STOP_NS, self._fail, run, "stopped", False)

    def _begin(self, run: Run, problem: str | None) -> None:
        world, effect = self._world, run.effect
        run.started = world.agenda.now
        if problem is not None:
            self._fail(run, problem, counts=False, unread=True)
            return
        median = world.options.task_ms if effect.task.role is Role.SHARD else _BUILT_IN_MS
        uneven = bool(world.options.speed_range)
        work = work_of(effect.job, effect.task.index) if uneven else math.exp(run.machine.rng.gauss(0.0, _SIGMA))
        takes_ms = median * run.machine.slowness * work
        key = (effect.job, effect.task)
        fault = world.faults.draw("run", run.machine.index)
        if fault is not None and fault.kind != "straggler" and not self._may_fail(key, effect.stage.attempts - 1):
            fault = None
        kind = fault.kind if fault is not None else ""
        if fault is not None:
            where = f"peer {run.machine.index}: {effect.task.role} {effect.task.index}"
            world.faults.happened(fault, world.agenda.now, where)
        if kind == "straggler":
            takes_ms *= _STRAGGLER
        takes = max(1, int(min(takes_ms, effect.stage.timeout_ms) * NS_PER_MS))
        if kind in ("run_failure", "machine_failure"):
            self._failures[key] += 1
            its_own = kind == "run_failure"
            reason = "the task failed" if its_own else "the machine failed"
            world.agenda.after(takes, self._fail, run, reason, its_own)
        else:
            world.agenda.after(takes, self._finish, run)

    def _may_fail(self, key: tuple[bytes, Task], limit: int) -> bool:
        """A job gives up after so many failures: fewer are injected, so that each job can still succeed."""
        return self._failures[key] < limit

    def _finish(self, run: Run) -> None:
        if not self._answer(run):
            return
        library = self._world.library
        output = library.output_of(run.effect)
        run.machine.disk.update(library.with_links((output.output.cid,)))
        self.finished += 1
        key = (run.effect.job, run.effect.task)
        self.wasted += key in self._done
        self._done.add(key)
        self._world.feed(
            run.machine,
            RunFinished(
                run=run.effect.run,
                output=output.output,
                input_hash=_input_hash(run.effect),
                shards=library.shards_of(output) if run.effect.task.role is Role.SPLIT else 0,
                image="",
                runtime="simulated",
                pull_ms=0,
                transfer_ms=(run.started - run.arrived) // NS_PER_MS,
                run_ms=(self._world.agenda.now - run.started) // NS_PER_MS,
                started_at=self._started_at(run),
                content=output.content,
            ),
        )

    def _fail(self, run: Run, reason: str, counts: bool, unread: bool = False) -> None:
        if not self._answer(run):
            return
        self._world.feed(
            run.machine,
            RunFailed(
                run=run.effect.run,
                reason=reason,
                counts=counts,
                input_hash=_input_hash(run.effect),
                image="",
                runtime="simulated",
                pull_ms=0,
                transfer_ms=(run.started - run.arrived) // NS_PER_MS,
                run_ms=(self._world.agenda.now - run.started) // NS_PER_MS,
                started_at=self._started_at(run),
                unread=unread,
            ),
        )

    def _answer(self, run: Run) -> bool:
        """Whether this run still waits for its one answer; from now on it does not."""
        machine = run.machine
        if machine.boot != run.boot or not machine.alive:
            return False
        return machine.runs.pop(run.effect.run, None) is not None

    def _started_at(self, run: Run) -> WallMs:
        return run.machine.wall(run.started)


def work_of(job: bytes, index: int) -> float:
    """How much more or less work than usual a task is, where that does not depend on who does it."""
    return math.exp(Random(f"work/{job.hex()}/{index}").gauss(0.0, _SIGMA))


def _input_hash(effect: StartRun) -> bytes:
    parts = tuple(part.output.cid for part in effect.parts if part.output is not None)
    split = effect.split.cid if effect.split is not None else ""
    return hashlib.sha256(repr((effect.input.cid, split, effect.task.index, parts)).encode()).digest()
