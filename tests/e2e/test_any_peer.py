"""Any peer will do: to publish to, to submit to, and to ask."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import Workshop, details_of, ended, infra, output_of, squares


def test_publish_submit_and_ask_each_at_another_peer(mesh: DevMesh, workshop: Workshop) -> None:
    one, two, three, four = mesh.nodes[:4]
    with one.client() as client:
        client.publish(workshop.folder / "model")
    job = workshop.submit(two, workshop.job(8, model="squares-v1"))
    done = ended(three, job)
    assert (done.status, done.succeeded, done.total_shards, done.merge_status) == ("success", 8, 8, "success")
    output = output_of(four, job)
    assert json.loads(output) == squares(8)
    assert f"0x{hashlib.sha256(output).hexdigest()}" == done.output_hash
    details = details_of(four, job)
    assert len(details["receipts"]) == 8 + 2
    assert len({receipt["node_id"] for receipt in details["receipts"]}) >= 2


def test_the_command_line_from_end_to_end(mesh: DevMesh, workshop: Workshop, tmp_path: Path) -> None:
    node, other = mesh.nodes[2], mesh.nodes[3]
    home = {"INFRA_HOME": str(tmp_path / "home")}
    submitted = infra("submit", workshop.job(4), "--wait", "--json", "--api", node.api, **home).json()
    assert submitted["status"] == "success"
    short = submitted["job_id"]
    assert infra("job", "--id", short, "--json", "--api", other.api).json() == submitted
    target = tmp_path / "out.json"
    assert infra("output", "--job", short, "-o", target, "--api", other.api).code == 0
    assert f"0x{hashlib.sha256(target.read_bytes()).hexdigest()}" == submitted["output_hash"]
    assert short in infra("jobs", "--api", other.api).out
    assert len(infra("peers", "--json", "--api", other.api).json()) >= 4
    assert infra("doctor", "--json", "--api", node.api).code == 0


def test_submitting_without_a_node(mesh: DevMesh, workshop: Workshop, tmp_path: Path) -> None:
    address = mesh.nodes[1].address
    home = {"INFRA_HOME": str(tmp_path / "home")}
    done = infra("submit", workshop.job(4), "--wait", "--json", "--peer", address, **home).json()
    assert (done["status"], done["succeeded"]) == ("success", 4)
    assert json.loads(output_of(mesh.nodes[3], done["full_id"])) == squares(4)


def test_cancel(mesh: DevMesh, workshop: Workshop) -> None:
    job = workshop.submit(mesh.nodes[0], workshop.job(8, seconds=60))

    def runs() -> bool:
        with mesh.nodes[0].client() as client:
            return client.job(job).running > 0

    assert wait_for(runs, 60)
    with mesh.nodes[2].client() as client:
        assert client.cancel(job).status == "cancelled"
    assert ended(mesh.nodes[3], job).status == "cancelled"

    def idle() -> bool:
        counts = []
        for node in mesh.nodes[:4]:
            with node.client() as client:
                counts.append(client.node()["runs"])
        return not any(counts)

    assert wait_for(idle, 20), "cancelled tasks still run"
