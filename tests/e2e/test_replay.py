"""What real nodes have recorded, their peers do again: event by event, also over a kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import Workshop, details_of, ended, infra

SHARDS = 12


def test_traces_of_a_mesh_replay_also_over_a_kill(own_mesh: Callable[..., DevMesh], workshop: Workshop) -> None:
    mesh = own_mesh(0)
    steward, worker, _ = mesh.add(3, environment={"MESHNODE_TRACE_BYTES": str(64 << 20)})
    job = workshop.submit(steward, workshop.job(SHARDS, seconds=1.0))
    assert wait_for(lambda: 0 < details_of(steward, job)["succeeded"] < SHARDS, 60)
    steward.kill()
    mesh.restart(steward)
    assert ended(worker, job).status == "success"
    assert all_same(infra("replay", worker.home, "--json").json(), 1), "while the node runs"
    mesh.close()
    for node in mesh.nodes:
        assert all_same(infra("replay", node.home, "--json").json(), 2 if node is steward else 1)


def all_same(replayed: dict[str, Any], starts: int) -> bool:
    """Whether the traces of so many starts replayed with all that happened, and the same effects."""
    assert [trace["trace"] for trace in replayed["traces"]] == ["trace.previous.bin", "trace.bin"][-starts:]
    assert all(trace["events"] > SHARDS for trace in replayed["traces"]), replayed
    return all(trace["ok"] and "identical effects" in trace["text"] for trace in replayed["traces"])
