"""Uneven machines: how far a job is from what no scheduler could beat."""

from __future__ import annotations

import pytest

from simulations.makespan import Makespan, bound_ms, measure, summary_of
from simulations.options import Options
from simulations.runs import work_of
from simulations.scenarios import uneven
from simulations.world import World


def test_a_job_on_uneven_machines_takes_little_longer_than_it_must() -> None:
    measured = [measure(seed, peers=12) for seed in (1, 2)]
    assert [one.problem for one in measured] == ["", ""]
    assert all(1 < one.ratio <= 1.3 for one in measured)
    assert all(one.runs >= uneven.SHARDS + 2 for one in measured)


def test_the_bound_is_all_work_at_the_speed_of_all_machines_or_the_longest_shard() -> None:
    world = World(Options(seed=1, peers=3, jobs=1, speed_range=8.0, work_sigma=0.0, task_ms=100, slots_max=1))
    for _ in range(3):
        world.machines.add()
    speeds = [1 / machine.slowness for machine in world.machines.all]
    assert speeds[:2] == [1, 1 / 8]
    assert 1 / 8 < speeds[2] < 1

    class OfTen:
        digest = bytes(32)
        expected_shards = (None,) * 10

    assert bound_ms(world, OfTen()) == pytest.approx(10 * 100 / sum(speeds))  # type: ignore[arg-type]
    OfTen.expected_shards = (None,)
    assert bound_ms(world, OfTen()) == 100, "one shard is not faster for many machines"  # type: ignore[arg-type]


def test_work_belongs_to_the_task() -> None:
    assert work_of(b"job", 3, 0.5) == work_of(b"job", 3, 0.5) != work_of(b"job", 4, 0.5)
    assert work_of(b"job", 3, 0.0) == 1


def test_a_summary_names_the_worst() -> None:
    ratios = [1.0 + number / 100 for number in range(100)]
    measured = [
        Makespan(seed=seed, problem="", bound_s=10, took_s=10 * ratio, runs=2, second_tries=1, wasted_runs=0)
        for seed, ratio in enumerate(ratios)
    ]
    summary = summary_of(measured)
    assert (summary.worst, summary.worst_seed, summary.p95) == pytest.approx((1.99, 99, 1.94))
    assert summary.mean == pytest.approx(1.495)
    assert (summary.seeds, summary.runs, summary.second_tries) == (100, 200, 100)
