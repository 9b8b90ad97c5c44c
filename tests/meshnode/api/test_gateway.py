"""Submitting over libp2p without a node: two real hosts on loopback, a real core in virtual time behind one of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
import trio

from meshnode.api import requests
from meshnode.api.gateway import PROTOCOL, REQUESTS_PER_PEER, Gateway, read_frame
from meshnode.api.service import Service
from meshnode.blobs import wire as blob_wire
from meshnode.blobs.exchange import BlobClient, BlobServer
from meshnode.cli.group import run
from meshnode.client.client import Client
from meshnode.client.errors import ClientError, NoNode, RequestRefused
from meshnode.client.peer import PeerConnection, connect_peer
from meshnode.jobs.errors import InvalidFile
from meshnode.net.errors import NetworkError
from meshnode.net.framing import encode_frame
from meshnode.net.network import Network
from protocol.events import JobSubmitted
from protocol.identity import Ed25519Verifier, PeerId
from protocol.limits import DEFAULT_LIMITS
from protocol.profile import Policy
from protocol.records import JobSpec
from protocol.show import show_signed
from protocol.signing import RecordReader, Signed, sign
from protocol.verify import verify
from protocol.wire import Link
from tests.meshnode.api.fakes import FakeNode, a_mesh
from tests.meshnode.client.jobs import write_job
from tests.protocol.mesh import signer

ERRORS = (NetworkError, OSError)


class NodeOnTheNetwork(FakeNode):
    """Fetches from whoever the sources are, over libp2p."""

    network: Network

    async def fetch_blob(self, link: Link, sources: Sequence[PeerId], records: Sequence[Signed] = ()) -> None:
        if link.cid in self.mesh.contents:
            await super().fetch_blob(link, sources, records)
        else:
            client = BlobClient(self.blobs, self.network.open_stream, errors=ERRORS)
            await client.fetch(link.cid, sources, link.size)


class Running:
    """The node in a thread; ``address`` is where strangers reach it."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.node = NodeOnTheNetwork(a_mesh(ann={"policy": policy}), "ann", folder, pace_s=0.3)
        self.node.policy = policy
        self.ready: Future[str] = Future()
        self.stop = trio.Event()
        self.token: Any = None

    async def serve(self) -> None:
        async with Network.start(b"g" * 32) as network:
            self.node.network = network
            Gateway(Service(self.node)).register(network)
            server = BlobServer(self.node.blobs, may_serve=lambda peer, cid: True, errors=ERRORS)
            network.handle(blob_wire.PROTOCOL_ID, server.serve)
            self.token = trio.lowlevel.current_trio_token()
            self.ready.set_result(network.addresses[0])
            await self.stop.wait()


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def running(tmp_path: Path, policy: Policy) -> Iterator[Running]:
    running = Running(tmp_path / "node", policy)
    thread = Thread(target=trio.run, args=(running.serve,))
    thread.start()
    try:
        running.ready.result(timeout=20)
        yield running
    finally:
        running.token.run_sync_soon(running.stop.set)
        thread.join(20)


def test_a_stranger_submits_follows_and_fetches(running: Running, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Client.to_peer(running.ready.result(), home) as client:
        accepted = client.submit(write_job(tmp_path, job_id="stranger"))
        job = client.wait(accepted.full_id)
        assert (job.status, job.succeeded) == ("success", 4)
        found, pieces = client.output(accepted.full_id)
        assert "0x" + hashlib.sha256(b"".join(pieces)).hexdigest() == found.output_hash == job.output_hash
        assert verify(client.details(accepted.full_id), Ed25519Verifier()) == []
        assert client.cancel("stranger").status == "success"
    (submitted,) = [event for event in running.node.asked if isinstance(event, JobSubmitted)]
    spec = RecordReader(Ed25519Verifier()).open(submitted.spec, JobSpec).record
    assert all(running.node.blobs.has(link.cid) for link in spec.blobs)
    own, client_id = submitted.sources
    assert own == running.node.peer_id != client_id


def a_job(running: Running, connection: PeerConnection, steward: str) -> tuple[Link, requests.Submit]:
    """A file at the client, and the request that hands in a job with it."""
    link = connection.add_bytes(b"{}")
    spec = running.node.mesh.spec(steward).record
    opened = sign(msgspec.structs.replace(spec, input=link, blobs=(link,)), signer("submitter"))
    return link, requests.Submit(signed=show_signed(opened.signed))


def test_a_job_for_another_steward_is_relayed(running: Running) -> None:
    with connect_peer(running.ready.result()) as connection:
        link, request = a_job(running, connection, "bob")
        assert connection.ask(request)["steward"] == running.node.mesh.ids["bob"]
    (submitted,) = [event for event in running.node.asked if isinstance(event, JobSubmitted)]
    assert submitted.sources == (running.node.peer_id,)
    assert not running.node.blobs.has(link.cid), "nobody needs it here any more"


@pytest.mark.parametrize("steward", ["ann", "bob"])
@pytest.mark.parametrize("policy", [Policy(submitters=(signer("somebody else").peer_id,))])
def test_nothing_is_fetched_for_a_job_that_policy_denies(running: Running, steward: str) -> None:
    with connect_peer(running.ready.result()) as connection:
        link, request = a_job(running, connection, steward)
        with pytest.raises(RequestRefused, match="submitter denied by policy"):
            connection.ask(request)
    assert not running.node.blobs.has(link.cid)
    assert not running.node.blobs.partial(link.cid)


def test_a_job_with_too_many_bytes_is_refused_before_the_first_one(running: Running) -> None:
    with connect_peer(running.ready.result()) as connection:
        link = connection.add_bytes(b"{}")
        spec = running.node.mesh.spec("ann").record
        huge = Link(cid=link.cid, size=DEFAULT_LIMITS.copy_bytes_max + 1)
        opened = sign(msgspec.structs.replace(spec, input=link, blobs=(huge,)), signer("submitter"))
        with pytest.raises(RequestRefused, match="more than the"):
            connection.ask(requests.Submit(signed=show_signed(opened.signed)))
    assert not [event for event in running.node.asked if isinstance(event, JobSubmitted)]


def test_the_command_line_needs_no_node(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFRA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("INFRA_API", raising=False)
    job = str(write_job(tmp_path))
    assert run(["submit", job, "--wait", "--json", "--peer", running.ready.result()]) == 0
    assert json.loads(capfd.readouterr().out)["status"] == "success"


def test_bad_jobs_are_refused_over_libp2p_too(running: Running, tmp_path: Path) -> None:
    with Client.to_peer(running.ready.result(), tmp_path / "home") as client:
        for changes, sentence in (
            ({"model": "nothing-v1"}, "job.json: model: no model 'nothing-v1' is published in this mesh"),
            ({"input": {"image_url": "ipfs://bafkreib"}}, "job.json: input.image_url: the node does not have"),
        ):
            with pytest.raises(InvalidFile) as caught:
                client.submit(write_job(tmp_path, **changes))
            assert str(caught.value).startswith(sentence)
        with pytest.raises(RequestRefused, match="no job 'dead-beef' is known"):
            client.job("dead-beef")
    assert not [event for event in running.node.asked if isinstance(event, JobSubmitted)]


def test_the_nodes_own_affairs_are_not_for_strangers(running: Running, tmp_path: Path) -> None:
    with Client.to_peer(running.ready.result(), tmp_path / "home") as client:
        for ask in (client.peers, client.jobs, client.models, client.node, client.doctor):
            with pytest.raises(ClientError, match="only a node of one's own"):
                ask()


def test_where_nobody_answers_there_is_no_node(tmp_path: Path) -> None:
    address = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWLd7bbHbmM9ceuH1bsoCFL16UXgQ7vTQVLr4vMTdLHd5x"
    with pytest.raises(NoNode, match="no node answers at"), Client.to_peer(address, tmp_path):
        pass
    for address in ("nonsense", "/ip4/127.0.0.1/tcp/9"):
        with pytest.raises(RequestRefused, match="--peer"), Client.to_peer(address, tmp_path):
            pass


async def exchanged(address: str, frames: Sequence[bytes]) -> list[Any]:
    """What the node answers to each of ``frames``, on a stream of its own; None for a stream that just ends."""
    answers: list[Any] = []
    async with Network.start(b"h" * 32) as network:
        node = await network.connect(address)
        for frame in frames:
            try:
                async with await network.open_stream(node, PROTOCOL) as stream:
                    await stream.write(frame)
                    await stream.close_write()
                    answers.append(msgspec.json.decode(await read_frame(stream, 1 << 20)))
            except NetworkError:
                answers.append(None)
    return answers


def test_what_is_no_request_is_answered_and_the_node_goes_on(running: Running) -> None:
    frames = [
        encode_frame(b"not JSON"),
        encode_frame(b"[" * 10_000),
        encode_frame(b'{"op": "peers"}'),
        encode_frame(b'{"op": "job"}'),
        encode_frame(b'{"op": "job", "job": "x", "more": 1}'),
        encode_frame(b'{"op": "submit", "signed": "AAAA"}'),
        b"\x05abc",
        b"",
        b"\xff\xff\xff\xff\xff",
        encode_frame(b'{"op": "propose"}'),
    ]
    *refused, proposed = trio.run(exchanged, running.ready.result(), frames)
    for answer in refused[:8]:
        assert answer["error"]["code"] == "bad-request"
    assert refused[8] is None
    assert proposed["result"]["node_id"] == running.node.peer_id
    assert not [event for event in running.node.asked if isinstance(event, JobSubmitted)]


def test_a_stranger_cannot_hold_many_requests_open(running: Running) -> None:
    async def hold_open() -> None:
        async with Network.start(b"h" * 32) as network:
            node = await network.connect(running.ready.result())
            held = [await network.open_stream(node, PROTOCOL) for _ in range(REQUESTS_PER_PEER)]
            for stream in held:
                await stream.write(b"\x7f")
            with trio.fail_after(5):
                assert await one_more(network, node) is None
            for stream in held:
                await stream.reset()

    async def one_more(network: Network, node: str) -> bytes | None:
        try:
            async with await network.open_stream(node, PROTOCOL) as stream:
                return await read_frame(stream, requests.REQUEST_BYTES_MAX)
        except NetworkError:
            return None

    trio.run(hold_open)
