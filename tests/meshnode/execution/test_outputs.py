"""What a task left behind becomes blobs, and a split's output what its tasks read: no sandbox, a real blob store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from meshnode.blobs.store import BlobStore
from meshnode.execution import outputs
from meshnode.execution.faults import TaskFault
from meshnode.execution.outputs import store_output, store_split_output
from meshnode.execution.shards import INLINE_BYTES_MAX, shards_of_task
from meshnode.jobs.canonical import canonical_json
from meshnode.runtimes.base import Ended
from protocol.batches import shards_of, task_count
from protocol.wire import Link, Output

pytestmark = pytest.mark.trio


class Task:
    """One task that has ended, and the store its output goes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "output"
        self.folder.mkdir()
        self.blobs = BlobStore(folder / "store", durable=False)

    def write(self, name: str, content: bytes | str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    async def read(self, blob: Link | Output) -> bytes:
        return await self.blobs.read(blob.cid, 0, blob.size)

    async def read_json(self, what: str, blob: Link | Output) -> Any:
        return json.loads(await self.read(blob))

    async def output(self, printed: bytes = b"") -> bytes:
        stored = await store_output(self.folder, ended(printed), self.blobs)
        content = await self.read(stored)
        assert stored.sha256 == hashlib.sha256(content).digest()
        return content

    async def split(self, max_shards: int = 1_000_000) -> tuple[Any, int]:
        """The JSON value of the stored split's output, and how many shards there are."""
        stored, count = await store_split_output(self.folder, ended(b""), max_shards, self.blobs)
        return json.loads(await self.read(stored)), count

    async def inputs(self, stored: Any, count: int) -> list[list[Any]]:
        """The inputs that each task reads."""
        return [await shards_of_task(stored, index, self.read_json) for index in range(task_count(count))]


def ended(printed: bytes) -> Ended:
    return Ended(
        cause="exited", exit_code=0, stdout=printed, stdout_truncated=False, stderr_tail="", started_at=0, run_ms=1
    )


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


async def test_a_long_list_is_stored_like_a_short_one(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    value = [{"z": 1.0, "a": "é" * 9, "b": [index, None]} for index in range(300)] + [{"path": "a.bin", "n": 7}]
    task.write("a.bin", b"file")
    task.write("output.json", json.dumps(value, indent=1))
    short = await task.output()
    monkeypatch.setattr(outputs, "STREAMED_BYTES_MIN", 500)
    assert await task.output() == short
    assert json.loads(short)[-1]["size"] == 4
    assert short == canonical_json(json.loads(short))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[1, {"a": 1, "a": 2}]', "output.json: [1]: the key 'a' appears twice"),
        ("[1, [NaN]]", "output.json: not JSON: NaN is not a JSON number"),
        ("[1, 2", "output.json: not JSON: expected ',' or ']' after an element of the list"),
        ("[1, x]", "output.json: not JSON: Expecting value"),
        ("[1] 2", "output.json: not JSON: something follows after the list"),
        ("[9007199254740993]", "output.json: [0]: the integer is beyond"),
    ],
)
async def test_a_long_list_is_read_as_strictly(
    task: Task, text: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "STREAMED_BYTES_MIN", 0)
    task.write("output.json", text)
    with pytest.raises(TaskFault) as caught:
        await task.output()
    assert str(caught.value).startswith(sentence)


async def test_only_a_list_may_be_larger_than_what_is_read_whole(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "STREAMED_BYTES_MIN", 5)
    monkeypatch.setattr(outputs, "WHOLE_BYTES_MAX", 9)
    task.write("output.json", "[1, 2, 3, 4, 5]")
    assert await task.output() == b"[1,2,3,4,5]"
    task.write("output.json", '{"a": "bcdef"}')
    with pytest.raises(
        TaskFault, match=r"output\.json has 14 bytes, and only a list may have more than 9; put what is"
    ):
        await task.output()


async def test_a_file_called_output_is_the_output_byte_for_byte(task: Task) -> None:
    task.write("output.tif", b"II*\x00 not JSON")
    task.write("notes/output.txt", "not it")
    assert await task.output(b"{}") == b"II*\x00 not JSON"
    task.write("output.bin", b"")
    with pytest.raises(TaskFault, match=r"wrote 'output\.bin' and 'output\.tif'; only one of them can be the output"):
        await task.output()
    task.write("output.json", "{}")
    assert await task.output() == b"{}"


async def test_few_shards_are_listed_in_the_output_itself(task: Task) -> None:
    task.write("t.png", b"tile")
    task.write("output.json", json.dumps({"shards": [{"tiles": [{"path": "t.png", "x": 3}]}, {}]}))
    stored, count = await task.split()
    assert list(stored) == ["shards"]
    assert stored["shards"][0]["tiles"][0].keys() == {"cid", "size", "media_type", "x"}
    assert await task.inputs(stored, count) == [[shard] for shard in stored["shards"]]


@pytest.mark.parametrize("count", [1, 200, 201, 777])
@pytest.mark.parametrize("as_file", [True, False])
async def test_each_task_reads_its_shards_and_no_others(task: Task, count: int, as_file: bool) -> None:
    size = INLINE_BYTES_MAX if count == 1 else 1
    shards = [{"n": index, "text": "x" * size, "file": {"path": f"{index % 3}.bin"}} for index in range(count)]
    for index in range(3):
        task.write(f"{index}.bin", str(index))
    if as_file:
        task.write("shards.jsonl", "".join(json.dumps(shard) + "\n" for shard in shards))
        task.write("output.json", json.dumps({"shards": {"path": "shards.jsonl"}}))
    else:
        task.write("output.json", json.dumps({"shards": shards}))
    stored, counted = await task.split()
    assert counted == count
    if as_file or count != 200:
        assert stored["count"] == count
    inputs = await task.inputs(stored, count)
    assert [[shard["n"] for shard in shards] for shards in inputs] == [
        list(shards_of(index, count)) for index in range(task_count(count))
    ]
    assert await task.read(Link(cid=inputs[-1][-1]["file"]["cid"], size=1)) == str((count - 1) % 3).encode()


@pytest.mark.parametrize(
    ("output", "lines", "sentence"),
    [
        ({"shards": []}, None, "the split made 0 shards, where 1 to 4 are allowed"),
        ({"shards": [{}] * 5}, None, "the split made 5 shards, where 1 to 4 are allowed"),
        ({"shards": {"path": "s.jsonl"}}, "{}\n" * 5, "the split made 5 shards, where 1 to 4 are allowed"),
        ({"shards": [{}, 3]}, None, "the split's shard 1 is not a JSON object"),
        ({"shards": {"path": "s.jsonl"}}, "{}\n[]\n", "the split's shard 1 is not a JSON object"),
        ({"shards": {"path": "s.jsonl"}}, "{}\n{\n", "the split's shard 1 cannot be an input: not JSON"),
        ({"shards": {"path": "gone"}}, None, "the split's output.json lists no shards"),
        ({"shards": 3}, None, "the split's output.json lists no shards"),
        ([], None, "the split's output.json lists no shards"),
    ],
)
async def test_what_is_no_splits_output_is_its_fault(task: Task, output: Any, lines: str | None, sentence: str) -> None:
    task.write("output.json", json.dumps(output))
    if lines is not None:
        task.write("s.jsonl", lines)
    with pytest.raises(TaskFault) as caught:
        await task.split(max_shards=4)
    assert str(caught.value).startswith(sentence)
