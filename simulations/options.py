"""What one world is: all of it follows from these values, and they can be drawn from a seed.

Drawing is swarm testing (Groce et al., ISSTA 2012): each kind of fault is in or out by a coin, so that a rare
combination is not drowned by the common ones.
"""

from __future__ import annotations

from random import Random
from typing import Literal

import msgspec

from protocol.limits import DEFAULT_LIMITS, Limits
from simulations.decisions import Key
from simulations.faults import FaultRates


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """One world. Times in seconds or milliseconds as named, sizes in bytes."""

    seed: int
    peers: int
    jobs: int
    scenario: str = ""
    bootstraps: int = 3
    """Peers whose addresses everybody is given; they never crash for good."""
    join_s: float = 2.0
    """Peers start at random within this time."""
    first_job_s: float = 5.0
    jobs_every_s: float = 1.0
    """Mean pause between two submissions."""
    faults_s: float = 20.0
    """Faults happen from the start until then; afterwards everything must come right."""
    patience_s: float = 300.0
    """How long all jobs may take, and all leases may last, once all is up again after the last fault."""
    latency_ms: tuple[int, int] = (1, 80)
    """One way: the fixed part, and what the longest distance adds."""
    jitter_ms: int = 10
    bandwidth: tuple[int, int] = (2_000_000, 100_000_000)
    """Bytes per second of a machine's link."""
    slots_max: int = 4
    task_ms: int = 300
    """Median duration of a run; the draw is log-normal."""
    work_sigma: float = 0.5
    """Of that draw's logarithm."""
    speed_range: float = 0.0
    """How much slower the slowest machine is than the fastest one; between them speeds are log-uniform, and how much
    work there is belongs to the task, wherever it runs. With 0 both are log-normal, and drawn for each run."""
    task_timeout_ms: int = 10_000
    """How long a run may take: what takes longer ends then, and well. By it, times a worker's rounds, its
    leases are measured."""
    shards: tuple[int, int] = (4, 32)
    huge_jobs: float = 0.0
    """Share of jobs of twenty times as many shards: most have more than a stage has tasks."""
    whole_jobs: float = 0.0
    """Share of jobs that are not split."""
    deadline_s: float = 4 * 3_600.0
    """Of a job, by default longer than a clock may be wrong."""
    cancelled_jobs: float = 0.0
    """Share of jobs that their submitter cancels."""
    clock_every_s: float = 1.0
    rare_machines: int = 0
    """So many have 512 GiB of memory, all others 8."""
    rules: Literal["all", "few"] = "all"
    """``few``: only the rules that do not look at every event of a job; for large meshes."""
    lookups_max: int = 2_000
    """Lookups at the end: every job from every peer, up to this many."""
    real_crypto: bool = False
    faults: FaultRates = FaultRates()
    only: tuple[Key, ...] | None = None
    """Of all faults that these rates would bring, these alone: a schedule that ``shrinking.py`` has found."""
    limits: Limits = DEFAULT_LIMITS


QUICK_LIMITS = msgspec.structs.replace(
    DEFAULT_LIMITS,
    shuffle_interval_ms=2_000,
    capability_refresh_ms=5_000,
    capability_lifetime_ms=16_000,
    pointer_refresh_ms=4_000,
    mesh_epoch_ms=20_000,
    lease_slack_ms=8_000,
)
"""Slow periods shortened, so that a short run still sees records expire and be renewed."""


def draw(seed: int) -> Options:
    """The small world of ``seed``."""
    rng = Random(f"options/{seed}")
    limits = DEFAULT_LIMITS if rng.random() < 0.2 else QUICK_LIMITS
    options = Options(
        seed=seed,
        peers=rng.randint(10, 30),
        jobs=rng.randint(1, 5),
        join_s=rng.choice((0.0, 1.0, 4.0)),
        jobs_every_s=rng.choice((0.1, 1.0, 4.0)),
        faults_s=rng.choice((15.0, 25.0, 40.0)),
        latency_ms=rng.choice(((0, 1), (1, 80), (20, 300))),
        jitter_ms=rng.choice((0, 10, 100)),
        slots_max=rng.choice((1, 2, 4)),
        task_ms=rng.choice((20, 300, 2_000)),
        whole_jobs=rng.choice((0.0, 0.3)),
        cancelled_jobs=rng.choice((0.0, 0.0, 0.3)),
        limits=limits,
        faults=_draw_faults(rng),
        huge_jobs=rng.choice((0.0,) * 9 + (0.2,)),
    )
    if rng.random() < 0.25:  # leases so short that some run out before all of their tasks have begun
        hurried = msgspec.structs.replace(limits, lease_slack_ms=1_000)
        options = msgspec.structs.replace(options, task_timeout_ms=2_500, limits=hurried)
    return options


def _draw_faults(rng: Random) -> FaultRates:
    crashes = {
        "crash_per_s": _coin(rng, 0.05, 0.6),
        "crash_unsynced": _coin(rng, 0.005, 0.06),
        "torn_write": _coin(rng, 0.005, 0.04),
        "crash_midway": _coin(rng, 0.005, 0.06),
    }
    single = any(crashes.values())  # what comes of a single machine's crash needs one
    liar = _coin(rng, 0.1, 0.3)
    return FaultRates(
        drop=_coin(rng, 0.005, 0.1),
        duplicate=_coin(rng, 0.01, 0.1),
        stall=_coin(rng, 0.001, 0.02),
        reorder=_coin(rng, 0.01, 0.1),
        replay=_coin(rng, 0.002, 0.05),
        cut_per_s=_coin(rng, 0.1, 2.0),
        partition_per_s=_coin(rng, 0.02, 0.15),
        one_way_per_s=_coin(rng, 0.02, 0.15),
        spike_per_s=_coin(rng, 0.02, 0.2),
        **crashes,
        power_cut_per_s=_coin(rng, 0.02, 0.08),
        disk_full_per_s=_coin(rng, 0.05, 0.3),
        gone=_coin(rng, 0.05, 0.25) if single else 0.0,
        wipe=_coin(rng, 0.05, 0.25) if single else 0.0,
        stale_incarnation=_coin(rng, 0.05, 0.2) if single else 0.0,
        lost_write=_coin(rng, 0.02, 0.15) if single else 0.0,
        long_down=_coin(rng, 0.02, 0.2) if single else 0.0,
        slow_per_s=_coin(rng, 0.05, 0.3),
        pause_per_s=_coin(rng, 0.05, 0.3),
        clock_jump_per_s=_coin(rng, 0.02, 0.15),
        skew=_coin(rng, 0.2, 0.6),
        drift=_coin(rng, 0.2, 0.6),
        mass_leave_per_s=_coin(rng, 0.02, 0.06),
        mass_join_per_s=_coin(rng, 0.02, 0.06),
        run_failure=_coin(rng, 0.02, 0.15),
        machine_failure=_coin(rng, 0.02, 0.15),
        straggler=_coin(rng, 0.02, 0.15),
        fetch_failure=_coin(rng, 0.02, 0.15),
        liar=liar,
        lie_bid=_coin(rng, 0.1, 0.6) if liar else 0.0,
        lie_forged=_coin(rng, 0.1, 0.5) if liar else 0.0,
        lie_altered=_coin(rng, 0.1, 0.5) if liar else 0.0,
        lie_record=_coin(rng, 0.002, 0.02) if liar else 0.0,
        lie_garbage=_coin(rng, 0.002, 0.02) if liar else 0.0,
        lie_stolen=_coin(rng, 0.002, 0.02) if liar else 0.0,
        lie_ballot=_coin(rng, 0.002, 0.02) if liar else 0.0,
    )


def _coin(rng: Random, low: float, high: float) -> float:
    """Zero half of the time, else a rate between ``low`` and ``high``."""
    return rng.uniform(low, high) if rng.random() < 0.5 else 0.0
