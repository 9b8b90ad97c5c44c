"""A node as its clients and its mesh see it: several in one process, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from meshnode import retention
from meshnode.blobs.errors import StoreFull
from meshnode.config import load_config
from meshnode.jobs.canonical import canonical_json
from meshnode.journal import Journal, JournalFailed
from meshnode.keystore import HomeError
from meshnode.node import Node
from meshnode.references import References
from protocol import effects, events, messages
from protocol.effects import Effect, Proposal
from protocol.identity import Ed25519Signer, PeerId
from protocol.limits import DEFAULT_LIMITS
from protocol.records import JobSpec, StageSpec
from protocol.signing import sign
from protocol.wire import Link


@asynccontextmanager
async def mesh(folder: Path, count: int, **settings: Any) -> AsyncIterator[list[Node]]:
    await trio.Path(folder).chmod(0o755)
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        for number in range(count):
            flags = {"listen": ["/ip4/127.0.0.1/tcp/0"], "runtime": "sandbox", "slots": 2, **settings}
            flags["join"] = [address for node in nodes for address in node.network.addresses]
            config = load_config(folder / f"node{number}", environment={}, flags=flags)
            nodes.append(await stack.enter_async_context(Node.start(config)))
        await until(lambda: all(len(node.snapshot().known) == count - 1 for node in nodes))
        yield nodes


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.02)


async def submit(node: Node, program: str, value: Any, submitter: Ed25519Signer, **stage: Any) -> bytes:
    """Add a model and an input to ``node``, and submit a job of them there; its full id."""
    links: list[Link] = []

    async def add(content: bytes) -> Link:
        blob = await node.blobs.add_bytes(content)
        links.append(Link(cid=blob.cid, size=blob.size))
        return links[-1]

    file = await add(program.encode())
    manifest = await add(
        canonical_json(
            {
                "model": {"model_id": "m", "command": ["python3", "main.py"]},
                "files": [{"path": "main.py", "cid": file.cid, "size": file.size, "mode": 0o644}],
            }
        )
    )
    job_input = await add(canonical_json(value))
    proposal = await node.ask(lambda number: events.ProposalAsked(number, 1), 5)
    assert isinstance(proposal, Proposal)
    spec = JobSpec(
        mesh=proposal.mesh,
        submitter=submitter.peer_id,
        nonce=secrets.token_bytes(16),
        issued_at=proposal.wall_ms,
        not_after=proposal.wall_ms + 3_600_000,
        deadline_ms=600_000,
        holders=proposal.holders,
        steward=proposal.steward,
        input=job_input,
        blobs=tuple(links),
        stages=(StageSpec(name="main", model="m", manifest=manifest, **stage),),
    )
    opened = sign(spec, submitter)
    answer = await node.ask(lambda number: events.JobSubmitted(number, opened.signed, (node.peer_id,)), 60)
    assert isinstance(answer, messages.SubmitReply), answer
    assert answer.accepted, answer.reason
    return opened.digest


async def status(node: Node, job: bytes, steward: PeerId) -> messages.JobView | None:
    answer = await node.ask(lambda number: events.StatusAsked(number, job, steward), 5)
    assert isinstance(answer, messages.StatusReply)
    return answer.view


async def ended(node: Node, job: bytes, steward: PeerId) -> messages.JobView:
    view = None
    with trio.fail_after(60):
        while view is None or view.status in ("queued", "running"):
            view = await status(node, job, steward)
            await trio.sleep(0.1)
    return view


SQUARES = """
import json, os, pathlib
task = json.loads(pathlib.Path(os.environ["MESH_INPUT"], "input.json").read_text())
out = pathlib.Path(os.environ["MESH_OUTPUT"], "output.json")
out.write_text(json.dumps([number * number for number in task["items"]]))
"""


@pytest.mark.trio
async def test_a_job_given_to_one_node_is_done_by_the_mesh_and_seen_from_another(tmp_path: Path) -> None:
    async with mesh(tmp_path, 3) as (first, second, third):
        job = await submit(
            first,
            SQUARES,
            {"items": list(range(12))},
            Ed25519Signer(secrets.token_bytes(32)),
            split="batch",
            merge="concat-json",
            settings=b'{"split":{"mode":"batch"}}',
            shard_count=6,
        )
        view = await ended(third, job, first.peer_id)
        assert (view.status, view.succeeded, view.total_shards) == ("success", 6, 6), view
        assert view.output is not None
        await second.fetch_blob(view.output, view.keepers, view.records)
        output = await second.blobs.read(view.output.cid, 0, view.output.size)
        assert json.loads(output) == [number * number for number in range(12)]


@pytest.mark.trio
async def test_bytes_that_are_no_message_do_not_end_a_node(tmp_path: Path) -> None:
    async with mesh(tmp_path, 2) as (node, neighbour):
        for frame in (b"", b"\xff", os.urandom(1000), b"\xa1dkindhnonesuch"):
            neighbour._links.send_nowait(node.peer_id, frame)
        await until(lambda: node.hearing.skipped == 1)
        assert isinstance(await node.ask(lambda number: events.ProposalAsked(number, 1), 5), Proposal)


@pytest.mark.trio
async def test_a_node_that_leaves_is_forgotten_at_once(tmp_path: Path) -> None:
    async with mesh(tmp_path, 3) as (first, second, third):
        await third.leave()
        await until(lambda: all(len(node.snapshot().known) == 1 for node in (first, second)), within_s=5)


@pytest.mark.trio
async def test_a_bug_in_a_run_is_that_runs_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    async with mesh(tmp_path, 1) as (node,):
        monkeypatch.setattr("meshnode.execution.executor.input_object", broken)
        job = await submit(node, "print(1)", {}, Ed25519Signer(secrets.token_bytes(32)), max_lost=2)
        view = await ended(node, job, node.peer_id)
        assert view.status == "failed"
        assert "ZeroDivisionError" in view.error or view.refusals, view


@pytest.mark.trio
async def test_two_nodes_never_share_a_home(tmp_path: Path) -> None:
    async with mesh(tmp_path, 1) as (node,):
        with pytest.raises(HomeError, match="another node"):
            async with Node.start(node.config):
                pass


@pytest.mark.trio
async def test_what_is_to_be_kept_is_kept_before_anything_else_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unkept: list[Effect] = []
    too_early: list[Effect] = []
    kept = 0
    commit = Journal.commit

    async def watched_commit(journal: Journal, records: list[effects.Record]) -> None:
        nonlocal kept
        await commit(journal, records)
        assert records == unkept
        kept += len(records)
        unkept.clear()

    async with mesh(tmp_path, 1) as (node,):
        handle, carry_out = node._peer.handle, node._carry_out

        def watched_handle(*args: Any, **kwargs: Any) -> tuple[Effect, ...]:
            wanted = handle(*args, **kwargs)
            unkept.extend(effect for effect in wanted if isinstance(effect, effects.Record))
            return wanted

        def watched_carry_out(effect: Effect) -> None:
            if unkept:
                too_early.append(effect)
            carry_out(effect)

        monkeypatch.setattr(Journal, "commit", watched_commit)
        monkeypatch.setattr(node._peer, "handle", watched_handle)
        monkeypatch.setattr(node, "_carry_out", watched_carry_out)
        job = await submit(node, SQUARES, {"items": [1, 2]}, Ed25519Signer(secrets.token_bytes(32)))
        assert (await ended(node, job, node.peer_id)).status == "success"
        assert kept > 0
        assert not too_early


@pytest.mark.trio
async def test_a_node_that_cannot_keep_what_it_must_ends_and_has_acknowledged_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(journal: Journal, records: object) -> None:
        raise JournalFailed("journal.sqlite3: the disk is full")

    async def submit_to_a_full_disk() -> None:
        async with mesh(tmp_path, 1) as (node,):
            monkeypatch.setattr(Journal, "commit", full)
            await submit(node, SQUARES, {"items": [1]}, Ed25519Signer(secrets.token_bytes(32)))
            raise AssertionError("the job was accepted, or refused for another reason")

    with pytest.raises(BaseExceptionGroup) as ending:
        await submit_to_a_full_disk()
    assert isinstance(the_one(ending.value), JournalFailed)
    assert "the node ends: journal.sqlite3: the disk is full" in caplog.messages
    monkeypatch.undo()
    async with mesh(tmp_path, 1) as (node,):
        assert not node.snapshot().stewarding


@pytest.mark.trio
async def test_on_a_disk_that_is_nearly_full_new_work_is_refused_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = 1 << 40
    monkeypatch.setattr("meshnode.reserve.LOOK_EVERY_S", 0.02)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free_bytes))
    submitter = Ed25519Signer(secrets.token_bytes(32))
    async with mesh(tmp_path, 1, reserve_bytes=256 << 20) as (node,):
        accepted = await submit(node, SQUARES, {"items": [1]}, submitter)
        free_bytes = 200 << 20
        await until(lambda: node._reserve.low is not None)
        with pytest.raises(AssertionError, match="this node's disk is nearly full"):
            await submit(node, SQUARES, {"items": [2]}, submitter)
        assert [check for check in (await node.doctor())["checks"] if check["name"] == "disk" and not check["ok"]]
        assert (await ended(node, accepted, node.peer_id)).status == "success", "what was accepted goes on"
        free_bytes = 100 << 20
        with pytest.raises(StoreFull):
            await node.blobs.add_bytes(b"1")
        free_bytes = 1 << 40
        await until(lambda: node._reserve.low is None)
        await submit(node, SQUARES, {"items": [3]}, submitter)


def the_one(error: BaseException) -> BaseException:
    """What is inside the groups of nurseries."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


@pytest.mark.trio
async def test_a_node_that_starts_again_has_its_jobs_and_a_later_incarnation(tmp_path: Path) -> None:
    async with mesh(tmp_path, 1) as (node,):
        job = await submit(node, SQUARES, {"items": [1, 2]}, Ed25519Signer(secrets.token_bytes(32)))
        before = await ended(node, job, node.peer_id)
        incarnation = node.snapshot().incarnation
    async with mesh(tmp_path, 1) as (node,):
        after = await ended(node, job, node.peer_id)
        assert (after.status, after.output, after.completed_at) == ("success", before.output, before.completed_at)
        assert node.snapshot().incarnation > incarnation


@pytest.mark.trio
async def test_blobs_of_a_job_that_is_kept_are_kept_however_old_they_look(tmp_path: Path) -> None:
    async def sweep(node: Node) -> int:
        for cid in blobs_of(node):
            os.utime(node.blobs.path(cid), (0, 0))
        return await retention.sweep(node.blobs, node.config.home, node._references)

    async with mesh(tmp_path, 1) as (node,):
        job = await submit(
            node,
            SQUARES,
            {"items": [1, 2]},
            Ed25519Signer(secrets.token_bytes(32)),
            split="batch",
            merge="concat-json",
            settings=b'{"split":{"mode":"batch"}}',
            shard_count=2,
        )
        view = await ended(node, job, node.peer_id)
        await until(lambda: not node.snapshot().runs)
        assert view.output is not None
        kept = blobs_of(node)
        assert {view.output.cid} < kept
        await node.blobs.add_bytes(b"nobody's")
        assert await sweep(node) == 1
        assert blobs_of(node) == kept
    async with mesh(tmp_path, 1) as (node,):
        assert await sweep(node) == 0, "what is in use is known from the journal"
        node._references = References()
        assert await sweep(node) == len(kept)


def blobs_of(node: Node) -> set[str]:
    return {path.name for path in (node.config.home / "blobs").glob("*/*") if path.suffix != ".dag"}


@pytest.mark.trio
async def test_an_output_is_kept_where_it_was_made_as_long_as_a_job_is_at_most(tmp_path: Path) -> None:
    async with mesh(tmp_path, 1) as (node,):
        began = time.time()
        job = await submit(node, SQUARES, {"items": [1, 2]}, Ed25519Signer(secrets.token_bytes(32)))
        output = (await ended(node, job, node.peer_id)).output
        assert output is not None
        wanted_at = retention.wanted_at(node.blobs, output.cid)
        assert wanted_at is not None
        assert wanted_at + retention.UNUSED_S >= began + 2 * DEFAULT_LIMITS.retention_ms / 1000


@pytest.mark.trio
async def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    async with mesh(tmp_path, 1) as (node,):
        home = trio.Path(node.config.home)
    await (home / "journal.sqlite3").write_bytes(b"rubbish" * 1000)
    with pytest.raises(JournalFailed, match=r"journal\.sqlite3"):
        async with Node.start(node.config):
            pass


@pytest.mark.trio
async def test_what_came_along_is_not_fetched_and_is_worth_what_its_name_says(tmp_path: Path) -> None:
    async with mesh(tmp_path, 1) as (node,):
        answers: list[events.Event] = []
        node._inbox.post = _collect(answers)  # type: ignore[method-assign]
        until_ms = int(time.time() * 1000) + 60_000
        named = Link(cid="bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq", size=5)
        for number, content in enumerate((b"other", b"hello")):
            order = effects.FetchBlobs(number, (named,), (), until_ms, contents=(content,))
            await node._fetch(order)
        assert [type(answer) for answer in answers] == [events.BlobsFailed, events.BlobsFetched]
        assert await node.blobs.read(named.cid, 0, 5) == b"hello"


def _collect(answers: list[events.Event]) -> Any:
    async def post(event: events.Event) -> None:
        if isinstance(event, events.BlobsFetched | events.BlobsFailed):
            answers.append(event)

    return post
