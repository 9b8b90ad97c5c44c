"""A job's files at a node that is not its steward: for as long as they are needed, and no longer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from meshnode import retention
from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from meshnode.api.relaying import STRANGERS_AT_ONCE, Relay
from meshnode.blobs.cid import RAW, Cid
from protocol.profile import Policy
from protocol.records import JobSpec
from protocol.wire import Link
from tests.meshnode.api.fakes import FakeNode, a_mesh
from tests.protocol.mesh import signer

pytestmark = pytest.mark.trio

CONTENT = b"a file of the job"
LINK = Link(cid=str(Cid.of(RAW, CONTENT)), size=len(CONTENT))


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    mesh = a_mesh()
    mesh.contents[LINK.cid] = CONTENT
    return FakeNode(mesh, "ann", tmp_path)


@pytest.fixture
def relay(node: FakeNode) -> Relay:
    return Relay(Core(node))


@pytest.fixture
def spec(node: FakeNode) -> JobSpec:
    return msgspec.structs.replace(node.mesh.spec("bob").record, input=LINK, blobs=(LINK,))


async def test_files_go_again_after_the_last_job_that_needs_them(node: FakeNode, relay: Relay, spec: JobSpec) -> None:
    async with relay.files_of(spec, [], stranger=True):
        async with relay.files_of(spec, [], stranger=False):
            assert node.blobs.has(LINK.cid)
        assert node.blobs.has(LINK.cid)
    assert not node.blobs.has(LINK.cid)


async def test_what_was_here_before_stays(node: FakeNode, relay: Relay, spec: JobSpec) -> None:
    await node.blobs.add_bytes(CONTENT)
    async with relay.files_of(spec, [], stranger=True):
        pass
    assert node.blobs.has(LINK.cid)


async def test_what_somebody_else_came_to_want_stays(node: FakeNode, relay: Relay, spec: JobSpec) -> None:
    async with relay.files_of(spec, [], stranger=True):
        retention.keep_until(node.blobs, LINK.cid, trio.current_time() + 4e9)
    assert node.blobs.has(LINK.cid)


async def test_a_file_that_nobody_gives_is_said(node: FakeNode, relay: Relay, spec: JobSpec) -> None:
    node.mesh.contents.clear()
    with pytest.raises(ApiError, match="a file of the job cannot be had"):
        async with relay.files_of(spec, [], stranger=False):
            pass


async def test_policy_is_asked_before_anything_is_fetched_for_a_stranger(
    node: FakeNode, relay: Relay, spec: JobSpec
) -> None:
    node.policy = Policy(submitters=(signer("somebody else").peer_id,))
    with pytest.raises(ApiError, match="submitter denied by policy"):
        async with relay.files_of(spec, [], stranger=True):
            pass
    assert not node.blobs.has(LINK.cid)
    async with relay.files_of(spec, [], stranger=False):  # the node's own people
        assert node.blobs.has(LINK.cid)


async def test_few_strangers_at_a_time(relay: Relay, spec: JobSpec) -> None:
    async def hold(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with relay.files_of(spec, [], stranger=True):
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(STRANGERS_AT_ONCE):
            await nursery.start(hold)
        with pytest.raises(ApiError, match="busy"):
            async with relay.files_of(spec, [], stranger=True):
                pass
        nursery.cancel_scope.cancel()
    async with relay.files_of(spec, [], stranger=True):
        pass
