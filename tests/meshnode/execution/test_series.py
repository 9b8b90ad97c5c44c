"""Tasks of several shards, with a program started for each and with a model that stays loaded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshnode.execution import series as module
from meshnode.execution.series import Series, StoredSeries
from meshnode.jobs.canonical import canonical_json
from protocol.batches import shards_of, task_count
from protocol.events import RunFailed, RunFinished
from protocol.wire import Output

HANDLER = """
import json, os, pathlib
from meshmodel import serve

def handler(input):
    exec(input.get("do", ""))
    return {"pid": os.getpid(), "shard": int(os.environ["MESH_SHARD_INDEX"]), "count": os.environ["MESH_SHARD_COUNT"],
            "job": os.environ["MESH_JOB_ID"], "task": os.environ["MESH_TASK_ID"], **input}

serve(handler)
"""
SHARDS = 1001  # six for each task, five for the last


async def split(bench: Any, inputs: dict[int, Any], index: int, count: int = SHARDS) -> dict[str, Any]:
    """A split's output in which task ``index`` has ``inputs``, and the fields of an order for that task."""
    own = shards_of(index, count)
    file = await bench.add([inputs.get(shard, {"n": shard}) for shard in own])
    files = [{"cid": file.cid, "size": file.size} if number == index else {} for number in range(task_count(count))]
    made = await bench.add({"count": count, "tasks": files})
    return {"split_output": Output(cid=made.cid, size=made.size, sha256=bytes(32)), "index": index, "shards": count}


@pytest.mark.trio
@pytest.mark.parametrize("serve", ["once", "warm"])
@pytest.mark.parametrize(("task", "expected"), [(1, range(6, 12)), (166, range(996, 1001))])
async def test_a_task_of_several_shards_runs_each_in_turn(bench: Any, serve: str, task: int, expected: range) -> None:
    manifest = await bench.model(HANDLER, serve=serve)
    order = await bench.order(manifest, {}, settings={"params": {"p": 1}}, **await split(bench, {}, task))
    ended = await bench.run(order)
    content = await bench.output_of(ended)
    outputs = json.loads(content)
    assert content == canonical_json(outputs)
    assert [(output["shard"], output["n"], output["p"]) for output in outputs] == [(n, n, 1) for n in expected]
    assert {output["count"] for output in outputs} == {str(SHARDS)}
    assert {output["task"] for output in outputs} == {f"0001-0203-{task:02d}"}
    assert len({output["pid"] for output in outputs}) == 1, "the same number in a namespace of its own, or one process"
    read = canonical_json([{"n": shard, "p": 1} for shard in expected])
    assert ended.input_hash == hashlib.sha256(read).digest()


@pytest.mark.trio
@pytest.mark.parametrize("serve", ["once", "warm"])
async def test_the_first_shard_that_fails_fails_the_task_and_is_named(bench: Any, serve: str) -> None:
    manifest = await bench.model(HANDLER, serve=serve)
    inputs = {8: {"do": "raise ValueError('no good')"}, 10: {"do": "raise ValueError('worse')"}}
    ended = await bench.run(await bench.order(manifest, {}, **await split(bench, inputs, 1)))
    assert isinstance(ended, RunFailed)
    assert ended.counts
    assert ended.reason.startswith("shard 8: ")
    assert "ValueError: no good" in ended.reason
    assert "worse" not in ended.reason


@pytest.mark.trio
@pytest.mark.parametrize("serve", ["once", "warm"])
async def test_each_shards_files_are_its_own(bench: Any, serve: str) -> None:
    picture = await bench.add(b"a picture")
    link = {"cid": picture.cid, "size": picture.size, "media_type": "text/plain"}
    look = (
        "global handler\n"
        "folder, out = pathlib.Path(os.environ['MESH_INPUT']), pathlib.Path(os.environ['MESH_OUTPUT'])\n"
        "assert not list(out.iterdir())\n"
        "input['saw'] = (folder / input['image_url']['path']).read_text()\n"
        "(out / 'made.txt').write_text(f'made by {input[\"name\"]}')\n"
        "input['made'] = {'path': 'made.txt'}\n"
    )
    inputs = {shard: {"do": look, "image_url": link, "name": shard} for shard in (6, 7)}
    nothing = "assert not list(pathlib.Path(os.environ['MESH_OUTPUT']).iterdir())"
    inputs |= {shard: {"do": nothing} for shard in (8, 9, 10, 11)}
    manifest = await bench.model(HANDLER, serve=serve)
    ended = await bench.run(await bench.order(manifest, {}, **await split(bench, inputs, 1)))
    outputs = json.loads(await bench.output_of(ended))
    assert [output["saw"] for output in outputs[:2]] == ["a picture", "a picture"]
    for shard, output in zip((6, 7), outputs, strict=False):
        made = output["made"]
        assert (made["size"], made["media_type"]) == (9, "text/plain")
        assert await bench.blobs.read(made["cid"], 0, 9) == f"made by {shard}".encode()


@pytest.mark.trio
async def test_what_is_not_json_becomes_a_link_among_several_shards(bench: Any) -> None:
    manifest = await bench.model("import os; print('words of', os.environ['MESH_SHARD_INDEX'])")
    ended = await bench.run(await bench.order(manifest, {}, **await split(bench, {}, 1)))
    outputs = json.loads(await bench.output_of(ended))
    assert [await bench.blobs.read(output["cid"], 0, 99) for output in outputs[:2]] == [
        b"words of 6\n",
        b"words of 7\n",
    ]


@pytest.mark.trio
async def test_a_loaded_model_serves_task_after_task_of_one_submitter(bench: Any) -> None:
    program = "import uuid\nmark = uuid.uuid4().hex\n" + HANDLER.replace('"pid": os.getpid()', '"mark": mark')
    manifest = await bench.model(program, serve="warm")

    async def mark(**fields: Any) -> tuple[str, int]:
        ended = await bench.run(await bench.order(manifest, {}, **fields))
        return json.loads(await bench.output_of(ended))["mark"], ended.pull_ms

    first, loading = await mark(submitter="one")
    again, not_loading = await mark(submitter="one")
    other, _ = await mark(submitter="other")
    assert first == again != other
    assert loading > 5 * not_loading


@pytest.mark.trio
@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("print('why'); os._exit(9)", "the model ended with exit code 9"),
        ("import time; time.sleep(60)", "not done within 1 s"),
        ("(pathlib.Path(os.environ['MESH_OUTPUT']) / 'x').symlink_to('/etc/passwd')", "symbolic link"),
        ("input['x'] = float('nan')", "ValueError: Out of range float values"),
    ],
)
async def test_what_a_loaded_model_does_wrong_counts_and_the_next_task_is_served(
    bench: Any, do: str, reason: str
) -> None:
    manifest = await bench.model(HANDLER, serve="warm")
    ended = await bench.run(await bench.order(manifest, {"do": do}, timeout_ms=1000))
    assert isinstance(ended, RunFailed)
    assert ended.counts
    assert ended.reason.startswith(reason) or reason in ended.reason
    assert isinstance(await bench.run(await bench.order(manifest, {})), RunFinished)


@pytest.mark.trio
async def test_a_model_that_cannot_be_loaded_counts(bench: Any) -> None:
    ended = await bench.run(await bench.order(await bench.model("import no_such_module", serve="warm"), {}))
    assert isinstance(ended, RunFailed)
    assert ended.counts
    assert ended.reason.startswith("the model cannot be loaded: the model ended with exit code 1: ")
    assert "no_such_module" in ended.reason


@pytest.mark.trio
async def test_a_kill_of_the_models_process_costs_the_task_that_was_in_it(bench: Any) -> None:
    mark = uuid.uuid4().hex  # by which the process is found, and no other test's
    manifest = await bench.model(HANDLER, serve="warm", command=["python3", "main.py", mark])
    ended: list[RunFinished | RunFailed] = []

    async def run() -> None:
        order = await bench.order(manifest, {"do": "import time; time.sleep(50)"})
        ended.append(await bench.run(order))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(30):
            while not (found := _processes(f"python3\0main.py\0{mark}\0")):  # noqa: ASYNC110
                await trio.sleep(0.01)
        for process in found:
            os.kill(process, signal.SIGKILL)
    assert isinstance(ended[0], RunFailed)
    assert ended[0].counts
    assert "exit code 137" in ended[0].reason
    assert isinstance(await bench.run(await bench.order(manifest, {})), RunFinished)


def _processes(command: str) -> list[int]:
    """The processes whose command line ends in ``command``, and that are not what starts it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes()
                if line.endswith(command.encode()) and line.count(b"\0") == 3:
                    found.append(int(folder.name))
    return found


@pytest.mark.trio
@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ({"count": SHARDS, "tasks": []}, "lists no shard 1"),
        ({"count": SHARDS, "tasks": 3}, "lists no shard 1"),
        ({"count": SHARDS, "tasks": [1] * 167}, "lists no shard 1"),
        ({"shards": [{}, {}]}, "lists 1 shards for task 1, not 6"),
    ],
)
async def test_a_split_that_lists_no_such_task_is_at_fault(bench: Any, listed: Any, reason: str) -> None:
    made = await bench.add(listed)
    output = Output(cid=made.cid, size=made.size, sha256=bytes(32))
    order = await bench.order(await bench.model(HANDLER), {}, index=1, shards=SHARDS, split_output=output)
    ended = await bench.run(order)
    assert isinstance(ended, RunFailed)
    assert ended.counts
    assert reason in ended.reason


@pytest.mark.trio
@pytest.mark.parametrize("content", [{}, [], [{}] * 7, [1] * 6])
async def test_a_file_of_another_number_of_shards_is_refused(bench: Any, content: Any) -> None:
    file = await bench.add(content)
    made = await bench.add({"count": SHARDS, "tasks": [{"cid": file.cid, "size": file.size}] * task_count(SHARDS)})
    output = Output(cid=made.cid, size=made.size, sha256=bytes(32))
    order = await bench.order(await bench.model(HANDLER), {}, index=1, shards=SHARDS, split_output=output)
    ended = await bench.run(order)
    assert isinstance(ended, RunFailed)
    assert ended.counts


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=9)), max_size=5))
def test_a_series_has_the_bytes_of_the_array(values: list[Any]) -> None:
    series = Series(alone=False)
    for value in values:
        series.add(canonical_json(value))
    assert series.finish() == hashlib.sha256(canonical_json(values)).digest()


@pytest.mark.trio
async def test_a_large_series_goes_by_way_of_a_file(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY_BYTES_MAX", 100)
    series = StoredSeries(bench.executor.folder, alone=False)
    for number in range(1000):
        series.add(canonical_json(number))
    output = await series.store(bench.blobs)
    series.close()
    content = await bench.blobs.read(output.cid, 0, output.size)
    assert content == canonical_json(list(range(1000)))
    assert hashlib.sha256(content).digest() == output.sha256
