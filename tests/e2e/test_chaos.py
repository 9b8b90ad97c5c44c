"""Eight nodes on hosts of their own, twenty jobs, and everything that can go wrong at once.

Which troubles come is drawn from a seed, 1 unless CHAOS_SEED says another: a failure prints them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any

from tests.e2e.chaos import KINDS, Storm, draw
from tests.e2e.conftest import Workshop, infra
from tests.e2e.submitters import Submitter, check_result, wasted_in
from tests.e2e.testbed.mesh import BedMesh
from tests.e2e.testbed.network import Network

SEED = int(os.environ.get("CHAOS_SEED", "1"))
NODES = 8
JOBS = 20
STORM_S = 80.0
TRACED = 2
"""Nodes that record all they are told: a power cut kills these, too."""
TRACE_BYTES = 256 << 20


def test_all_jobs_end_well_whatever_happens_meanwhile(
    network: Callable[..., AbstractContextManager[Network]], tmp_path: Path, figures: Callable[..., None]
) -> None:
    troubles = draw(SEED, nodes=NODES, seconds=STORM_S)
    print(f"CHAOS_SEED={SEED}", *troubles, sep="\n")
    with network(hosts=NODES, rate="50mbit") as made, BedMesh.on(made, tmp_path / "mesh") as mesh:
        mesh.add(TRACED, environment={"MESHNODE_TRACE_BYTES": str(TRACE_BYTES)})
        mesh.add(NODES - TRACED)
        storm = Storm(mesh, troubles)
        with storm.blowing(), ThreadPoolExecutor(JOBS) as submitters:
            done = list(submitters.map(lambda number: run_job(storm, number, tmp_path / str(number)), range(JOBS)))
        mesh.close()
        traces = [folder for node in mesh.nodes[:TRACED] for folder in mesh.traces_of(node)]
        replayed = [infra("replay", folder, "--json").json() for folder in traces]
    assert all(verdict["ok"] for verdict in replayed), replayed
    assert len(traces) >= 2 * TRACED, "none was started again"
    figures(
        "chaos",
        seed=SEED,
        jobs=len(done),
        shards=sum(details["total_shards"] for details, _ in done),
        wasted_executions=sum(wasted_in(details) for details, _ in done),
        handed_in=sum(tries for _, tries in done),
        replayed_starts=len(traces),
        replayed_events=sum(trace["events"] for verdict in replayed for trace in verdict["traces"]),
    )


def run_job(storm: Storm, number: int, folder: Path) -> tuple[dict[str, Any], int]:
    """Hand in a small job somewhere in the storm and see to its end: its details, and how often it was handed in."""
    rng = Random(f"{SEED}/{number}")
    shards, seconds = rng.randint(1, 12), rng.choice((0.0, 0.0, 0.5, 2.0))
    folder.mkdir()
    workshop = Workshop(folder)
    workshop.model()
    submitter = Submitter(storm.mesh.nodes, folder / "home", rng)
    storm.wait_until(STORM_S * number / JOBS)
    job = submitter.hand_in(workshop.job(shards, seconds)).full_id
    done = submitter.ended(job)
    assert done.status == "success", done
    details = submitter.details(job)
    check_result(details, submitter.output(job), shards, folder)
    return details, submitter.tries


def test_a_seed_says_all_that_is_drawn() -> None:
    assert draw(7) == draw(7) != draw(8)
    for seed in range(50):
        troubles = draw(seed)
        assert Counter(trouble.kind for trouble in troubles) == {
            name: kind.times for name, kind in KINDS.items() if kind.times
        }
        assert [trouble.at_s for trouble in troubles] == sorted(trouble.at_s for trouble in troubles)
        assert all(0 <= node < NODES for trouble in troubles for node in trouble.nodes)
