"""The main job: pictures split into tiles, over a wide-area mesh that loses messages and machines."""

from __future__ import annotations

from simulations.faults import FaultRates
from simulations.options import Options


def options(seed: int, peers: int, jobs: int) -> Options:
    """``jobs`` pictures of 16 tiles each; one peer in twenty crashes while they are worked on."""
    return Options(
        scenario="main-job",
        seed=seed,
        peers=peers,
        jobs=jobs,
        shards=(16, 16),
        task_ms=2_000,
        faults_s=30.0,
        faults=FaultRates(drop=0.01, cut_per_s=0.5, crash_per_s=max(0.1, peers / 600), gone=0.3),
    )
