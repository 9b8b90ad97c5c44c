import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import lockstep_stream_pair, memory_stream_pair

from meshnode.blobs import exchange, wire
from meshnode.blobs.errors import BlobTooLarge, FetchFailed, StoreFull
from meshnode.blobs.exchange import BlobClient, BlobServer
from meshnode.blobs.store import BlobStore
from meshnode.blobs.unixfs import Layout

SMALL = Layout(chunk_bytes=4, max_links=3, max_height=8)
DATA = bytes(range(60))  # 15 leaves under 8 nodes
HELLO = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"


class MemoryStream:
    """One end of a stream in memory; ``cut`` says after how many received bytes the connection breaks."""

    def __init__(self, raw: trio.StapledStream[Any, Any], peer: str, cut: int | None = None) -> None:
        self.peer = peer
        self._raw = raw
        self._left = cut

    async def read_some(self, max_bytes: int) -> bytes:
        if self._left == 0:
            raise OSError("the connection broke")
        try:
            data = bytes(await self._raw.receive_some(min(max_bytes, self._left or max_bytes)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError("the stream was reset") from error
        if self._left is not None:
            self._left -= len(data)
        return data

    async def write(self, data: bytes) -> None:
        try:
            await self._raw.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError("the stream was reset") from error

    async def close_write(self) -> None:
        await self._raw.send_eof()

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._raw)

    async def reset(self) -> None:
        await trio.aclose_forcefully(self._raw)


Handler = Callable[[MemoryStream], Awaitable[None]]


class Peers:
    """Sources by name, and what was asked of them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.handlers: dict[str, Handler] = {}
        self.asked: Counter[str] = Counter()
        self.pair: Callable[[], tuple[Any, Any]] = memory_stream_pair
        self.cuts: list[int] = []
        """For each stream in turn, after how many bytes it breaks; none left: it does not."""

    async def open_stream(self, peer: str, protocol: str, timeout_s: float) -> MemoryStream:
        assert protocol == "/meshnode/blob/1"
        self.asked[peer] += 1
        if peer not in self.handlers:
            raise OSError("no route")
        ours, theirs = self.pair()
        self._nursery.start_soon(self.handlers[peer], MemoryStream(theirs, "client"))
        return MemoryStream(ours, peer, self.cuts.pop(0) if self.cuts else None)


class World:
    """A store that serves, a store that fetches, and peers between them."""

    def __init__(self, root: Path, nursery: trio.Nursery, layout: Layout) -> None:
        self.root, self.layout = root, layout
        self.theirs = self.store("theirs")
        self.ours = self.store("ours")
        self.peers = Peers(nursery)
        self.server = BlobServer(self.theirs, may_serve=lambda peer, cid: True)
        self.peers.handlers["honest"] = self.server.serve

    def store(self, name: str) -> BlobStore:
        return BlobStore(self.root / name, durable=False, layout=self.layout)

    def client(self, stall_s: float = 30) -> BlobClient:
        return BlobClient(self.ours, self.peers.open_stream, stall_s=stall_s, retry_delay_s=0.001)

    async def frames(self, cid: str) -> list[bytes]:
        """The honest answer to a Get: the header's body, then the blocks."""
        async with self.theirs.blocks(cid, 0) as blocks:
            return [wire.codec.encode(wire.Content(size=self.theirs.size(cid)))] + [b async for b in blocks]


@asynccontextmanager
async def world(layout: Layout = SMALL) -> AsyncIterator[World]:
    with TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            yield World(Path(folder), nursery, layout)
            nursery.cancel_scope.cancel()


def answering(data: bytes, *, then_silence: bool = False) -> Handler:
    """A source that reads the request and sends ``data``."""

    async def serve(stream: MemoryStream) -> None:
        try:
            await wire.FrameReader(stream).read_message(wire.REQUESTS)
            await stream.write(data)
            if then_silence:
                await trio.sleep_forever()
            await stream.close_write()
        except OSError:
            pass  # the client had enough

    return serve


@pytest.mark.trio
@pytest.mark.parametrize("size", [0, 1, 4, 5, 12, 13, 60, 111])
async def test_a_blob_is_fetched_from_whoever_holds_it(size: int) -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(bytes(range(size)))
        seen: list[tuple[int, int | None]] = []
        got = await w.client().fetch(ref.cid, ["away", "honest"], size, lambda *held: seen.append(held))
        assert (got.cid, got.size, got.bad_sources) == (ref.cid, size, ())
        assert w.ours.path(ref.cid).read_bytes() == bytes(range(size))
        assert seen[-1] == (size, size)
        assert seen == sorted(seen)
        await w.client().fetch(ref.cid, [], size)  # here already: nobody is asked
        assert w.peers.asked["honest"] == 1


def flipped(block: bytes) -> bytes:
    return bytes([block[0] ^ 1]) + block[1:]


LIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a chunk changed": lambda f: [*f[:-2], flipped(f[-2]), f[-1]],
    "the first chunk changed": lambda f: [*f[:4], flipped(f[4]), *f[5:]],
    "the root changed": lambda f: [f[0], flipped(f[1]), *f[2:]],
    "chunks in another order": lambda f: [*f[:-2], f[-1], f[-2]],
    "a chunk twice": lambda f: [*f[:5], f[4], *f[5:]],
    "a chunk left out": lambda f: [*f[:5], *f[6:]],
    "a node left out": lambda f: [*f[:2], *f[3:]],
    "a chunk too long": lambda f: [*f[:-1], f[-1] + b"\0"],
    "a chunk too short": lambda f: [*f[:-1], f[-1][:-1]],
    "an empty chunk": lambda f: [*f[:-1], b""],
    "a wrong size": lambda f: [wire.codec.encode(wire.Content(size=1 << 50)), *f[1:]],
    "an enormous block": lambda f: [f[0], bytes(1 << 20), *f[1:]],
    "no header": lambda f: f[1:],
    "garbage": lambda f: [b"garbage"],
    "a header of another kind": lambda f: [wire.codec.encode(wire.Sizes(sizes=(60,))), *f[1:]],
    "an enormous header": lambda f: [bytes(1 << 20)],
}


@pytest.mark.trio
@pytest.mark.parametrize("lie", LIES)
async def test_a_liar_is_named_and_asked_once_and_another_source_goes_on(lie: str) -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        frames = LIES[lie](await w.frames(ref.cid))
        w.peers.handlers["liar"] = answering(b"".join(map(wire.frame, frames)))
        got = await w.client().fetch(ref.cid, ["liar", "honest"], 1000)
        assert got.bad_sources == ("liar",)
        assert w.peers.asked == {"liar": 1, "honest": 1}
        assert w.ours.path(ref.cid).read_bytes() == DATA


@pytest.mark.trio
@pytest.mark.parametrize("lie", LIES)
async def test_with_liars_only_the_fetch_fails_and_says_who(lie: str) -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        w.peers.handlers["liar"] = answering(b"".join(map(wire.frame, LIES[lie](await w.frames(ref.cid)))))
        with pytest.raises(FetchFailed, match="liar: ") as caught:
            await w.client().fetch(ref.cid, ["liar", "away"], 1000)
        assert caught.value.bad_sources == ("liar",)
        assert set(caught.value.reasons) == {"liar", "away"}
        assert not w.ours.has(ref.cid)
        assert w.peers.asked["away"] == exchange.ATTEMPTS_WITHOUT_PROGRESS


@pytest.mark.trio
@pytest.mark.parametrize("sent", [0, 1, 30])
async def test_a_silent_source_is_given_up(sent: int) -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        data = b"".join(map(wire.frame, await w.frames(ref.cid)))[:sent]
        w.peers.handlers["silent"] = answering(data, then_silence=True)
        with pytest.raises(FetchFailed, match="silent: no progress"):
            await w.client(stall_s=0.05).fetch(ref.cid, ["silent"], 1000)
        got = await w.client().fetch(ref.cid, ["honest"], 1000)
        assert got.bad_sources == ()


@pytest.mark.trio
async def test_a_source_that_trickles_is_given_up() -> None:
    async def trickle(stream: MemoryStream) -> None:
        await wire.FrameReader(stream).read_message(wire.REQUESTS)
        try:
            await stream.write(wire.message_frame(wire.Content(size=60)) + b"\x7f")
            while True:
                await stream.write(b"x")
                await trio.sleep(0.002)
        except OSError:
            pass

    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        w.peers.handlers["slow"] = trickle
        with pytest.raises(FetchFailed):
            await w.client(stall_s=0.05).fetch(ref.cid, ["slow"], 1000)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 900), max_size=12), reopen=st.booleans())
def test_a_broken_connection_is_resumed_at_the_first_missing_block(cuts: list[int], reopen: bool) -> None:
    async def main() -> None:
        async with world() as w:
            ref = await w.theirs.add_bytes(DATA)
            blocks = len(await w.frames(ref.cid)) - 1
            kept: list[int] = []
            w.peers.cuts = list(cuts)
            for _ in range(len(cuts) + 1):
                try:
                    await w.client().fetch(ref.cid, ["honest"], 1000, lambda *_: kept.append(1))
                    break
                except FetchFailed:  # three breaks in a row that brought nothing
                    if reopen:  # as after a restart of the process
                        w.ours = w.store("ours")
            assert w.ours.path(ref.cid).read_bytes() == DATA
            assert len(kept) == blocks  # every block was received once

    trio.run(main)


@pytest.mark.trio
async def test_a_fetch_goes_on_after_a_restart() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        w.peers.cuts = [600, 1, 1, 1]
        with pytest.raises(FetchFailed, match="broke"):
            await w.client().fetch(ref.cid, ["honest"], 1000)
        w.ours = w.store("ours")
        assert w.ours.partial(ref.cid) > 0
        seen: list[int] = []
        await w.client().fetch(ref.cid, ["honest"], 1000, lambda held, _: seen.append(held))
        assert seen[0] > 4
        assert w.ours.path(ref.cid).read_bytes() == DATA


@pytest.mark.trio
async def test_fetches_of_one_blob_share_one_transfer() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        client, progress = w.client(), Counter[int]()
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(client.fetch, ref.cid, ["honest"], 1000, lambda *_, n=n: progress.update([n]))
        assert w.peers.asked["honest"] == 1
        assert len(progress) == 10


@pytest.mark.trio
async def test_when_the_first_caller_is_cancelled_another_goes_on() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        frames = await w.frames(ref.cid)
        client = w.client()
        w.peers.handlers["hangs"] = answering(b"".join(map(wire.frame, frames[:10])), then_silence=True)
        first, second = trio.CancelScope(), trio.Event()

        async def be_first() -> None:
            with first:
                await client.fetch(ref.cid, ["hangs"], 1000, lambda *_: second.set())

        async def be_second() -> None:
            await second.wait()
            async with trio.open_nursery() as waiting:
                waiting.start_soon(client.fetch, ref.cid, ["honest"], 1000)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_first)
            nursery.start_soon(be_second)
        assert w.ours.path(ref.cid).read_bytes() == DATA


@pytest.mark.trio
async def test_who_waited_for_a_failed_transfer_asks_only_other_sources() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        w.peers.handlers["liar"] = answering(wire.frame(b"garbage"))
        client, results = w.client(), []

        async def fetch(sources: list[str]) -> None:
            try:
                results.append((await client.fetch(ref.cid, sources, 1000)).bad_sources)
            except FetchFailed as failed:
                results.append(failed.bad_sources)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, ["liar"])
            nursery.start_soon(fetch, ["liar"])
            nursery.start_soon(fetch, ["liar", "honest"])
        assert results == [("liar",)] * 3
        assert w.peers.asked["liar"] == 1
        assert w.ours.has(ref.cid)


@pytest.mark.trio
@pytest.mark.parametrize("size", [3, 60])
async def test_content_over_the_limit_is_refused_as_soon_as_its_size_is_proven(size: int) -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(bytes(range(size)))
        seen: list[int] = []
        with pytest.raises(BlobTooLarge, match=f"has {size} bytes, over the 2 "):
            await w.client().fetch(ref.cid, ["honest"], 2, lambda held, _: seen.append(held))
        assert seen == []
        assert not w.ours.has(ref.cid)
        await w.client().fetch(ref.cid, ["honest"], size)
        with pytest.raises(BlobTooLarge):  # also when it is here already
            await w.client().fetch(ref.cid, ["honest"], 2)


@pytest.mark.trio
async def test_a_full_store_ends_a_fetch_without_blaming_the_source() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        w.ours = BlobStore(w.root / "small", capacity=300, durable=False, layout=SMALL)
        with pytest.raises(StoreFull):
            await w.client().fetch(ref.cid, ["honest"], 1000)


@pytest.mark.trio
async def test_what_the_policy_denies_is_answered_like_what_is_not_there() -> None:
    async with world() as w:
        allowed, denied = await w.theirs.add_bytes(b"allowed"), await w.theirs.add_bytes(b"denied")
        asked: list[tuple[str, str]] = []

        def may_serve(peer: str, cid: str) -> bool:
            asked.append((peer, cid))
            return cid == allowed.cid

        w.peers.handlers["strict"] = BlobServer(w.theirs, may_serve=may_serve).serve
        assert await w.client().have("strict", [allowed.cid, denied.cid, HELLO]) == [7, None, None]
        await w.client().fetch(allowed.cid, ["strict"], 100)
        reasons = []
        for cid in (denied.cid, HELLO):
            with pytest.raises(FetchFailed) as caught:
                await w.client().fetch(cid, ["strict"], 100)
            reasons.append(caught.value.reasons)
        assert reasons == [{"strict": "not-found: no such blob here"}] * 2
        assert ("client", denied.cid) in asked


@pytest.mark.trio
async def test_a_blob_damaged_at_its_holder_comes_from_another_and_nobody_is_blamed() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        rotten = w.store("rotten")
        await rotten.add_bytes(DATA)
        path = rotten.path(ref.cid)
        path.unlink()
        path.write_bytes(DATA[:-1] + b"!")
        w.peers.handlers["rotten"] = BlobServer(rotten, may_serve=lambda peer, cid: True).serve
        got = await w.client().fetch(ref.cid, ["rotten", "honest"], 1000)
        assert got.bad_sources == ()
        assert not rotten.has(ref.cid)


@pytest.mark.trio
async def test_many_fetches_from_one_source_take_turns() -> None:
    async with world() as w:
        refs = [await w.theirs.add_bytes(bytes([n]) * 50) for n in range(30)]
        open_now, most = 0, 0
        serve = w.server.serve

        async def watched(stream: MemoryStream) -> None:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await serve(stream)
            open_now -= 1

        w.peers.handlers["honest"] = watched
        client = w.client()
        async with trio.open_nursery() as nursery:
            for ref in refs:
                nursery.start_soon(client.fetch, ref.cid, ["honest"], 100)
        assert all(w.ours.has(ref.cid) for ref in refs)
        assert most <= exchange.STREAMS_PER_PEER_MAX
        assert w.peers.asked["honest"] == 30


async def ask(server: BlobServer, data: bytes, peer: str = "stranger") -> bytes:
    """All that ``server`` answers to ``data``."""
    ours, theirs = memory_stream_pair()
    answer = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, MemoryStream(theirs, peer))
        stream = MemoryStream(ours, "server")

        async def send() -> None:
            try:
                await stream.write(data)
                await stream.close_write()
            except (OSError, trio.BrokenResourceError):
                pass

        nursery.start_soon(send)
        while part := await stream.read_some(1 << 16):
            answer += part
    return bytes(answer)


async def read_all(data: bytes, kinds: dict[str, Any]) -> Any:
    """The one message in ``data``."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, data)
        message = await wire.FrameReader(MemoryStream(ours, "x")).read_message(kinds)
    assert wire.message_frame(message) == data
    return message


@pytest.mark.trio
async def test_a_server_that_is_busy_says_so_and_is_asked_again() -> None:
    async with world() as w:
        ref = await w.theirs.add_bytes(DATA)
        async with trio.open_nursery() as nursery:
            holding = []
            for _ in range(exchange.STREAMS_PER_PEER_MAX):
                ours, theirs = memory_stream_pair()
                holding.append(ours)
                nursery.start_soon(w.server.serve, MemoryStream(theirs, "client"))
            await trio.testing.wait_all_tasks_blocked()
            error = await read_all(await ask(w.server, b"", peer="client"), {"error": wire.Error})
            assert error.code == "busy"
            # others are served meanwhile
            sizes = await ask(w.server, wire.message_frame(wire.Have(cids=(ref.cid,))), peer="another")
            assert (await read_all(sizes, wire.SIZES_ANSWERS)).sizes == (60,)

            async def free() -> None:
                while w.peers.asked["honest"] < 2:  # noqa: ASYNC110 (there is nothing to wait on)
                    await trio.sleep(0.001)
                for stream in holding:
                    await stream.aclose()

            nursery.start_soon(free)
            await w.client().fetch(ref.cid, ["honest"], 1000)


@pytest.mark.trio
async def test_messages_have_the_bytes_of_the_vectors(vectors: Callable[[str], Any]) -> None:
    kinds = {**wire.REQUESTS, **wire.CONTENT_ANSWERS, **wire.SIZES_ANSWERS}
    for vector in vectors("wire.json")["messages"]:
        message = await read_all(bytes.fromhex(vector["frame"]), kinds)
        assert msgspec.to_builtins(message) == {
            key: tuple(value) if isinstance(value, list) else value for key, value in vector["message"].items()
        }


@pytest.mark.trio
async def test_requests_that_are_refused_get_one_error(vectors: Callable[[str], Any]) -> None:
    async with world() as w:
        for vector in vectors("wire.json")["refused"]:
            answer = await ask(w.server, bytes.fromhex(vector["frame"]))
            assert (await read_all(answer, {"error": wire.Error})).code == vector["code"], vector["why"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(wire.frame))
def test_no_request_makes_the_server_raise(data: bytes) -> None:
    async def main() -> None:
        async with world() as w:
            answer = await ask(w.server, data)
            assert answer == b"" or await read_all(answer, {"error": wire.Error})

    trio.run(main)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(wire.frame))
def test_no_answer_makes_a_fetch_do_anything_but_fail(data: bytes) -> None:
    async def main() -> None:
        async with world() as w:
            w.peers.handlers["odd"] = answering(data)
            with pytest.raises(FetchFailed):
                await w.client().fetch(HELLO, ["odd"], 1000)
            with pytest.raises(FetchFailed):
                await w.client().have("odd", [HELLO])
            assert not w.ours.has(HELLO)

    trio.run(main)


@pytest.mark.trio
async def test_memory_does_not_grow_with_the_blob() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        rng = random.Random(1)
        for _ in range(64):
            yield rng.randbytes(1 << 20)

    async with world(Layout()) as w:
        ref = await w.theirs.add_stream(pieces())
        w.peers.pair = lockstep_stream_pair  # holds nothing itself
        tracemalloc.start()
        try:
            await w.client().fetch(ref.cid, ["honest"], 1 << 30)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert w.ours.size(ref.cid) == 64 << 20
        assert peak < 24 << 20
