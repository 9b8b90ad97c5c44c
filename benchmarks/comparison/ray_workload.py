"""The work of the comparison on Ray: one local cluster, four workers of one processor each."""

from __future__ import annotations

import os
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from measure import NOOPS, ROUND_TRIPS, ROUNDS, SHARD_S, SHARDS, WORKERS, cpu_s, median_s, report

ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")


@ray.remote(num_cpus=1)
def noop(index: int) -> int:
    return index


@ray.remote(num_cpus=1)
def shard(index: int) -> int:
    time.sleep(SHARD_S)
    return index


def noops() -> None:
    assert ray.get([noop.remote(index) for index in range(NOOPS)]) == list(range(NOOPS))


def shards() -> None:
    assert ray.get([shard.remote(index) for index in range(SHARDS)]) == list(range(SHARDS))


ray.get([noop.remote(index) for index in range(100 * WORKERS)])  # by now every worker process exists
before = cpu_s(os.getpid())
noops_s = median_s(noops, ROUNDS)
cpu = cpu_s(os.getpid()) - before
report(
    "ray",
    ray.__version__,
    noop_shards_per_s=NOOPS / noops_s,
    cpu_ms_per_shard=1000 * cpu / (ROUNDS * NOOPS),
    shards16_s=median_s(shards, ROUNDS),
    one_shard_s=median_s(lambda: ray.get(noop.remote(0)), ROUND_TRIPS),
)
ray.shutdown()
