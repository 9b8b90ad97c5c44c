"""Peers that are confused, mistaken or hostile: the mesh goes on."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import trio

from meshnode.api.gateway import PROTOCOL as API_PROTOCOL
from meshnode.blobs.wire import PROTOCOL_ID as BLOB_PROTOCOL
from meshnode.devmesh import DevMesh, DevNode, wait_for
from meshnode.net.errors import NetworkError
from meshnode.net.framing import encode_frame
from meshnode.net.network import Network
from meshnode.node import CONTROL_PROTOCOL
from protocol.messages import Disconnect, Ping, UnknownJob, encode_message
from tests.e2e.conftest import Workshop, ended, output_of, squares

PROTOCOLS = (CONTROL_PROTOCOL, BLOB_PROTOCOL, API_PROTOCOL)
MEMORY_GROWTH_MAX = 64 << 20


def still_works(mesh: DevMesh, workshop: Workshop) -> None:
    job = workshop.submit(mesh.nodes[0], workshop.job(4))
    assert ended(mesh.nodes[1], job).status == "success"
    assert json.loads(output_of(mesh.nodes[2], job)) == squares(4)


def known_to(node: DevNode) -> set[str]:
    with node.client() as client:
        return {peer["node_id"] for peer in client.peers()}


def said(node: DevNode, word: str) -> bool:
    return word in (node.home / "node.log").read_text()


def test_a_peer_of_another_mesh_stays_outside(mesh: DevMesh, workshop: Workshop) -> None:
    (foreign,) = mesh.add(mesh="elsewhere", meet=False)
    try:
        assert wait_for(lambda: said(foreign, "mesh"), 20), "the foreigner was not told why"
        still_works(mesh, workshop)
        assert known_to(foreign) == {foreign.node_id}
        assert all(foreign.node_id not in known_to(node) for node in mesh.nodes[:4])
    finally:
        foreign.kill()


@pytest.mark.parametrize("offset_s", [86_400, -86_400])
def test_a_peer_with_a_wrong_clock_stays_outside(mesh: DevMesh, workshop: Workshop, offset_s: int) -> None:
    (wrong,) = mesh.add(environment={"MESHNODE_CLOCK_OFFSET_S": str(offset_s)}, meet=False)
    try:
        assert wait_for(lambda: said(wrong, "clock"), 20), "it was not told why"
        still_works(mesh, workshop)
        assert all(wrong.node_id not in known_to(node) for node in mesh.nodes[:4])
        assert all(node.running for node in mesh.nodes[:4])
    finally:
        wrong.kill()


def memory_of(node: DevNode) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{node.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def nonsense(rng: random.Random) -> bytes:
    """Random bytes, or a good frame with a few bytes changed."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.choice((1, 10, 1000, 100_000)))
    good = rng.choice(
        (
            encode_message(Ping(number=1, wall_ms=1)),
            encode_message(UnknownJob(job=bytes(32))),
            encode_message(Disconnect(leaving=True)),
            b'{"op":"job","job":"x"}',
            b'{"op":"\xff"}',
            b'{"op":"submit","signed":"' + b"A" * 4000 + b'"}',
        )
    )
    data = bytearray(good)
    for _ in range(rng.randrange(4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return encode_frame(bytes(data))


async def pester(node: DevNode, seed: int, times: int) -> None:
    """As strangers with fresh keys, write nonsense on every protocol of a node."""
    rng = random.Random(seed)

    async def once(network: Network, peer: str, protocol: str) -> None:
        try:
            async with await network.open_stream(peer, protocol) as stream:
                for _ in range(rng.randrange(1, 20)):
                    await stream.write(nonsense(rng))
                if rng.random() < 0.5:
                    await stream.reset()
        except NetworkError:
            pass  # thrown out, as it should be

    for _ in range(times):
        async with Network.start(rng.randbytes(32)) as network:
            peer = await network.connect(node.address)
            async with trio.open_nursery() as nursery:
                for protocol in PROTOCOLS:
                    nursery.start_soon(once, network, peer, protocol)


def test_nonsense_on_every_protocol_ends_nothing(mesh: DevMesh, workshop: Workshop) -> None:
    target = mesh.nodes[0]
    trio.run(pester, target, 1, 3)  # warm: what is allocated once is not growth
    before = memory_of(target)
    trio.run(pester, target, 2, 40)
    assert target.running
    assert memory_of(target) - before < MEMORY_GROWTH_MAX
    still_works(mesh, workshop)
    assert not said(target, "Traceback"), "nonsense has raised an exception somewhere"
