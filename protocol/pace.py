"""How far a job's workers are, as its steward can tell: which of their tasks run, since when, and for how long yet.

A worker begins with its tasks in order, as many at once as it has slots; its reports of what it runs put right what
was guessed.
"""

from __future__ import annotations

import heapq

from protocol.candidate import Candidate
from protocol.clock import Instant, elapsed_ms
from protocol.identity import PeerId
from protocol.job import Given, Job
from protocol.limits import Limits
from protocol.wire import Task


def typical_ms(job: Job, limits: Limits) -> int:
    """What a shard of the job takes: the mean over the workers that were measured."""
    measured = [one.run_ms for one in job.candidates.values() if one.run_ms]
    return sum(measured) // len(measured) if measured else limits.typical_task_ms


def task_ms(job: Job, candidate: Candidate, limits: Limits) -> int:
    """What a task takes with ``candidate``: as measured, else as bid, else as with the others."""
    return candidate.run_ms or candidate.expected_ms or typical_ms(job, limits)


def note_begun(job: Job, peer: PeerId, now: Instant) -> None:
    """A worker has got tasks, or has finished one: it begins with the next."""
    candidate = job.candidates.get(peer)
    slots = candidate.bid.slots if candidate is not None else 1
    awards = [given for given in job.given.values() if given.award.record.worker == peer]
    running = sum(len(given.began) for given in awards)
    for given in awards:
        for task in given.left:
            if running >= slots:
                return
            if task not in given.began:
                given.began[task] = now
                running += 1


def note_running(given: Given, indexes: tuple[int, ...], now: Instant) -> None:
    """Its worker says which of an award's tasks it runs."""
    running = set(indexes)
    for task in given.left:
        if task.index in running:
            given.began.setdefault(task, now)
        else:
            given.began.pop(task, None)


def left_ms(given: Given, task: Task, takes_ms: int, now: Instant) -> int:
    """How long a task that has begun will take yet.

    Half of what it takes at least, as durations go: what is late is not nearly done (of log-normal ones, at any age,
    about half is to come). One that is very late will take as long again as it is late.
    """
    return max(abs(takes_ms - elapsed_ms(given.began[task], now)), takes_ms // 2)


def slots_free_ms(job: Job, candidate: Candidate, slots: int, now: Instant, limits: Limits) -> tuple[int, ...]:
    """When each of ``slots`` of a worker will be done with what it has of this job, from now.

    One that is new to the job may be busy with others: it is as its bid says.
    """
    takes_ms = task_ms(job, candidate, limits)
    awards = [given for given in job.given.values() if given.award.record.worker == candidate.peer]
    if not awards:
        return (0 if candidate.run_ms else candidate.bid.start_in_ms,) * slots
    running = [left_ms(given, task, takes_ms, now) for given in awards for task in given.began]
    waiting = sum(len(given.left) for given in awards) - len(running)
    free = [0] * max(slots - len(running), 0) + running
    heapq.heapify(free)
    for _ in range(waiting):
        heapq.heapreplace(free, free[0] + takes_ms)
    return tuple(heapq.nsmallest(slots, free))
