"""The record of a job: it outlives the loss of any one party. ``docs/specs/record.md``."""

from __future__ import annotations

import pytest

from tests.protocol.mesh import Mesh


def mesh_of(*names: str) -> Mesh:
    mesh = Mesh(*names)
    mesh.run_for(4)
    mesh.shards = 12
    return mesh


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_a_job_survives_the_loss_of_its_steward(moment: float) -> None:
    mesh = mesh_of("ann", "bob", "cat", "dan", "eve")
    spec = mesh.spec("ann", shard_count=12)
    assert mesh.submit("ann", spec).accepted
    mesh.run_for(moment)
    mesh.kill("ann")
    mesh.run_for(30)
    status = mesh.status("dan", spec, start=0)
    assert status.view.status == "success"
