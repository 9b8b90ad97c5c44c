"""The figures of one mesh after another, and whether they stay within their bounds as meshes grow."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median, quantiles

import msgspec

from protocol.limits import DEFAULT_LIMITS

FLAT = 0.2
"""How far the messages of a peer may be from the mean of all sizes."""
BIDS = (4, 64)
DONE = 0.999


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is run at each size."""

    seed: int = 1
    seconds: float = 60.0
    """The window lasts at least so long,"""
    jobs: int = 200
    """and until so many jobs may be expected in it."""
    loss: float = 0.1
    """Share of control messages that are dropped."""
    rare: float = 0.001
    """Share of machines, at least one, on which rare jobs can run; 0 for no such jobs."""
    rare_jobs: int = 8


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What many values are like."""

    mean: float
    least: float
    median: float
    p99: float
    most: float


class Rare(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that few machines can run. What finding one cost: announcements on all of their hops, bids, refusals."""

    machines: int
    jobs: int
    done: int
    awarded: int
    rounds: Spread
    announcements: Spread
    messages: Spread
    award_s: Spread
    """From the client's wish to the first award."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One mesh. Times in seconds, simulated unless named real."""

    peers: int
    window_s: float
    jobs: int
    done: int
    messages_per_peer_s: float
    """Control messages that peers sent in the window: all there are, blobs travel otherwise."""
    by_kind: dict[str, float]
    """The same, of each kind, the most frequent first."""
    bids: Spread
    """Per auction, which is all that a job's stewards do to find workers."""
    bids_outside: int
    """Auctions with fewer or more bids than there should be."""
    rounds: Spread
    announcements: Spread
    award_s: Spread
    job_s: Spread
    lookups: int
    """A client that waits looks its job up from a random peer every three seconds."""
    lookups_found: int
    mesh_size: Spread
    """What its peers take it to be."""
    rare: Rare | None
    problem: str
    """The rule that was broken; "" if none was."""
    events: int
    simulated_s: float
    real_s: float
    memory_mib: float
    """The most that the process has used so far."""
    trace_hash: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Which bounds hold, over all sizes."""

    plan: Plan
    sizes: list[int]
    messages_mean: float
    messages_off: float
    """Of all sizes the largest distance from that mean, relative to it."""
    flat: bool
    bids: bool
    jobs: int
    done: int
    completed: bool
    rare: bool
    holds: bool


def judge(sizes: Sequence[Size], plan: Plan) -> Verdict:
    """Whether the bounds hold over these sizes."""
    mean = fmean(size.messages_per_peer_s for size in sizes)
    off = max(abs(size.messages_per_peer_s / mean - 1) for size in sizes)
    jobs, done = sum(size.jobs for size in sizes), sum(size.done for size in sizes)
    small = DEFAULT_LIMITS.everybody_answers_up_to
    bids = all(BIDS[0] <= size.bids.mean <= BIDS[1] for size in sizes if size.peers > small)
    rare = all(size.rare is None or size.rare.awarded == size.rare.done == size.rare.jobs for size in sizes)
    flat, completed = off <= FLAT, done >= DONE * jobs
    return Verdict(
        plan=plan,
        sizes=[size.peers for size in sizes],
        messages_mean=mean,
        messages_off=off,
        flat=flat,
        bids=bids,
        jobs=jobs,
        done=done,
        completed=completed,
        rare=rare,
        holds=flat and bids and completed and rare and not any(size.problem for size in sizes),
    )


def spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(mean=0.0, least=0.0, median=0.0, p99=0.0, most=0.0)
    p99 = quantiles(values, n=100, method="inclusive")[-1] if len(values) > 1 else values[0]
    return Spread(
        mean=round(fmean(values), 3),
        least=round(min(values), 3),
        median=round(median(values), 3),
        p99=round(p99, 3),
        most=round(max(values), 3),
    )
