"""Whole worlds with the real peer: the seeds here are a smoke test, the many are ``make simulate``."""

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


# Seeds that once failed, with what they found.
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(8, id="shards were awarded while their lost split was still to run again"),
        pytest.param(16, id="a split that ran again put its new receipt in place of the one its shards name"),
        pytest.param(35, id="a dead peer was known for longer than records live"),
        pytest.param(37, id="a job was not found from every peer"),
        pytest.param(54, id="a copy that failed late lost an output of which another copy was there"),
        pytest.param(55, id="a worker started a task after its lease had run out"),
        pytest.param(76, id="a restarted steward, which knew no addresses yet, took outputs to be lost"),
        pytest.param(204, id="shards were lost sixteen times over while the lost split was being fetched again"),
        pytest.param(2276, id="a neighbour that had lost its counter was known by its expired record only"),
    ],
)
def test_what_once_failed_passes(seed: int) -> None:
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
