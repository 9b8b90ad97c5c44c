"""The main job: pictures split into tiles, over a wide-area mesh that loses messages and machines."""

from __future__ import annotations

from simulations.faults import FaultRates
from simulations.options import Options


def options(seed: int, peers: int, jobs: int) -> Options:
    """``jobs`` pictures of 16 tiles each; at 200 peers one in fifteen crashes meanwhile, half of these for good."""
    return Options(
        scenario="main-job",
        seed=seed,
        peers=peers,
        jobs=jobs,
        shards=(16, 16),
        task_ms=2_000,
        faults_s=30.0,
        faults=FaultRates(drop=0.01, cut_per_s=0.5, crash_per_s=max(0.4, peers / 500), gone=0.5),
    )
