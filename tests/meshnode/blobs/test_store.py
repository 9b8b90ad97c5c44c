import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from meshnode.blobs.cid import parse
from meshnode.blobs.errors import BlobDamaged, BlobMissing, BlobTooLarge, StoreFailed, StoreFull
from meshnode.blobs.files import NewBlob
from meshnode.blobs.store import BlobRef, BlobStore
from meshnode.blobs.unixfs import Layout
from meshnode.blobs.walk import BadBlock

SMALL = Layout(chunk_bytes=4, max_links=3, max_height=8)
MISSING = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"


def small_store(root: Path, capacity: int = 1 << 20) -> BlobStore:
    return BlobStore(root, capacity=capacity, durable=False, layout=SMALL)


def files_under(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


async def blocks_of(store: BlobStore, cid: str, skip: int = 0) -> list[bytes]:
    async with store.blocks(cid, skip) as blocks:
        return [block async for block in blocks]


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@pytest.mark.trio
@pytest.mark.parametrize("size", [0, 1, 4, 5, 12, 13, 100])
async def test_what_was_added_can_be_read(tmp_path: Path, size: int) -> None:
    store, data = small_store(tmp_path), random.Random(size).randbytes(size)
    ref = await store.add_bytes(data)
    assert ref.size == store.size(ref.cid) == size
    assert store.has(ref.cid)
    assert store.path(ref.cid).read_bytes() == data
    assert store.path(ref.cid).stat().st_mode & 0o777 == 0o444
    assert await store.read(ref.cid, 0, size + 10) == data
    assert await store.read(ref.cid, 3, 5) == data[3:8]
    again = small_store(tmp_path)
    assert again.has(ref.cid)
    assert again.size(ref.cid) == size
    assert again.usage() == store.usage()


@pytest.mark.trio
async def test_every_way_of_adding_gives_the_same_blob(tmp_path: Path) -> None:
    store, data = small_store(tmp_path / "store"), b"one and the same"
    (tmp_path / "file").write_bytes(data)
    refs = [
        await store.add_bytes(data),
        await store.add_file(tmp_path / "file"),
        await store.add_stream(pieces(data[:3], b"", data[3:])),
    ]
    assert len(set(refs)) == 1
    assert store.usage().blobs == 1


@pytest.mark.trio
async def test_names_have_the_form_that_ipfs_gives_them(tmp_path: Path, content: Callable[[int], bytes]) -> None:
    store = BlobStore(tmp_path, durable=True)
    cid = "bafybeif4jq75xjpbervn3ogfeduyc3xl3e5uskfrda34k5vnk4rncvpi5i"
    assert await store.add_bytes(content(1048577)) == BlobRef(cid, 1048577)


@pytest.mark.trio
async def test_adding_the_same_at_the_same_time_is_fine(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(store.add_bytes, b"the very same content")
    assert store.usage().blobs == 1
    assert store.usage() == small_store(tmp_path).usage()
    assert not list((tmp_path / "incoming").iterdir())


@pytest.mark.trio
async def test_a_stream_over_its_limit_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    assert (await store.add_stream(pieces(b"12345", b"67890"), limit=10)).size == 10
    before = files_under(tmp_path)
    with pytest.raises(BlobTooLarge, match="10 bytes"):
        await store.add_stream(pieces(b"abcde", b"fghij", b"k"), limit=10)
    assert files_under(tmp_path) == before


@pytest.mark.trio
async def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("gone")

    store = small_store(tmp_path)
    with pytest.raises(OSError, match="gone"):
        await store.add_stream(failing())
    assert files_under(tmp_path) == []


@pytest.mark.trio
async def test_only_regular_files_are_added(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    with pytest.raises(ValueError, match="not a regular file"):
        await store.add_file(Path("/dev/null"))
    with pytest.raises(OSError, match="absent"):
        await store.add_file(tmp_path / "absent")


@pytest.mark.trio
async def test_a_full_disk_is_the_stores_failure_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)

    def full(self: NewBlob, piece: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(NewBlob, "write", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        await store.add_bytes(b"hello")
    assert store.usage().blobs == 0
    assert files_under(tmp_path) == []


@pytest.mark.trio
async def test_a_full_store_refuses_until_something_is_removed(tmp_path: Path) -> None:
    store = small_store(tmp_path, capacity=10)
    first = await store.add_bytes(b"abcd")
    await store.add_bytes(b"efgh")
    with pytest.raises(StoreFull, match="of 10 bytes 2 are free, 4 are needed"):
        await store.add_bytes(b"ijkl")
    await store.remove(first.cid)
    await store.add_bytes(b"ijkl")
    assert store.usage().blob_bytes == 8


@pytest.mark.trio
async def test_a_removed_blob_is_gone_but_links_to_it_stay(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    ref = await store.add_bytes(b"long enough for nodes")
    os.link(store.path(ref.cid), tmp_path / "linked")
    await store.remove(ref.cid)
    assert not store.has(ref.cid)
    assert files_under(tmp_path / "store") == []
    assert store.usage().blob_bytes == 0
    assert (tmp_path / "linked").read_bytes() == b"long enough for nodes"
    for missing in (ref.cid, MISSING):
        with pytest.raises(BlobMissing, match=missing):
            store.path(missing)
    with pytest.raises(ValueError, match="not a CID"):
        store.has("../../etc/passwd")


@pytest.mark.trio
@pytest.mark.parametrize("size", [0, 3, 4, 5, 50])
async def test_what_is_received_block_by_block_is_the_blob(tmp_path: Path, size: int) -> None:
    theirs, ours = small_store(tmp_path / "theirs"), small_store(tmp_path / "ours")
    ref = await theirs.add_bytes(bytes(range(size)))
    for stop in range(100):  # one block per visit, with the store opened anew each time
        async with ours.receive(ref.cid) as incoming:
            assert incoming.walk.blocks == stop
            await incoming.append((await blocks_of(theirs, ref.cid, skip=stop))[0])
            assert not ours.has(ref.cid)
            if incoming.walk.done:
                assert await incoming.publish() == ref
                break
        ours = small_store(tmp_path / "ours")
        assert ours.partial(ref.cid) > 0
    assert ours.path(ref.cid).read_bytes() == bytes(range(size))
    assert await blocks_of(ours, ref.cid) == await blocks_of(theirs, ref.cid)
    assert not list((tmp_path / "ours" / "partial").iterdir())
    assert ours.usage() == theirs.usage() == small_store(tmp_path / "ours").usage()


@pytest.mark.trio
async def test_what_was_received_before_a_kill_is_used(tmp_path: Path) -> None:
    theirs, ours = small_store(tmp_path / "theirs"), small_store(tmp_path / "ours")
    ref = await theirs.add_bytes(bytes(range(50)))
    async with ours.receive(ref.cid) as incoming:
        for block in (await blocks_of(theirs, ref.cid))[:-1]:
            await incoming.append(block)
        shutil.copytree(tmp_path / "ours", tmp_path / "after the kill")  # nothing was closed
        async with small_store(tmp_path / "after the kill").receive(ref.cid) as again:
            assert again.walk.blocks == incoming.walk.blocks


@pytest.mark.trio
async def test_a_bad_block_is_not_kept(tmp_path: Path) -> None:
    theirs, ours = small_store(tmp_path / "theirs"), small_store(tmp_path / "ours")
    ref = await theirs.add_bytes(bytes(range(50)))
    async with ours.receive(ref.cid) as incoming:
        with pytest.raises(BadBlock):
            await incoming.append(b"not the root")
    assert files_under(tmp_path / "ours") == []
    assert ours.partial(ref.cid) == 0


@pytest.mark.trio
@pytest.mark.parametrize("part", ["", ".dag"])
@pytest.mark.parametrize("harm", ["flip", "cut", "append", "remove"])
async def test_a_partial_blob_harmed_on_disk_costs_only_the_tail(tmp_path: Path, part: str, harm: str) -> None:
    theirs, ours = small_store(tmp_path / "theirs"), small_store(tmp_path / "ours")
    ref = await theirs.add_bytes(bytes(range(50)))
    async with ours.receive(ref.cid) as incoming:
        for block in (await blocks_of(theirs, ref.cid))[:-2]:
            await incoming.append(block)
    file = tmp_path / "ours" / "partial" / (ref.cid + part)
    data = bytearray(file.read_bytes())
    match harm:
        case "flip":
            data[len(data) // 2] ^= 1
        case "cut":
            del data[-1]
        case "append":
            data += b"\xff\xff\xff\xff\xff"
        case "remove":
            data.clear()
    file.write_bytes(data)
    ours = small_store(tmp_path / "ours")
    async with ours.receive(ref.cid) as incoming:
        for block in await blocks_of(theirs, ref.cid, skip=incoming.walk.blocks):
            await incoming.append(block)
        await incoming.publish()
    assert ours.path(ref.cid).read_bytes() == bytes(range(50))
    assert ours.usage() == theirs.usage()


@pytest.mark.trio
async def test_idle_partial_blobs_make_room_for_new_ones(tmp_path: Path) -> None:
    theirs, ours = small_store(tmp_path / "theirs"), small_store(tmp_path / "ours", capacity=400)
    ref = await theirs.add_bytes(bytes(range(12)))
    async with ours.receive(ref.cid) as incoming:
        for block in (await blocks_of(theirs, ref.cid))[:-1]:
            await incoming.append(block)
        with pytest.raises(StoreFull):  # in use: it stays
            await ours.add_bytes(bytes(300))
    assert ours.partial(ref.cid) > 0
    await ours.add_bytes(b"tiny")
    assert ours.partial(ref.cid) > 0
    with pytest.raises(StoreFull):
        await ours.add_bytes(bytes(500))
    assert ours.partial(ref.cid) == 0


@pytest.mark.trio
async def test_what_will_not_fit_is_refused_when_its_size_is_known(tmp_path: Path) -> None:
    theirs, ours = small_store(tmp_path / "theirs"), small_store(tmp_path / "ours", capacity=500)
    ref = await theirs.add_bytes(bytes(1000))
    async with ours.receive(ref.cid) as incoming:
        with pytest.raises(StoreFull):
            await incoming.append((await blocks_of(theirs, ref.cid))[0])


@pytest.mark.trio
@pytest.mark.parametrize("part", ["", ".dag"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
async def test_a_blob_harmed_on_disk_is_not_sent_but_dropped(tmp_path: Path, part: str, harm: str) -> None:
    store = small_store(tmp_path)
    ref = await store.add_bytes(bytes(range(50)))
    file = store.path(ref.cid).with_name(ref.cid + part)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    if harm != "remove":
        file.write_bytes(data if harm == "flip" else data[:-1])
    with pytest.raises(BlobDamaged, match=ref.cid):
        await blocks_of(store, ref.cid)
    assert not store.has(ref.cid)
    assert files_under(tmp_path) == []


@pytest.mark.trio
async def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    kept = await store.add_bytes(b"a whole blob with nodes")
    lost = await store.add_bytes(b"another blob, with its content missing")
    (tmp_path / "incoming" / "tmpabc").write_bytes(b"half")
    (tmp_path / "incoming" / "tmpabc.dag").write_bytes(b"half")
    store.path(lost.cid).unlink()  # killed after the nodes were in place, before the content
    store = small_store(tmp_path)
    assert store.has(kept.cid)
    assert not store.has(lost.cid)
    assert len(files_under(tmp_path)) == 2


ADD_FOREVER = """
import sys, random, trio
from pathlib import Path
from meshnode.blobs.store import BlobStore
async def main():
    store, rng = BlobStore(Path(sys.argv[1]), durable=False), random.Random(int(sys.argv[2]))
    while True:
        ref = await store.add_bytes(rng.randbytes(rng.choice((10, 1 << 19, 3 << 20))))
        print(ref.cid, flush=True)
trio.run(main)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_instant_leaves_whole_blobs_only(tmp_path: Path, seed: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ADD_FOREVER, str(tmp_path), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        acknowledged = [process.stdout.readline().strip() for _ in range(3 + seed)]
        time.sleep(random.Random(seed).random() / 50)  # not to wait for something: to kill at some instant
        process.send_signal(signal.SIGKILL)
        process.wait()
        acknowledged += process.stdout.read().split()

    async def check() -> None:
        store = BlobStore(tmp_path)
        assert set(acknowledged) <= {file.name for file in (tmp_path / "blobs").rglob("baf*")}
        for file in (tmp_path / "blobs").rglob("baf*"):
            if file.suffix != ".dag":
                assert parse(file.name)
                await blocks_of(store, file.name)  # checks every block
        assert not list((tmp_path / "incoming").iterdir())

    trio.run(check)


@pytest.mark.trio
async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        for i in range(64):
            out.write(bytes([i]) * (1 << 20))
    store = BlobStore(tmp_path / "store", durable=False)
    tracemalloc.start()
    try:
        ref = await store.add_file(file)
        async with store.blocks(ref.cid, 0) as blocks:
            total = 0
            async for block in blocks:
                total += len(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ref.size == 64 << 20 < total
    assert peak < 8 << 20
