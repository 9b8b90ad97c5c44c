"""One task through the executor: real sandbox, real blob store, no network."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import trio
from PIL import Image

from meshnode.jobs.canonical import canonical_json
from protocol.batches import shards_of, task_count
from protocol.events import RunFailed, RunFinished
from protocol.records import Part
from protocol.wire import Needs, Output, Role

ECHO = """
import json, os, pathlib
folder = pathlib.Path(os.environ["MESH_INPUT"])
task = json.loads((folder / "input.json").read_text())
out = pathlib.Path(os.environ["MESH_OUTPUT"])
"""


@pytest.mark.trio
async def test_a_task_reads_its_input_and_its_output_is_canonical(bench: Any) -> None:
    picture = await bench.add(b"not really a picture")
    program = ECHO + (
        "text = (folder / task['image_url']['path']).read_text()\n"
        "(out / 'output.json').write_text(json.dumps({'z': text, 'a': task['threshold'], 'e': dict(os.environ)}))\n"
    )
    manifest = await bench.model(program)
    value = {"image_url": {"cid": picture.cid, "size": picture.size, "media_type": "image/png"}, "threshold": 3}
    order = await bench.order(manifest, value, settings={"params": {"threshold": 1, "other": 2}})
    ended = await bench.run(order)
    content = await bench.output_of(ended)
    output = json.loads(content)
    assert content == canonical_json(output)
    assert (output["z"], output["a"]) == ("not really a picture", 3), "the input's own keys win over params"
    assert output["e"]["MESH_TASK_ID"] == "0001-0203-00"
    assert (output["e"]["MESH_STAGE"], output["e"]["MESH_SHARD_COUNT"]) == ("main", "1")
    assert isinstance(ended, RunFinished)
    assert ended.input_hash == hashlib.sha256(canonical_json({**value, "other": 2})).digest()
    assert ended.runtime.startswith("sandbox/")
    assert ended.run_ms > 0


@pytest.mark.trio
async def test_files_in_the_output_become_links(bench: Any) -> None:
    program = ECHO + (
        "(out / 'deep').mkdir(); (out / 'deep/a.txt').write_text('hello')\n"
        "(out / 'output.json').write_text(json.dumps([{'path': 'deep/a.txt', 'x': 1}, {'path': 'elsewhere'}]))\n"
    )
    ended = await bench.run(await bench.order(await bench.model(program), {}))
    listed, other = json.loads(await bench.output_of(ended))
    assert other == {"path": "elsewhere"}
    assert (listed["x"], listed["size"], listed["media_type"]) == (1, 5, "text/plain")
    assert await bench.blobs.read(listed["cid"], 0, 9) == b"hello"


@pytest.mark.trio
@pytest.mark.parametrize(
    ("printed", "stored"),
    [('{"b": 1.0,\n "a": []}', b'{"a":[],"b":1}'), ("plain words\n", b"plain words\n"), ("", b"")],
)
async def test_without_output_json_what_is_printed_is_the_output(bench: Any, printed: str, stored: bytes) -> None:
    ended = await bench.run(await bench.order(await bench.model(f"print({printed!r}, end='')"), {}))
    assert await bench.output_of(ended) == stored


@pytest.mark.trio
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit('no such thing')", "exit code 1: no such thing"),
        ("import time; time.sleep(60)", "not done within 0.5 s"),
        (ECHO + "(out / 'output.json').write_text('[NaN]')", "output.json: [0]: NaN is not a JSON number"),
        (ECHO + "(out / 'output.json').write_text('{')", "output.json: not JSON"),
        ('print(\'{"a": 1, "a": 2}\')', "the key 'a' appears twice"),
        (ECHO + "(out / 'x').symlink_to('/etc/passwd')", "symbolic link"),
    ],
)
async def test_what_a_task_does_wrong_counts_against_it(bench: Any, program: str, reason: str) -> None:
    timeout_ms = 500 if "sleep" in program else 20_000
    ended = await bench.run(await bench.order(await bench.model(program), {}, timeout_ms=timeout_ms))
    assert isinstance(ended, RunFailed)
    assert ended.counts
    assert reason in ended.reason


@pytest.mark.trio
async def test_a_blob_that_nobody_delivers_does_not_count(bench: Any) -> None:
    link = {"cid": "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "size": 3}
    ended = await bench.run(await bench.order(await bench.model("print(1)"), {"image_url": link}))
    assert isinstance(ended, RunFailed)
    assert not ended.counts
    assert "could not be fetched" in ended.reason


@pytest.mark.trio
async def test_an_image_without_an_engine_does_not_count(bench: Any) -> None:
    order = await bench.order(await bench.model("print(1)"), {}, needs=Needs(image="sha256:" + "0" * 64))
    ended = await bench.run(order)
    assert isinstance(ended, RunFailed)
    assert not ended.counts


@pytest.mark.trio
@pytest.mark.parametrize("path", ["/etc/passwd", "../../x", "a/../../x", "", "a//b", "."])
async def test_a_manifest_cannot_place_files_outside(bench: Any, path: str) -> None:
    file = await bench.add(b"x")
    model = {"model_id": "m", "command": ["true"]}
    manifest = await bench.add({"model": model, "files": [{"path": path, "cid": file.cid, "size": 1, "mode": 0o644}]})
    ended = await bench.run(await bench.order(manifest, {}))
    assert isinstance(ended, RunFailed)
    assert ended.counts
    assert "not a plain relative path" in ended.reason


@pytest.mark.trio
@pytest.mark.parametrize("value", [[], {"shards": 3}, {"shards": []}, "x"])
async def test_a_split_output_that_is_none_is_the_tasks_fault(bench: Any, value: Any) -> None:
    made = await bench.add(value)
    output = Output(cid=made.cid, size=made.size, sha256=bytes(32))
    ended = await bench.run(await bench.order(await bench.model("print(1)"), {}, split_output=output))
    assert isinstance(ended, RunFailed)
    assert "lists no shard 0" in ended.reason


@pytest.mark.trio
async def test_cancelled_it_leaves_nothing_behind(bench: Any) -> None:
    order = await bench.order(await bench.model("import time; time.sleep(60)"), {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.executor.run, order)
        with trio.fail_after(20):
            while not list(bench.executor.folder.glob("*/output")):  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert not list(bench.executor.folder.iterdir())


@pytest.mark.trio
async def test_what_a_killed_node_left_is_cleared(bench: Any) -> None:
    for folder in (bench.executor.folder / "7" / "input", bench.home / "models" / "new-x" / "model"):
        await trio.Path(folder).mkdir(parents=True)
    bench.executor.clear()
    assert not list(bench.executor.folder.iterdir())
    assert not list((bench.home / "models").iterdir())


@pytest.mark.trio
async def test_split_shards_and_merge_make_the_whole(bench: Any) -> None:
    image = Image.radial_gradient("L").resize((96, 64))
    image.save(bench.home / "image.png")
    picture = await bench.add((bench.home / "image.png").read_bytes())
    value = {"image_url": {"cid": picture.cid, "size": picture.size, "media_type": "image/png"}}
    program = ECHO + (
        "from PIL import Image\n"
        "total = 0\n"
        "for tile in task['tiles']:\n"
        "    total += sum(Image.open(folder / tile['path']).convert('L').tobytes())\n"
        "(out / 'output.json').write_text(json.dumps([total]))\n"
    )
    manifest = await bench.model(program)
    settings = {"split": {"mode": "tile", "tile_size": 32, "overlap": 0}, "merge": {}}
    stage = {"split": "tile", "merge": "concat-json"}
    split = await bench.run(await bench.order(manifest, value, role=Role.SPLIT, settings=settings, **stage))
    assert isinstance(split, RunFinished), split
    assert split.shards == 6
    parts = []
    for index in range(6):
        order = await bench.order(
            manifest, value, index=index, settings=settings, merge="concat-json", split_output=split.output, shards=6
        )
        shard = await bench.run(order)
        assert isinstance(shard, RunFinished), shard
        parts.append(Part(index=index, output=shard.output, receipt=bytes(32)))
    merge = await bench.order(manifest, value, role=Role.MERGE, settings=settings, parts=tuple(parts), **stage)
    merged = json.loads(await bench.output_of(await bench.run(merge)))
    assert len(merged) == 6
    assert sum(merged) == sum(image.tobytes())


@pytest.mark.trio
async def test_a_model_can_split_and_merge_itself(bench: Any) -> None:
    program = ECHO + (
        "role = os.environ['MESH_ROLE']\n"
        "if role == 'split':\n"
        "    words = task['input']['text'].split(task['params']['at'])\n"
        "    for index, word in enumerate(words): (out / f'{index}.txt').write_text(word)\n"
        "    made = {'shards': [{'word': {'path': f'{index}.txt'}} for index in range(len(words))]}\n"
        "elif role == 'shard':\n"
        "    (out / 'w.txt').write_text((folder / task['word']['path']).read_text().upper())\n"
        "    made = {'path': 'w.txt'}\n"
        "else:\n"
        "    outputs = [json.loads((folder / s['output']['path']).read_text()) for s in task['shards']]\n"
        "    made = '+'.join((folder / 'files' / output['cid']).read_text() for output in outputs)\n"
        "(out / 'output.json').write_text(json.dumps(made))\n"
    )
    manifest = await bench.model(program)
    stage: dict[str, Any] = {"split": "container", "merge": "container", "settings": {"params": {"at": "-"}}}
    split = await bench.run(await bench.order(manifest, {"text": "a-b-c"}, role=Role.SPLIT, **stage))
    assert isinstance(split, RunFinished), split
    assert split.shards == 3
    parts = []
    for index in range(3):
        order = await bench.order(manifest, {}, index=index, split_output=split.output, shards=3)
        shard = await bench.run(order)
        assert isinstance(shard, RunFinished), shard
        parts.append(Part(index=index, output=shard.output))
    merge = await bench.order(manifest, {}, role=Role.MERGE, parts=tuple(parts), shards=3, **stage)
    assert await bench.output_of(await bench.run(merge)) == b'"A+B+C"'


@pytest.mark.trio
@pytest.mark.parametrize(
    ("role", "stage"), [(Role.SPLIT, {"split": "acme.frames"}), (Role.MERGE, {"merge": "acme.frames"})]
)
async def test_without_the_plugin_the_task_is_given_back(bench: Any, role: Role, stage: dict[str, str]) -> None:
    ended = await bench.run(await bench.order(await bench.model("print(1)"), {}, role=role, **stage))
    assert isinstance(ended, RunFailed)
    assert not ended.counts
    kind = "splits" if role is Role.SPLIT else "merges"
    assert ended.reason == f"this node has no plug-in 'acme.frames' for {kind} (entry point group meshnode.{kind})"


@pytest.mark.trio
async def test_many_shards_share_tasks_and_a_merge_understands_both(bench: Any) -> None:
    manifest = await bench.model("print(1)")
    stage: dict[str, Any] = {"split": "range", "merge": "sum"}
    split = await bench.run(
        await bench.order(manifest, {"range": {"stop": 300}}, role=Role.SPLIT, settings={"split": {}}, **stage)
    )
    assert isinstance(split, RunFinished), split
    assert split.shards == 300
    parts = []
    for index in range(task_count(300)):
        made = await bench.add([{"n": shard} for shard in shards_of(index, 300)])
        parts.append(Part(index=index, output=Output(cid=made.cid, size=made.size, sha256=bytes(32))))
    merge = await bench.order(manifest, {}, role=Role.MERGE, parts=tuple(parts), shards=300, **stage)
    assert json.loads(await bench.output_of(await bench.run(merge))) == {"n": sum(range(300))}
