"""Many small shards through four node processes, some of which are killed and restarted: what stays with a node?

The model is warm: what is looked at is the node, and starting a process for each shard would take most of the time.

A process that was restarted has forgotten what it may have leaked. So two of the nodes are let run from the first
quarter on: of these memory, descriptors and threads must be flat over the last quarter, of all four the disk. Until
then tables fill that have a bound: thousands of awards and records, a thousand ended jobs.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

from meshnode.client import compile as compiling
from meshnode.devmesh import DevMesh
from tests.e2e.conftest import Workshop
from tests.e2e.submitters import Submitter, check_result, wasted_in
from tests.soak import brief
from tests.soak.pieces import Json, RunPiece
from tests.soak.sampling import MEASURES, growth, sample

SHARDS = 50_000
SHARDS_PER_JOB = 500
"""In 167 tasks of three."""
JOBS_PER_PIECE = 10
JOBS_AT_ONCE = 3
NODES = 4
LET_RUN = (0, 1)
"""Nodes that are not restarted after the first quarter: by the last they have all that they will keep."""
SAMPLE_EVERY_S = 1.0
RESTART_EVERY_S = (10.0, 30.0)
DOWN_S = (0.0, 4.0)
TIMEOUT_S = 60
"""Of a task; one that is longer than a job is kept would be refused."""
PROGRAM = """
from meshmodel import serve
serve(lambda given: [number * number for number in given["items"]])
"""


class SoakMesh(DevMesh):
    command = (sys.executable, "-m", "tests.soak.brief")


class ShardsPart:
    name = "shards"

    def __init__(self, scale: float) -> None:
        self._jobs = max(2, round(SHARDS * scale / SHARDS_PER_JOB))
        self._ranges = {
            f"{first:04}": range(first, min(first + JOBS_PER_PIECE, self._jobs))
            for first in range(0, self._jobs, JOBS_PER_PIECE)
        }
        self.pieces = tuple(self._ranges)

    @contextmanager
    def running(self, folder: Path) -> Iterator[RunPiece]:
        with (
            patch.object(compiling, "DEFAULT_LIMITS", brief.LIMITS),
            SoakMesh.run(folder / "mesh", NODES, runtime="sandbox", slots=1) as mesh,
        ):
            yield lambda piece: self._run(mesh, self._ranges[piece], folder)

    def summary(self, results: Sequence[Json]) -> Json:
        jobs = [job for result in results for job in result["jobs"]]
        nodes = []
        for number in range(NODES):
            samples = [one for result in results for one in result["samples"][number]]
            nodes.append(growth(samples, since=self._jobs * SHARDS_PER_JOB * 3 // 4))
        flat = all(
            node[measure]["flat"]
            for number, node in enumerate(nodes)
            for measure in MEASURES
            if number in LET_RUN or measure == "disk"
        )
        return {
            "ok": flat and all(result["ok"] for result in results),
            "shards": sum(job.get("shards", 0) for job in jobs),
            "jobs": len(jobs),
            "jobs_that_failed": [job for job in jobs if "error" in job],
            "wasted_executions": sum(job.get("wasted", 0) for job in jobs),
            "restarts": sum(result["restarts"] for result in results),
            "let_run": LET_RUN,
            "nodes": nodes,
            "memory_by_tenths": [self._memory_by_tenths(results, number) for number in LET_RUN],
        }

    def _memory_by_tenths(self, results: Sequence[Json], number: int) -> list[int]:
        """A node's memory on average, in bytes, over each tenth of the shards that there are samples of."""
        tenths: dict[int, list[int]] = {}
        for result in results:
            for one in result["samples"][number]:
                tenths.setdefault(one["shards"] * 10 // (self._jobs * SHARDS_PER_JOB), []).append(one["memory"])
        return [round(sum(taken) / len(taken)) for tenth, taken in sorted(tenths.items()) if tenth < 10]

    def _run(self, mesh: DevMesh, jobs: range, folder: Path) -> Json:
        """One piece: its jobs, while nodes are restarted and looked at."""
        over = threading.Event()
        progress = _Progress(jobs.start * SHARDS_PER_JOB)
        samples: list[list[Json]] = [[] for _ in mesh.nodes]
        late = jobs.start >= self._jobs // 4
        rng = Random(jobs.start)

        def look() -> None:
            while not over.wait(SAMPLE_EVERY_S):
                for node, taken in zip(mesh.nodes, samples, strict=True):
                    if (one := sample(node.pid, node.home, progress.shards)) is not None:
                        taken.append(one.as_json())

        def restart() -> int:
            count = 0
            choice = [node for number, node in enumerate(mesh.nodes) if not (late and number in LET_RUN)]
            while not over.wait(rng.uniform(*RESTART_EVERY_S)):
                node = rng.choice(choice)
                node.kill()
                over.wait(rng.uniform(*DOWN_S))
                mesh.restart(node, meet=False)
                count += 1
            return count

        with ThreadPoolExecutor(2) as around, ThreadPoolExecutor(JOBS_AT_ONCE) as submitters:
            looking, restarting = around.submit(look), around.submit(restart)
            try:
                done = list(submitters.map(lambda number: _job(mesh, number, folder, progress.add), jobs))
            finally:
                over.set()
            looking.result()
            restarts = restarting.result()
        ok = not any("error" in job for job in done)
        return {"ok": ok, "jobs": done, "restarts": restarts, "samples": samples}


class _Progress:
    """How many shards are done; told by several threads."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._lock = threading.Lock()

    def add(self, shards: int) -> None:
        with self._lock:
            self.shards += shards


def _job(mesh: DevMesh, number: int, folder: Path, add: Callable[[int], None]) -> Json:
    """One job from its file to its verified receipts; nothing of it stays here."""
    own = folder / f"job{number}"
    shutil.rmtree(own, ignore_errors=True)  # of a run that was interrupted
    own.mkdir()
    workshop = Workshop(own)
    workshop.model(PROGRAM, serve="warm", timeout_s=TIMEOUT_S)
    submitter = Submitter(mesh.nodes, own / "home", Random(number))
    try:
        job = submitter.hand_in(workshop.job(SHARDS_PER_JOB, deadline_s=brief.KEPT_S)).full_id
        submitter.ended(job)
        details = submitter.details(job)
        check_result(details, submitter.output(job), SHARDS_PER_JOB, own)
    except Exception as error:  # a finding: the soak goes on
        return {"number": number, "error": f"{type(error).__name__}: {str(error)[:1000]}"}
    finally:
        shutil.rmtree(own)
    add(SHARDS_PER_JOB)
    return {"number": number, "shards": SHARDS_PER_JOB, "wasted": wasted_in(details), "handed_in": submitter.tries}
