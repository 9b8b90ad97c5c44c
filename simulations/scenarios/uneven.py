"""Uneven machines: nothing goes wrong, but the slowest machine is eight times as slow as the fastest one."""

from __future__ import annotations

from simulations.options import Options

SPEED_RANGE = 8.0
SHARDS = 200
WORK_SIGMA = 0.25


def options(seed: int, peers: int, jobs: int) -> Options:
    """``jobs`` of 200 shards; what one takes is log-normal: half of them from 1.7 to 2.4 s on the fastest machine."""
    return Options(
        scenario="uneven",
        seed=seed,
        peers=peers,
        jobs=jobs,
        shards=(SHARDS, SHARDS),
        task_ms=2_000,
        task_timeout_ms=600_000,
        slots_max=1,
        work_sigma=WORK_SIGMA,
        speed_range=SPEED_RANGE,
        faults_s=5.0,
    )
