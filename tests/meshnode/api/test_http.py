"""The HTTP API over a real server on loopback and a real core in virtual time."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from meshnode.api.http import make_app, serve_http
from meshnode.api.requests import REQUEST_BYTES_MAX
from meshnode.api.service import Service
from protocol import show
from protocol.events import PointerPublished, StatusAsked
from protocol.identity import Ed25519Verifier
from protocol.records import Cancel, JobPointer, ModelPointer
from protocol.signing import sign
from protocol.verify import verify
from protocol.wire import Link, Role, Task
from tests.meshnode.api.fakes import TOKEN, FakeNode, OutputMesh, a_mesh
from tests.protocol.mesh import signer

pytestmark = pytest.mark.trio


@asynccontextmanager
async def an_api(folder: Path, mesh: OutputMesh | None = None) -> AsyncIterator[tuple[FakeNode, httpx.AsyncClient]]:
    node = FakeNode(mesh or a_mesh(), "ann", folder)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_http, Service(node), TOKEN)
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as client:
            yield node, client
        nursery.cancel_scope.cancel()


async def submitted(node: FakeNode, client: httpx.AsyncClient, **job: Any) -> Any:
    """A job whose blobs are at the node, handed in through HTTP."""
    spec = await with_blobs(node, client, **job)
    answer = await client.post("/v1/jobs", json={"signed": show.show_signed(spec.signed)})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def with_blobs(node: FakeNode, client: httpx.AsyncClient, *, submitter: str = "submitter", **job: Any) -> Any:
    added = (await client.post("/v1/blobs", content=b"{}")).json()
    link = Link(cid=added["cid"], size=added["size"])
    spec = node.mesh.spec(node.name, **job).record
    key = signer(submitter)
    return sign(msgspec.structs.replace(spec, input=link, blobs=(link,), submitter=key.peer_id), key)


async def test_a_job_from_handing_in_to_its_verified_details(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        accepted = await submitted(node, client, alias="bd92-e3f1")
        assert accepted["job_id"] == "bd92-e3f1"
        assert accepted["copies"] == 2
        node.mesh.run_for(5)

        job = (await client.get(f"/v1/jobs/{accepted['full_id']}")).json()
        assert (job["status"], job["succeeded"], job["total_shards"]) == ("success", 4, 4)
        assert [one["job_id"] for one in (await client.get("/v1/jobs")).json()["jobs"]] == ["bd92-e3f1"]
        details = (await client.get("/v1/jobs/bd92-e3f1/details")).json()
        assert [receipt["job_id"] for receipt in details["receipts"]] == [
            "bd92-e3f1.split",
            *(f"bd92-e3f1-0{index}" for index in range(4)),
            "bd92-e3f1.merge",
        ]
        assert verify(details, Ed25519Verifier()) == []

        output = await client.get("/v1/jobs/bd92-e3f1/output")
        assert output.content == b'["merge 0"]'
        assert output.headers["x-cid"] == job["output"]["cid"]


async def test_a_job_is_found_by_the_start_of_its_id_and_from_another_peer(tmp_path: Path) -> None:
    mesh = a_mesh()
    async with an_api(tmp_path / "ann", mesh) as (node, client):
        accepted = await submitted(node, client)
        bob = Service(FakeNode(mesh, "bob", tmp_path / "bob"))
        for text in (accepted["job_id"], accepted["full_id"][:7], accepted["full_id"]):
            assert (await bob.jobs.one(text))["full_id"] == accepted["full_id"]
        mesh.run_for(5)
        output = await bob.jobs.output(accepted["job_id"])
        assert bob.node.blobs.has(output["cid"])


async def test_details_of_many_pages_are_gathered(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        accepted = await submitted(node, client, shard_count=100)
        node.mesh.run_for(60)
        details = (await client.get(f"/v1/jobs/{accepted['full_id']}/details")).json()
        assert len(details["receipts"]) == 102
        assert verify(details, Ed25519Verifier()) == []


async def test_of_two_jobs_with_one_alias_the_newest_is_meant(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        first = await submitted(node, client, alias="nightly")
        node.mesh.run_for(1)
        second = await submitted(node, client, alias="nightly")
        assert (await client.get("/v1/jobs/nightly")).json()["full_id"] == second["full_id"] != first["full_id"]
        by_id = await client.get(f"/v1/jobs/{first['full_id'][:12]}")
        assert by_id.json()["full_id"] == first["full_id"]


async def test_an_alias_of_two_submitters_is_ambiguous_to_a_third(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        await submitted(node, client, alias="nightly")
        theirs = await submitted(node, client, alias="nightly", submitter="somebody else")
        answer = await client.get("/v1/jobs/nightly")
        assert answer.status_code == 409
        assert "may mean 2 jobs" in answer.json()["error"]["message"]
        own = await client.get("/v1/jobs/nightly", params={"submitter": signer("somebody else").peer_id})
        assert own.json()["full_id"] == theirs["full_id"]


async def test_a_false_steward_changes_nothing(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        accepted = await submitted(node, client, alias="mine")
        for liar in (signer("cyd"), signer("nobody")):
            pointer = JobPointer(
                job=bytes.fromhex(accepted["full_id"]),
                submitter=signer("submitter").peer_id,
                alias="mine",
                holders=(),
                steward=liar.peer_id,
                issued_at=node.wall() + 1_000,
                not_after=node.wall() + 3_600_000,
            )
            node.mesh.give(node.peer_id, PointerPublished(0, sign(pointer, liar).signed))
        node.mesh.run_for(1)
        assert (await client.get("/v1/jobs/mine")).json()["steward"] == node.peer_id
        assert [job["steward"] for job in (await client.get("/v1/jobs")).json()["jobs"]] == [node.peer_id]


@pytest.mark.parametrize("with_spec", [True, False])
async def test_what_does_not_come_with_the_jobs_own_spec_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_spec: bool
) -> None:
    async with an_api(tmp_path) as (node, client):
        wanted, other = await submitted(node, client), await submitted(node, client)
        honest = node.ask

        async def dishonest(make_event: Any, timeout_s: float) -> Any:
            event = make_event(0)
            if not isinstance(event, StatusAsked):
                return await honest(make_event, timeout_s)
            job = bytes.fromhex(other["full_id"])
            answer = await honest(lambda number: StatusAsked(number, job, event.steward), timeout_s)
            if with_spec:
                return answer
            view = msgspec.structs.replace(answer.view, job=event.job)
            return msgspec.structs.replace(answer, view=view, spec=None)

        monkeypatch.setattr(node, "ask", dishonest)
        answer = await client.get(f"/v1/jobs/{wanted['full_id']}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "no-answer")


async def a_job_at_bob(mesh: OutputMesh, client: httpx.AsyncClient, folder: Path, **job: Any) -> Service:
    """Handed in to bob, its steward."""
    bob = Service(FakeNode(mesh, "bob", folder))
    spec = mesh.spec("bob", **job).record
    added = (await client.post("/v1/blobs", content=b"{}")).json()
    mesh.contents[added["cid"]] = b"{}"
    link = Link(cid=added["cid"], size=added["size"])
    signed = sign(msgspec.structs.replace(spec, input=link, blobs=(link,)), signer("submitter")).signed
    await bob.jobs.submit(show.show_signed(signed), [])
    return bob


async def test_a_job_whose_steward_is_gone_is_found_at_the_one_that_took_over(tmp_path: Path) -> None:
    mesh = a_mesh("ann", "bob", "cyd", "dan")
    async with an_api(tmp_path / "ann", mesh) as (_, client):
        mesh.held_runs.update(mesh.peers)
        await a_job_at_bob(mesh, client, tmp_path / "bob", alias="lasting")
        mesh.run_for(1)
        assert (await client.get("/v1/jobs/lasting")).json()["steward"] == mesh.ids["bob"]
        mesh.held_runs.clear()
        mesh.kill("bob")
        for peer, run in [one for one in mesh.runs if one[0] != mesh.ids["bob"]]:
            mesh.finish(peer, run)  # whoever has the split: who that is depends on the job's hash
        mesh.run_for(60)
        for path in ("/v1/jobs/lasting", "/v1/jobs/lasting/details"):
            job = (await client.get(path)).json()
            assert (job["status"], job["provisional"]) == ("success", None)
            assert job["steward"] != mesh.ids["bob"]
        assert [one["job_id"] for one in (await client.get("/v1/jobs")).json()["jobs"]] == ["lasting"]
        assert (await client.get("/v1/jobs/lasting/output")).content == b'["merge 0"]'


@pytest.mark.parametrize("task", [Task(role=Role.SPLIT), Task(index=2), Task(role=Role.MERGE)], ids=str)
@pytest.mark.parametrize("end", ["failed", "cancelled"])
@pytest.mark.parametrize("lost", ["", "bob"])
async def test_however_a_job_ended_it_can_be_verified(tmp_path: Path, task: Task, end: str, lost: str) -> None:
    """Asked of each node, also when its first steward is gone."""
    mesh = a_mesh("ann", "bob", "cyd", "dan")
    async with an_api(tmp_path / "ann", mesh) as (node, client):
        if end == "failed":
            mesh.fail_task[task] = "no such star"
        await a_job_at_bob(mesh, client, tmp_path / "bob", alias="ended")
        mesh.run_for(0.15)
        if lost:
            mesh.kill(lost)
        if end == "cancelled":
            key = signer("submitter")
            job = bytes.fromhex((await client.get("/v1/jobs/ended")).json()["full_id"])
            record = sign(Cancel(job=job, submitter=key.peer_id, issued_at=node.wall()), key)
            assert (await client.post("/v1/cancel", json={"signed": show.show_signed(record.signed)})).is_success
        mesh.run_for(60)
        for name in ("ann", "cyd", "dan"):
            service = Service(FakeNode(mesh, name, tmp_path / f"again {name}"))
            details = await service.jobs.details("ended")
            assert details["status"] in (end, "success") if end == "cancelled" else details["status"] == end
            assert verify(details, Ed25519Verifier()) == []


async def test_a_job_all_of_whose_holders_are_gone_has_no_answer(tmp_path: Path) -> None:
    mesh = a_mesh("ann", "bob")
    async with an_api(tmp_path / "ann", mesh) as (_, client):
        await a_job_at_bob(mesh, client, tmp_path / "bob", alias="lost")
        mesh.kill("bob")
        mesh.run_for(1)
        answer = await client.get("/v1/jobs/lost")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "no-answer")
        (listed,) = (await client.get("/v1/jobs")).json()["jobs"]
        assert listed["status"] == "unknown"
        assert mesh.ids["bob"] in listed["waiting"]


async def test_without_a_majority_a_result_is_provisional_and_a_cancel_requested(tmp_path: Path) -> None:
    mesh = a_mesh()
    async with an_api(tmp_path, mesh) as (node, client):
        mesh.held_runs.update({mesh.ids["bob"], mesh.ids["cyd"]})
        accepted = await submitted(node, client)
        mesh.kill("bob")
        mesh.kill("cyd")
        mesh.run_for(60)
        job = (await client.get(f"/v1/jobs/{accepted['full_id']}")).json()
        assert (job["status"], job["output_hash"]) == ("running", None)
        made = show.show_hash(hashlib.sha256(b'["merge 0"]').digest())
        assert job["provisional"] == {"status": "success", "output_hash": made, "by": node.peer_id}
        key = signer("submitter")
        record = sign(Cancel(job=bytes.fromhex(accepted["full_id"]), submitter=key.peer_id, issued_at=node.wall()), key)
        answer = await client.post("/v1/cancel", json={"signed": show.show_signed(record.signed)})
        assert answer.json()["status"] == "requested"


async def test_only_the_submitter_cancels(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        node.mesh.held_runs.update(node.mesh.peers)
        job = bytes.fromhex((await submitted(node, client))["full_id"])

        async def cancel(name: str) -> httpx.Response:
            key = signer(name)
            record = sign(Cancel(job=job, submitter=key.peer_id, issued_at=node.wall()), key)
            return await client.post("/v1/cancel", json={"signed": show.show_signed(record.signed)})

        assert (await cancel("somebody else")).status_code == 409
        assert (await cancel("submitter")).json()["status"] == "cancelled"


async def test_a_finished_job_is_not_cancelled_but_its_result_shown(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        accepted = await submitted(node, client)
        node.mesh.run_for(5)
        key = signer("submitter")
        record = sign(Cancel(job=bytes.fromhex(accepted["full_id"]), submitter=key.peer_id, issued_at=node.wall()), key)
        answer = (await client.post("/v1/cancel", json={"signed": show.show_signed(record.signed)})).json()
        job = (await client.get(f"/v1/jobs/{accepted['full_id']}")).json()
        assert (answer["status"], answer["output_hash"]) == ("success", job["output_hash"])


async def test_a_job_that_supersedes_another_ends_it(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        node.mesh.held_runs.update(node.mesh.peers)
        first = await submitted(node, client)
        second = msgspec.structs.replace(node.mesh.spec("ann").record, supersedes=bytes.fromhex(first["full_id"]))
        signed = show.show_signed(sign(second, signer("submitter")).signed)
        answer = (await client.post("/v1/cancel", json={"signed": signed})).json()
        assert (answer["full_id"], answer["status"]) == (first["full_id"], "cancelled")


async def test_a_published_model_is_found_from_another_peer(tmp_path: Path) -> None:
    mesh = a_mesh()
    async with an_api(tmp_path / "ann", mesh) as (node, client):
        content = b'{"files":[],"model":{"command":["true"],"model_id":"features-v1"}}'
        manifest = (await client.post("/v1/blobs", content=content)).json()
        mesh.contents[manifest["cid"]] = content
        key = signer("publisher")
        pointer = ModelPointer(
            publisher=key.peer_id,
            model="features-v1",
            manifest=Link(**manifest),
            keepers=(node.peer_id,),
            issued_at=node.wall(),
            not_after=node.wall() + 3_600_000,
        )
        answer = await client.post("/v1/models", json={"signed": show.show_signed(sign(pointer, key).signed)})
        assert answer.status_code == 200, answer.text
        mesh.run_for(2)
        bob = Service(FakeNode(mesh, "bob", tmp_path / "bob"))
        for text in ("features-v1", f"{key.peer_id}/features-v1", manifest["cid"]):
            found = await bob.models.resolve(text)
            assert found["manifest"] == manifest
            assert found["content"]["model"]["model_id"] == "features-v1"
        assert [model["name"] for model in await bob.models.published()] == ["features-v1"]


async def test_unknown_things_are_not_found(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (_, client):
        for path, message in {
            "/v1/models/nothing-v1": "no model 'nothing-v1' is published in this mesh",
            "/v1/jobs/dead-beef": "no job 'dead-beef' is known in this mesh",
            "/v1/nowhere": "GET /v1/nowhere: not found",
        }.items():
            answer = await client.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"]["message"] == message


async def test_blobs_go_both_ways_in_pieces(tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    async with an_api(tmp_path) as (_, client):
        added = (await client.put("/v1/blobs", content=pieces())).json()
        assert added["size"] == len(content)
        answer = await client.get(f"/v1/blobs/{added['cid']}")
        assert answer.content == content
        assert (await client.get("/v1/blobs/nonsense")).status_code == 400
        assert (await client.get(f"/v1/blobs/{added['cid'][:-1]}")).status_code == 400


# -- who is let in, and what is refused ------------------------------------------------------------------------------


async def test_nothing_is_answered_without_the_token(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (_, client):
        basic = base64.b64encode(f"{TOKEN}:".encode()).decode()
        for header, status in {
            "": 401,
            "Bearer": 401,
            f"Bearer {TOKEN}x": 401,
            "Basic %%%": 401,
            f"Bearer {TOKEN}": 200,
            f"Basic {basic}": 200,
        }.items():
            answer = await client.get("/v1/node", headers={"authorization": header})
            assert answer.status_code == status, header
        refused = await client.get("/v1/nowhere", headers={"authorization": ""})
        assert refused.json()["error"]["code"] == "unauthorized"


async def test_the_api_listens_on_loopback_only() -> None:
    service = Service(None)  # type: ignore[arg-type]
    for host in ("0.0.0.0", "192.168.1.1", "::"):
        with pytest.raises(ValueError, match="not a loopback address"):
            await serve_http(service, TOKEN, host=host)
    with pytest.raises(ValueError, match="characters"):
        make_app(service, "short")


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        (b"", 400, ""),
        (b"[]", 400, ""),
        (b'{"signed": 5}', 400, "signed"),
        (b'{"signed": "AAAA"}', 400, "signed"),
        (b'{"signed": "", "more": 1}', 400, ""),
        (b'{"signed": "' + b"A" * REQUEST_BYTES_MAX + b'"}', 413, ""),
        (b"[" * 100_000, 400, ""),
    ],
)
async def test_a_request_that_is_none_is_refused_with_its_place(
    body: bytes, status: int, place: str, tmp_path: Path
) -> None:
    async with an_api(tmp_path) as (node, client):
        answer = await client.post("/v1/jobs", content=body)
        assert (answer.status_code, answer.json()["error"]["place"]) == (status, place), answer.text
        assert node.asked == []


async def test_a_spec_without_its_blobs_is_refused(tmp_path: Path) -> None:
    async with an_api(tmp_path) as (node, client):
        spec = await with_blobs(node, client)
        await node.blobs.remove(spec.record.input.cid)
        answer = await client.post("/v1/jobs", json={"signed": show.show_signed(spec.signed)})
        assert answer.status_code == 409
        assert "its files could not be fetched" in answer.json()["error"]["message"]


async def test_a_fault_of_the_node_is_an_answer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_api(tmp_path) as (node, client):
        monkeypatch.setattr(node, "snapshot", lambda: 1 // 0)
        answer = await client.get("/v1/node")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        monkeypatch.undo()
        assert (await client.get("/v1/node")).status_code == 200
