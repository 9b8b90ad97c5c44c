"""The tail of a job: tasks that are far from done while others are free are run twice, and the first receipt counts."""

from __future__ import annotations

from protocol.allotting import Allotment, slots_of, turn_of
from protocol.candidate import Candidate
from protocol.clock import Instant, elapsed_ms
from protocol.identity import PeerId
from protocol.job import Given, Job
from protocol.limits import Limits
from protocol.pace import left_ms, task_ms, typical_ms
from protocol.plan import TaskState
from protocol.wire import Role

SECOND_TRY = "second try"
"""How the reason begins that is given for one."""


def second_tries(job: Job, now: Instant, limits: Limits) -> list[Allotment]:
    """Whom to give a shard that somebody else has, once nothing is ready: who is free, and would have it done sooner.

    By half as much again at least, since the first try is wasted then; and only once it is known how long the job's
    shards take.
    """
    if not any(one.run_ms for one in job.candidates.values()):
        return []
    free = _free(job, now)
    if not free:
        return []
    allotments: list[Allotment] = []
    for remaining_ms, state, worker, overdue in _open(job, now, limits):
        others = [one for one in free if one.peer != worker and free[one] > 0]
        if not others:
            continue
        turns = {one: turn_of(job, one, state, slots_of(one, 1), now, limits) for one in others}
        best = min(others, key=lambda one: (_twin_ms(job, one, turns[one].fetch_ms, limits), turns[one].order))
        needs_ms = _twin_ms(job, best, turns[best].fetch_ms, limits)
        if remaining_ms * 100 < needs_ms * limits.second_try_gain_percent + 100 * limits.second_try_margin_ms:
            continue
        free[best] -= 1
        usual = f"{typical_ms(job, limits)} ms are usual"
        why = f"late: {overdue} ms where {usual}" if overdue else f"slow: {remaining_ms} ms to go where {usual}"
        allotments.append(Allotment(best, [state], f"{SECOND_TRY}; the first is {why}"))
    return allotments


def _free(job: Job, now: Instant) -> dict[Candidate, int]:
    """Candidates with free slots, and how many."""
    held = job.held()
    free = {one: slots_of(one, 1) - held.get(one.peer, 0) for one in job.bidders(now)}
    return {one: slots for one, slots in free.items() if slots > 0}


def _twin_ms(job: Job, one: Candidate, fetch_ms: int, limits: Limits) -> int:
    """What a second try takes; a bid alone is not believed to be faster than what is usual."""
    return fetch_ms + (one.run_ms or max(task_ms(job, one, limits), typical_ms(job, limits)))


def _open(job: Job, now: Instant, limits: Limits) -> list[tuple[int, TaskState, PeerId, int]]:
    """Shards with one open try: how long it will take yet, whose it is, and for how long it has run if that is late.

    The longest first.
    """
    found: list[tuple[int, TaskState, PeerId, int]] = []
    for worker, awards in _by_worker(job).items():
        candidate = job.candidates.get(worker)
        takes_ms = task_ms(job, candidate, limits) if candidate is not None else typical_ms(job, limits)
        slots = candidate.bid.slots if candidate is not None else 1
        first_ms = min((left_ms(given, task, takes_ms, now) for given in awards for task in given.began), default=0)
        waiting = 0
        for given in awards:
            for task in given.left:
                state = job.plan.find(task)
                if task in given.began:
                    remaining_ms = left_ms(given, task, takes_ms, now)
                    ran_ms = elapsed_ms(given.began[task], now)
                    overdue = ran_ms if ran_ms > takes_ms else 0
                else:
                    remaining_ms, overdue = first_ms + takes_ms * (waiting // slots + 1), 0
                    waiting += 1
                if state is not None and task.role is Role.SHARD and job.open_tries(state) == 1:
                    found.append((remaining_ms, state, worker, overdue))
    found.sort(key=lambda one: (-one[0], one[1].task.index))
    return found


def _by_worker(job: Job) -> dict[PeerId, list[Given]]:
    awards: dict[PeerId, list[Given]] = {}
    for given in job.given.values():
        awards.setdefault(given.award.record.worker, []).append(given)
    return awards
