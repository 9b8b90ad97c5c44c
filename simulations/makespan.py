"""How long a job takes on uneven machines, against what no scheduler could do better, however much it knew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.stragglers import SECOND_TRY
from simulations.machines import EPOCH_MS
from simulations.runs import work_of
from simulations.scenarios import uneven
from simulations.simulation import simulate

if TYPE_CHECKING:
    from simulations.workload import Job
    from simulations.world import World

PEERS = 24
"""All of them bid: in a larger mesh an auction is for about sixteen, whatever the rest could do."""


class Makespan(msgspec.Struct, frozen=True, kw_only=True):
    """One job's time from its submission to the decision about its end, and the bound, in seconds."""

    seed: int
    problem: str
    """The rule that was broken; "" if none was."""
    bound_s: float
    took_s: float
    runs: int
    second_tries: int
    wasted_runs: int

    @property
    def ratio(self) -> float:
        return self.took_s / self.bound_s


def measure(seed: int, peers: int = PEERS) -> Makespan:
    """The world ``uneven`` of a seed, with one job."""
    result, world = simulate(uneven.options(seed, peers, jobs=1))
    (job,) = world.workload.jobs.values()
    body = world.checkers.records.ended(job)
    tries = [attempt for shown in job.tasks for attempt in shown.tries]
    return Makespan(
        seed=seed,
        problem=result.problem,
        bound_s=bound_ms(world, job) / 1_000,
        took_s=(body.completed_at - EPOCH_MS) / 1_000 - job.submitted_at / 1e9 if body is not None else float("inf"),
        runs=world.runs.finished,
        second_tries=sum(attempt.why.startswith(SECOND_TRY) for attempt in tries),
        wasted_runs=world.runs.wasted,
    )


def bound_ms(world: World, job: Job) -> float:
    """No schedule ends sooner: neither than all work at the speed of all machines, nor than the longest shard alone.

    The bound knows each shard's work and each machine's speed beforehand, and could cut shards at will. It has no
    network, no auction, no split, no merge and no copies: all of these are in what the job takes.
    """
    work = [world.options.task_ms * work_of(job.digest, index) for index in range(len(job.expected_shards))]
    machines = world.machines.all
    speed = sum(machine.slots / machine.slowness for machine in machines)
    return max(sum(work) / speed, max(work) * min(machine.slowness for machine in machines))


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The ratios of takes to bound, over some seeds."""

    seeds: int
    failed: int
    mean: float
    p95: float
    worst: float
    worst_seed: int
    runs: int
    second_tries: int
    wasted_runs: int


def summary_of(measured: list[Makespan]) -> Summary:
    by_ratio = sorted(measured, key=lambda one: one.ratio)
    return Summary(
        seeds=len(measured),
        failed=sum(bool(one.problem) for one in measured),
        mean=sum(one.ratio for one in measured) / len(measured),
        p95=by_ratio[-(-len(by_ratio) * 95 // 100) - 1].ratio,
        worst=by_ratio[-1].ratio,
        worst_seed=by_ratio[-1].seed,
        runs=sum(one.runs for one in measured),
        second_tries=sum(one.second_tries for one in measured),
        wasted_runs=sum(one.wasted_runs for one in measured),
    )
