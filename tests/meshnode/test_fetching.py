"""Fetching what is held and what it lists; keeping it as long as promised, and no longer."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from meshnode import retention
from meshnode.blobs.errors import FetchFailed
from meshnode.blobs.exchange import BlobClient
from meshnode.blobs.store import BlobStore
from meshnode.fetching import Fetcher
from meshnode.jobs.canonical import canonical_json
from protocol.identity import PeerId
from protocol.wire import Link

ME, OTHER = PeerId("me"), PeerId("other")


class Source:
    """Gives what is in another store, as a BlobClient would."""

    def __init__(self, store: BlobStore, far: BlobStore) -> None:
        self.store, self.far = store, far
        self.asked: list[str] = []

    async def fetch(self, cid: str, sources: Sequence[str], max_size: int) -> None:
        self.asked.append(cid)
        if not sources or not self.far.has(cid):
            raise FetchFailed(cid, dict.fromkeys(sources, "no such blob here"), ())
        await self.store.add_bytes(await self.far.read(cid, 0, self.far.size(cid)))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(BlobStore(tmp_path / "near", durable=False), BlobStore(tmp_path / "far", durable=False))


@pytest.fixture
def fetcher(source: Source) -> Fetcher:
    return Fetcher(source.store, cast(BlobClient, source), ME)


async def add(store: BlobStore, content: bytes | Any) -> Link:
    blob = await store.add_bytes(content if isinstance(content, bytes) else canonical_json(content))
    return Link(cid=blob.cid, size=blob.size)


@pytest.mark.trio
async def test_what_is_here_is_not_asked_for(source: Source, fetcher: Fetcher) -> None:
    here, there = await add(source.store, b"here"), await add(source.far, b"there")
    await fetcher.fetch([here, there], [OTHER])
    assert source.asked == [there.cid]
    assert source.store.has(there.cid)


@pytest.mark.trio
async def test_this_node_is_never_its_own_source(source: Source, fetcher: Fetcher) -> None:
    there = await add(source.far, b"there")
    with pytest.raises(FetchFailed):
        await fetcher.fetch([there], [ME])


@pytest.mark.trio
async def test_holding_brings_the_files_that_an_output_lists(source: Source, fetcher: Fetcher) -> None:
    tile = await add(source.far, b"a tile")
    gone = {"cid": "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "size": 3}
    output = await add(source.far, {"shards": [{"tiles": [{"cid": tile.cid, "size": tile.size, "x": 0}, gone]}]})
    until = time.time() + 7 * 24 * 3600
    await fetcher.hold([output], [OTHER], until, 1 << 20)
    assert source.store.has(tile.cid), "a file that cannot be had must not keep the others away"
    await retention.sweep(source.store, source.store.path(tile.cid).parents[2], unused_s=-1)
    assert source.store.has(tile.cid)
    assert source.store.has(output.cid)


@pytest.mark.trio
async def test_the_files_in_the_lists_that_a_long_split_lists_come_along_and_stay(
    source: Source, fetcher: Fetcher
) -> None:
    tile = await add(source.far, b"a tile")
    inputs = await add(source.far, [{"tiles": [{"cid": tile.cid, "size": tile.size}]}])
    padding = "x" * (2 << 20)  # the sweep reads such a list in pieces
    split = await add(source.far, {"count": 300, "pad": padding, "tasks": [{"cid": inputs.cid, "size": inputs.size}]})
    await fetcher.hold([split], [OTHER], 0, 1 << 20)
    for link in (split, inputs, tile):
        os.utime(source.store.path(link.cid), (0, 0))
    root = source.store.path(tile.cid).parents[2]
    assert await retention.sweep(source.store, root, {split.cid}) == 0
    assert await retention.sweep(source.store, root) == 3


@pytest.mark.trio
async def test_files_beyond_the_bound_stay_away(source: Source, fetcher: Fetcher) -> None:
    small, large = await add(source.far, b"s"), await add(source.far, b"l" * 100)
    output = await add(source.far, [{"cid": link.cid, "size": link.size} for link in (large, small)])
    await fetcher.hold([output], [OTHER], time.time(), 50)
    assert source.store.has(small.cid)
    assert not source.store.has(large.cid)


@pytest.mark.trio
async def test_the_sweep_takes_what_nobody_wanted_for_long(source: Source) -> None:
    old, used = await add(source.store, b"old"), await add(source.store, b"used")
    for link in (old, used):
        os.utime(source.store.path(link.cid), (0, 0))
    retention.mark_used(source.store, used.cid)
    root = source.store.path(old.cid).parents[2]
    assert await retention.sweep(source.store, root) == 1
    assert not source.store.has(old.cid)
    assert source.store.has(used.cid)


@pytest.mark.trio
async def test_the_sweep_leaves_what_is_in_use_and_what_that_lists(source: Source) -> None:
    tile, other = await add(source.store, b"a tile"), await add(source.store, b"other")
    output = await add(source.store, {"tiles": [{"cid": tile.cid, "size": tile.size}]})
    for link in (tile, other, output):
        os.utime(source.store.path(link.cid), (0, 0))
    root = source.store.path(tile.cid).parents[2]
    assert await retention.sweep(source.store, root, {output.cid}) == 1
    assert [source.store.has(link.cid) for link in (tile, other, output)] == [True, False, True]
    assert await retention.sweep(source.store, root) == 2


@pytest.mark.trio
async def test_a_promise_is_never_shortened(source: Source) -> None:
    link = await add(source.store, b"x")
    retention.keep_until(source.store, link.cid, time.time() + 1000)
    before = source.store.path(link.cid).stat().st_mtime
    retention.mark_used(source.store, link.cid)
    assert source.store.path(link.cid).stat().st_mtime == before
