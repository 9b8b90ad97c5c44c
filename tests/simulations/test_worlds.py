"""Whole worlds with the real peer: the seeds here are a smoke test, the many are ``make simulate``.

A seed is the same world only as long as nothing new is drawn for it. What a seed once found is kept as a bug to be
found again: see ``planted/``.
"""

from __future__ import annotations

import pytest

from protocol.messages import ProbeRequest, SeeMe
from simulations.faults import FaultRates
from simulations.options import QUICK_LIMITS, Options, draw
from simulations.scenarios import SCENARIOS
from simulations.simulation import simulate


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_drawn_world_passes(seed: int) -> None:
    result, _ = simulate(draw(seed))
    assert result.passed, result.problem


def test_the_main_job_passes_and_its_figures_say_so() -> None:
    result, world = simulate(SCENARIOS["main-job"](7, 40, 2))
    assert result.passed, result.problem
    figures = result.figures
    assert figures.peers == 40
    assert figures.jobs_accepted == 2
    assert figures.shards_done == 16 * figures.jobs_done > 0
    assert figures.messages == sum(world.network.sent.values())
    assert world.network.sampled_messages == figures.messages // 100


def test_the_cost_of_a_death_does_not_grow_with_the_mesh() -> None:
    """Once, each helper that failed to reach the dead peer asked helpers of its own: a flood for every crash."""

    def probes_per_crash(peers: int) -> float:
        faults = FaultRates(crash_per_s=0.5, gone=1.0)
        options = Options(
            seed=3,
            peers=peers,
            jobs=1,
            faults_s=15.0,
            patience_s=60.0,
            limits=QUICK_LIMITS,
            faults=faults,
            lookups_max=10,
        )
        result, world = simulate(options)
        asked_to_be_seen = world.network.sent[SeeMe]  # each makes one probe, and is no death
        return (world.network.sent[ProbeRequest] - asked_to_be_seen) / result.faults["crash"]

    assert probes_per_crash(100) < 2 * probes_per_crash(25) < 60
