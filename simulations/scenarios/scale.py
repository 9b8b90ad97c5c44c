"""One mesh of any size under a workload that is the same for each of its peers: what grows with the mesh shows."""

from __future__ import annotations

from simulations.faults import FaultRates
from simulations.options import Options

PEERS_PER_JOB_A_MINUTE = 20
JOIN_S = 20.0
FIRST_JOB_S = 35.0
DEADLINE_S = 300.0


def options(seed: int, peers: int, jobs: int, *, loss: float = 0.1, rare_machines: int = 0) -> Options:
    """A job a minute for each 20 peers, of 8 shards of 2 s each (median, on the median machine).

    Peers start within 20 s of each other and know three bootstrap peers; the first job comes 15 s later. Of all control
    messages the share ``loss`` is dropped. Nothing else goes wrong.
    """
    return Options(
        scenario="scale",
        seed=seed,
        peers=peers,
        jobs=jobs,
        join_s=JOIN_S,
        first_job_s=FIRST_JOB_S,
        jobs_every_s=60.0 * PEERS_PER_JOB_A_MINUTE / peers,
        shards=(8, 8),
        task_ms=2_000,
        deadline_s=DEADLINE_S,
        clock_every_s=10.0,
        rare_machines=rare_machines,
        rules="few",
        faults=FaultRates(drop=loss),
    )
