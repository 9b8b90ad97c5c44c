"""Placement and prices among real nodes: what an operator sets, what a job file asks for, what is shown of it."""

from __future__ import annotations

import json

from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import Workshop, details_of, ended, infra, output_of, squares


def test_a_job_runs_in_its_region_at_a_price_that_it_pays(mesh: DevMesh, workshop: Workshop) -> None:
    (guest,) = mesh.add(region="moon", price=0.5)
    node = mesh.nodes[0]
    with node.client() as client:
        shown = {peer["node_id"]: peer for peer in client.peers()}[guest.node_id]
    assert (shown["labels"], shown["price"]) == ({"region": "moon"}, 0.5)

    wanted = {"region": "moon", "spread": True}
    job = workshop.submit(node, workshop.job(placement=wanted, max_price=0.5))
    assert ended(node, job).status == "success"
    assert json.loads(output_of(node, job)) == squares(4)
    details = details_of(node, job)
    assert {receipt["node_id"] for receipt in details["receipts"]} == {guest.node_id}
    assert {award["price"] for award in details["awards"]} == {0.5}
    whys = [attempt["why"] for task in details["tasks"] for attempt in task["tries"]]
    assert "spread: 4 of at most 4 shards; price: 0.5 of at most 0.5" in whys
    (workshop.folder / "details.json").write_text(json.dumps(details))
    assert infra("verify", workshop.folder / "details.json").code == 0

    unpaid = workshop.submit(node, workshop.job(placement={"region": "moon"}, max_price=0.1))

    def reasons() -> dict[str, str]:
        with node.client() as client:
            return {refusal.node_id: refusal.reason for refusal in client.job(unpaid).refusals}

    others = {other.node_id: "region moon wanted, none here" for other in mesh.nodes[:4]}
    assert wait_for(lambda: reasons() == {**others, guest.node_id: "price 0.5 > 0.1"}, 20), reasons()
    with node.client() as client:
        client.cancel(unpaid)
    assert ended(node, unpaid).status == "cancelled"
    guest.process.terminate()
    assert guest.process.wait(10) == 0
