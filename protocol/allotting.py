"""Whom to give which tasks: what is ready goes to whoever would be through with it first, within the placement."""

from __future__ import annotations

from typing import NamedTuple

from protocol import auction
from protocol.candidate import Candidate
from protocol.clock import Instant
from protocol.fitness import PRICE_UNITS
from protocol.job import Job
from protocol.lease import ranges_of
from protocol.limits import RANGES_PER_AWARD_MAX, Limits
from protocol.pace import slots_free_ms, task_ms
from protocol.plan import TaskState
from protocol.spreading import Spread
from protocol.wire import Role


class Allotment(NamedTuple):
    """Tasks for a candidate, and what decided for it, in words for people; "" if only speed did."""

    candidate: Candidate
    states: list[TaskState]
    why: str


def alike(ready: list[TaskState]) -> list[list[TaskState]]:
    """Ready tasks by what one award must have in common: their role and the number of the attempt."""
    groups: dict[tuple[Role, int], list[TaskState]] = {}
    for state in ready:
        groups.setdefault((state.task.role, state.next_attempt), []).append(state)
    return list(groups.values())


def allot(job: Job, states: list[TaskState], now: Instant, limits: Limits) -> list[Allotment]:
    """Shares of tasks that are alike, as large as their takers' speed makes them; what is left over waits."""
    bidders, held = job.bidders(now), job.held()
    fair = -(-(len(states) + sum(held.values())) // max(len(bidders), 1))
    turns, rooms = [], []
    spread = Spread(job, bidders) if states[0].task.role is Role.SHARD else None
    for one in bidders:
        slots = slots_of(one, fair)
        has = held.get(one.peer, 0)
        turns.append(turn_of(job, one, states[0], slots, now, limits, spread))
        most = auction.capacity(slots, task_ms(job, one, limits), limits.award_target_ms) if one.run_ms else slots
        rooms.append((has, slots, most))
    if not any(has < most for has, _, most in rooms):
        return []
    shares = auction.shares(len(states), turns, spread.room() if spread is not None else None)
    allotments = []
    given = 0
    for number in sorted(range(len(bidders)), key=lambda number: (min(turns[number].free_ms), turns[number].order)):
        size = auction.award_size(shares[number], *rooms[number])
        taken = _in_ranges(states[given : given + size])
        if taken:
            given += len(taken)
            allotments.append(Allotment(bidders[number], taken, _why(job, bidders, bidders[number], taken, spread)))
    return allotments


def slots_of(candidate: Candidate, fair: int) -> int:
    """Slots that count: of one whose speed is not known no more than its fair share of what is not done."""
    return candidate.bid.slots if candidate.run_ms else max(1, min(candidate.bid.slots, fair))


def turn_of(
    job: Job,
    candidate: Candidate,
    state: TaskState,
    slots: int,
    now: Instant,
    limits: Limits,
    spread: Spread | None = None,
) -> auction.Turn:
    """What ``candidate`` could do with more tasks like ``state``, as far as this steward can tell."""
    assert job.announcement is not None
    bid = candidate.bid
    fetch_ms = 0 if bid.warm or candidate.run_ms else limits.cold_start_ms
    near = job.plan.stage.needs.placement.near_input and state.task.role is not Role.MERGE
    fetch_ms += job.inputs_to_fetch(candidate, state) * (limits.fetch_far_ms if near else limits.fetch_input_ms)
    return auction.Turn(
        free_ms=slots_free_ms(job, candidate, slots, now, limits),
        task_ms=task_ms(job, candidate, limits),
        fetch_ms=fetch_ms,
        order=(bid.price, auction.tie_break(job.announcement.digest, candidate.peer)),
        group=spread.group_of(candidate) if spread is not None else "",
    )


def _in_ranges(states: list[TaskState]) -> list[TaskState]:
    """As many as one award can name."""
    while len(ranges_of([state.task.index for state in states])) > RANGES_PER_AWARD_MAX:
        states.pop()
    return states


def _why(job: Job, bidders: list[Candidate], chosen: Candidate, states: list[TaskState], spread: Spread | None) -> str:
    needs, reasons = job.plan.stage.needs, []
    if needs.placement.near_input and not job.inputs_to_fetch(chosen, states[0]):
        others = sum(job.inputs_to_fetch(one, states[0]) > 0 for one in bidders)
        if others:
            reasons.append(f"near: it has the input, {others} of {len(bidders)} bidders have not")
    if spread is not None and spread.on:
        reasons.append(spread.take(chosen, len(states)))
    if needs.max_price is not None:
        reasons.append(f"price: {chosen.bid.price / PRICE_UNITS:g} of at most {needs.max_price / PRICE_UNITS:g}")
    return "; ".join(reasons)
