"""A job outlives each single party that has to do with it, whenever that party is lost for good.

The loss comes at a moment drawn for each case, the first one the instant at which the submitter hears "accepted".
INFRA_MOMENTS says how many moments each party has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from meshnode.client.errors import ClientError
from meshnode.devmesh import DevMesh, DevNode, wait_for
from protocol.identity import Ed25519Verifier
from protocol.records import JobSpec
from protocol.show import read_signed
from protocol.signing import RecordReader
from tests.e2e.conftest import Workshop
from tests.e2e.submitters import Submitter, check_result, wasted_in

MOMENTS = int(os.environ.get("INFRA_MOMENTS", "3"))
PARTIES = ("steward", "witness-1", "witness-2", "worker", "submitter")
NODES = 5
SHARDS = 8
SHARD_S = 0.8
JOB_S = 3.0
"""About as long as the job takes: the last moments may come after its end."""
ACCEPTED_WITHIN_S = 60.0
TAKEOVER_S_MAX = 5.0
QUIET_WITHIN_S = 90.0


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevMesh]:
    """Three holders and two others; each case starts again whom it has killed."""
    with DevMesh.run(tmp_path_factory.mktemp("parties"), NODES, runtime="sandbox", slots=1) as mesh:
        yield mesh


@dataclass(frozen=True)
class Running:
    """A job that was accepted a moment ago."""

    job: str
    accepted_at: float
    spec: JobSpec
    submitter: subprocess.Popen[str]


@contextmanager
def submitted(node: DevNode, path: Path, home: Path) -> Iterator[Running]:
    """A process that hands in a job and follows it, from the instant of "accepted" on."""
    words = [sys.executable, "-m", "meshnode", "submit", str(path), "--wait", "--api", node.api]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "INFRA_HOME": str(home)}
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            accepted_at = time.monotonic()
            assert "accepted" in told, told
            (signed,) = (home / "outbox").glob("*.signed")
            spec = RecordReader(Ed25519Verifier()).open(read_signed(signed.read_text().strip()), JobSpec)
            yield Running(spec.digest.hex(), accepted_at, spec.record, process)
        finally:
            process.kill()


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("party", PARTIES)
def test_a_job_outlives(
    five: DevMesh, workshop: Workshop, tmp_path: Path, figures: Callable[..., None], party: str, moment: int
) -> None:
    rng = Random(f"{party}/{moment}")
    after_s = rng.uniform(0.0, JOB_S) if moment else 0.0
    contact = rng.choice(five.nodes)
    with submitted(contact, workshop.job(SHARDS, SHARD_S), tmp_path / "home") as running:
        victim = whose(party, running.spec, five.nodes, rng)
        threading.Event().wait(running.accepted_at + after_s - time.monotonic())
        if victim is None:
            running.submitter.kill()
        else:
            victim.kill()
        killed_at = time.monotonic()
        left = [node for node in five.nodes if node is not victim]
        try:
            takeover_s = measured_takeover(left, running.job, victim, killed_at) if party == "steward" else None
            submitter = Submitter(left, tmp_path / "home", rng)
            done = submitter.ended(running.job)
            assert done.status == "success", done
            ended_s = time.monotonic() - running.accepted_at
            details = submitter.details(running.job)
            check_result(details, submitter.output(running.job), SHARDS, tmp_path)
        finally:
            if victim is not None:
                five.restart(victim)
            assert wait_for(lambda: not any(map(runs_of, five.nodes)), QUIET_WITHIN_S), "something still runs"
    measured = {"party": party, "killed_after_s": round(after_s, 2), "ended_after_s": round(ended_s, 1)}
    if takeover_s is not None:
        measured["takeover_s"] = round(takeover_s, 2)
    figures("any-party", **measured, wasted_executions=wasted_in(details))
    assert takeover_s is None or takeover_s <= TAKEOVER_S_MAX


def whose(party: str, spec: JobSpec, nodes: Sequence[DevNode], rng: Random) -> DevNode | None:
    """The node that is this party; None for the submitter, who is none."""
    holders = [spec.steward, *(holder.peer for holder in spec.holders if holder.peer != spec.steward)]
    by_id = {node.node_id: node for node in nodes}
    match party:
        case "steward":
            return by_id[holders[0]]
        case "witness-1":
            return by_id[holders[1]]
        case "witness-2":
            return by_id[holders[2]]
        case "worker":
            return rng.choice([node for node in nodes if node.node_id not in holders])
    return None


def measured_takeover(left: Sequence[DevNode], job: str, steward: DevNode, killed_at: float) -> float | None:
    """Seconds from the kill until some node names another steward; None if the job had ended without one."""
    found: list[float | None] = []

    def another_answers(node: DevNode) -> bool:
        try:
            with node.client() as client:
                seen = client.job(job)
        except ClientError:
            return bool(found)
        if seen.steward != steward.node_id:
            found.append(time.monotonic() - killed_at)
        elif seen.ended:
            found.append(None)
        return bool(found)

    with ThreadPoolExecutor(len(left)) as asking:  # all at once: one that waits for the dead holds up nobody
        list(asking.map(lambda node: wait_for(lambda: another_answers(node), 4 * TAKEOVER_S_MAX), left))
    assert found, f"no other steward within {4 * TAKEOVER_S_MAX:g} s"
    return found[0]


def runs_of(node: DevNode) -> int:
    with node.client() as client:
        return client.node()["runs"]
