"""Uneven machines: nothing goes wrong, but the slowest machine is eight times as slow as the fastest one."""

from __future__ import annotations

from simulations.options import Options

SPEED_RANGE = 8.0
SHARDS = 200


def options(seed: int, peers: int, jobs: int) -> Options:
    """``jobs`` of 200 shards; what a shard takes is log-normal, half of them between 1.6 and 2.8 s on the fastest."""
    return Options(
        scenario="uneven",
        seed=seed,
        peers=peers,
        jobs=jobs,
        shards=(SHARDS, SHARDS),
        task_ms=2_000,
        slots_max=1,
        speed_range=SPEED_RANGE,
        faults_s=5.0,
    )
