"""A job that nobody can run says why, peer by peer, and runs as soon as a peer that can is there."""

from __future__ import annotations

import json

import pytest

from meshnode.client.results import Job
from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import Workshop, ended, output_of, squares

SAYS_WHY_WITHIN_S = 5.0


def reasons(mesh: DevMesh, job: str) -> dict[str, str]:
    """Why it waits, by peer, once each of the four nodes has said so."""
    seen: list[Job] = []

    def complete() -> bool:
        with mesh.nodes[1].client() as client:
            seen.append(client.job(job))
        return len(seen[-1].refusals) >= 4

    assert wait_for(complete, SAYS_WHY_WITHIN_S), seen[-1]
    assert seen[-1].status in ("queued", "running")
    assert seen[-1].waiting
    return {refusal.node_id: refusal.reason for refusal in seen[-1].refusals}


@pytest.mark.parametrize(
    ("resources", "needle"),
    [({"resources": {"memory": "999GiB"}}, "999 GiB"), ({"isolation": "container"}, "container")],
)
def test_why_nobody_runs_it(mesh: DevMesh, workshop: Workshop, resources: dict[str, object], needle: str) -> None:
    job = workshop.submit(mesh.nodes[0], workshop.job(2, **resources))
    why = reasons(mesh, job)
    assert why.keys() >= {node.node_id for node in mesh.nodes[:4]}
    assert all(needle in reason for reason in why.values()), why
    with mesh.nodes[0].client() as client:
        client.cancel(job)


def test_it_runs_when_a_peer_that_can_joins(mesh: DevMesh, workshop: Workshop) -> None:
    job = workshop.submit(mesh.nodes[0], workshop.job(3, resources={"memory": "999GiB"}))
    reasons(mesh, job)
    (large,) = mesh.add(environment={"MESHNODE_MEMORY_BYTES": str(2000 << 30)}, meet=False)
    try:
        done = ended(mesh.nodes[1], job)
        assert (done.status, done.succeeded) == ("success", 3)
        assert json.loads(output_of(mesh.nodes[2], job)) == squares(3)
    finally:
        large.process.terminate()
        large.process.wait(20)
