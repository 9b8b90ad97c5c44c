"""The work of the comparison on Dask: one local scheduler, four worker processes of one thread each."""

from __future__ import annotations

import os
import time

from distributed import Client, LocalCluster, __version__
from measure import NOOPS, ROUND_TRIPS, ROUNDS, SHARD_S, SHARDS, WORKERS, cpu_s, median_s, report


def noop(index: int) -> int:
    return index


def shard(index: int) -> int:
    time.sleep(SHARD_S)
    return index


def main() -> None:
    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    client = Client(cluster)
    client.wait_for_workers(WORKERS)

    def gather(function: object, count: int) -> None:
        assert client.gather(client.map(function, range(count), pure=False)) == list(range(count))

    gather(noop, 100 * WORKERS)
    before = cpu_s(os.getpid())
    noops_s = median_s(lambda: gather(noop, NOOPS), ROUNDS)
    cpu = cpu_s(os.getpid()) - before
    report(
        "dask",
        __version__,
        noop_shards_per_s=NOOPS / noops_s,
        cpu_ms_per_shard=1000 * cpu / (ROUNDS * NOOPS),
        shards16_s=median_s(lambda: gather(shard, SHARDS), ROUNDS),
        one_shard_s=median_s(lambda: client.submit(noop, 0, pure=False).result(), ROUND_TRIPS),
    )
    client.close()
    cluster.close()


if __name__ == "__main__":
    main()
