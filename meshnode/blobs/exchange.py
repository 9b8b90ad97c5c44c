"""Blobs between peers: `BlobServer` answers for a store, `BlobClient` fetches into one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from meshnode.blobs import cid as cids
from meshnode.blobs import wire
from meshnode.blobs.errors import BlobDamaged, BlobTooLarge, FetchFailed
from meshnode.blobs.store import BlobRef, BlobStore, Incoming
from meshnode.blobs.walk import BadBlock
from meshnode.blobs.wire import FrameReader, Stream
from protocol.codec import UnknownKind
from protocol.errors import RemoteProtocolError

STALL_S = 30.0
"""Seconds for one block or message to get through."""
OPEN_TIMEOUT_S = 10.0
STREAMS_MAX = 32
"""Requests answered at once, two blocks of memory each."""
STREAMS_PER_PEER_MAX = 8
"""Of these, requests of one peer."""
REQUESTS_PER_SOURCE_MAX = 4
"""Requests a client has open with one source; below what a server answers, because the two ends of a stream do not
close at the same instant."""
ATTEMPTS_WITHOUT_PROGRESS = 3
"""Tries of one source in a row that bring nothing, before it is given up."""
ATTEMPTS_BUSY = 8
"""The same for a source that says it is busy."""
RETRY_DELAY_S = 0.2
"""Before a source is tried again; doubles with each try that brought nothing, up to the next."""
RETRY_DELAY_MAX_S = 5.0

TransportErrors = tuple[type[Exception], ...]
_LOST: TransportErrors = (trio.TooSlowError, wire.StreamEnded)
_LIES: TransportErrors = (BadBlock, wire.FrameError, RemoteProtocolError)
"""What only a source that does not follow the protocol causes."""

Progress = Callable[[int, int | None], None]
"""Called with bytes held and, once it is proven, the size."""


class BlobServer:
    """Answers requests for the blobs of ``store``.

    ``may_serve(peer, cid)`` is the policy; what it denies is answered like what is not there.
    ``errors``: what streams raise when their connection fails.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        may_serve: Callable[[str, str], bool],
        stall_s: float = STALL_S,
        errors: TransportErrors = (OSError,),
    ) -> None:
        self._store = store
        self._may_serve = may_serve
        self._stall_s = stall_s
        self._gone: TransportErrors = (*errors, *_LOST, BlobDamaged)
        self._serving: Counter[str] = Counter()

    async def serve(self, stream: Stream) -> None:
        """Answer the one request of ``stream`` and close it. Nothing the remote does makes this raise."""
        peer = stream.peer
        busy = self._serving.total() >= STREAMS_MAX or self._serving[peer] >= STREAMS_PER_PEER_MAX
        self._serving[peer] += not busy
        try:
            async with _closing(stream):
                if busy:
                    await self._refuse(stream, wire.BUSY, "too many requests at once, ask again later")
                else:
                    await self._answer(stream)
        except self._gone:
            pass  # the stream has been reset, which is all the remote can be told
        finally:
            self._serving[peer] -= not busy
            if not self._serving[peer]:
                del self._serving[peer]

    async def _answer(self, stream: Stream) -> None:
        try:
            with trio.fail_after(self._stall_s):
                request = await FrameReader(stream).read_message(wire.REQUESTS)
            names = [cids.canonical(cid) for cid in (request.cids if isinstance(request, wire.Have) else [request.cid])]
        except UnknownKind as error:
            await self._refuse(stream, wire.UNKNOWN_KIND, str(error))
        except (wire.FrameError, RemoteProtocolError, ValueError) as error:
            await self._refuse(stream, wire.BAD_REQUEST, str(error))
        else:
            if isinstance(request, wire.Have):
                sizes = tuple(self._size_for(stream.peer, name) for name in names)
                await self._send(stream, wire.message_frame(wire.Sizes(sizes=sizes)))
            else:
                await self._send_blob(stream, names[0], request.skip)

    async def _send_blob(self, stream: Stream, cid: str, skip: int) -> None:
        size = self._size_for(stream.peer, cid)
        if size is None:
            await self._refuse(stream, wire.NOT_FOUND, "no such blob here")
            return
        async with self._store.blocks(cid, skip) as blocks:
            await self._send(stream, wire.message_frame(wire.Content(size=size)))
            async for block in blocks:
                await self._send(stream, wire.frame(block))

    def _size_for(self, peer: str, cid: str) -> int | None:
        if not self._store.has(cid) or not self._may_serve(peer, cid):
            return None
        return self._store.size(cid)

    async def _refuse(self, stream: Stream, code: str, reason: str) -> None:
        await self._send(stream, wire.message_frame(wire.Error(code=code, reason=reason[:200])))

    async def _send(self, stream: Stream, data: bytes) -> None:
        with trio.fail_after(self._stall_s):
            await stream.write(data)


class OpenStream(Protocol):
    """Opens a stream to a peer; raises one of the client's ``errors`` if it cannot."""

    async def __call__(self, peer: str, protocol: str, timeout_s: float) -> Stream: ...


@dataclass(frozen=True)
class Fetched(BlobRef):
    """A blob that is now in the store, and the sources that sent something else in its place."""

    bad_sources: tuple[str, ...] = ()


class Refused(Exception):
    """The remote answered with an error."""

    def __init__(self, error: wire.Error) -> None:
        self.code = error.code
        super().__init__(f"{error.code}: {error.reason}")


@dataclass
class _Transfer:
    """One fetch under way, for everyone who wants the blob."""

    progress: list[Progress]
    finished: trio.Event = field(default_factory=trio.Event)
    failed: dict[str, str] = field(default_factory=dict)
    bad_sources: dict[str, None] = field(default_factory=dict)  # in order


class BlobClient:
    """Fetches blobs into ``store`` over streams that ``open_stream`` makes."""

    def __init__(
        self,
        store: BlobStore,
        open_stream: OpenStream,
        *,
        stall_s: float = STALL_S,
        retry_delay_s: float = RETRY_DELAY_S,
        errors: TransportErrors = (OSError,),
    ) -> None:
        self._store = store
        self._open_stream = open_stream
        self._stall_s = stall_s
        self._retry_delay_s = retry_delay_s
        self._no_luck: TransportErrors = (*errors, *_LOST, Refused)
        self._transfers: dict[str, _Transfer] = {}
        self._turns: dict[str, trio.Semaphore] = {}

    async def have(self, peer: str, blobs: Sequence[str]) -> list[int | None]:
        """Ask ``peer`` for the sizes of up to 64 blobs; None for one that it does not hold, or not for us.

        Raises FetchFailed when there is no sensible answer.
        """
        names = tuple(cids.canonical(cid) for cid in blobs)
        try:
            async with self._request(peer, wire.Have(cids=names)) as reader:
                with trio.fail_after(self._stall_s):
                    answer = await reader.read_message(wire.SIZES_ANSWERS)
                if isinstance(answer, wire.Error):
                    raise Refused(answer)
                if len(answer.sizes) != len(names):
                    raise wire.FrameError(f"{len(answer.sizes)} sizes for {len(names)} blobs")
                return list(answer.sizes)
        except self._no_luck + _LIES as error:
            raise FetchFailed(", ".join(names), {peer: _sentence(error)}, ()) from error

    async def fetch(self, cid: str, sources: Sequence[str], max_size: int, progress: Progress | None = None) -> Fetched:
        """Have the blob in the store, from whichever of ``sources`` gives it.

        Goes on where an earlier attempt stopped. Fetches of one blob at the same time share one transfer. Raises
        ValueError (not a CID), BlobTooLarge (proven to be over ``max_size`` bytes), FetchFailed (no source gave it),
        StoreFull, StoreFailed.
        """
        key = cids.canonical(cid)
        failed: dict[str, str] = {}
        bad: dict[str, None] = {}
        while not self._store.has(key):
            transfer = self._transfers.get(key)
            if transfer is None:
                left = [peer for peer in dict.fromkeys(sources) if peer not in failed]
                transfer = self._transfers[key] = _Transfer(
                    [progress] if progress else [], failed=failed, bad_sources=bad
                )
                try:
                    await self._run(key, left, max_size, transfer)
                finally:
                    del self._transfers[key]
                    transfer.finished.set()
            else:
                if progress:
                    transfer.progress.append(progress)
                await transfer.finished.wait()
                # It may have failed, or its caller was cancelled: then go on with the sources it has not ruled out.
                failed.update(transfer.failed)
                bad.update(transfer.bad_sources)
        size = self._store.size(key)
        if size > max_size:
            raise BlobTooLarge(f"blob {key} has {size} bytes, over the {max_size} that are allowed")
        return Fetched(key, size, tuple(bad))

    async def _run(self, key: str, sources: Sequence[str], max_size: int, transfer: _Transfer) -> None:
        waiting = deque(sources)
        fruitless = Counter[str]()
        async with self._store.receive(key) as incoming:
            _check_size(key, incoming, max_size)
            while not incoming.walk.done:
                if not waiting:
                    raise FetchFailed(key, transfer.failed, tuple(transfer.bad_sources))
                peer = waiting.popleft()
                if fruitless[peer]:
                    await trio.sleep(min(self._retry_delay_s * 2 ** fruitless[peer], RETRY_DELAY_MAX_S))
                blocks_before = incoming.walk.blocks
                try:
                    await self._receive_from(peer, key, incoming, max_size, transfer)
                except _LIES as error:
                    transfer.failed[peer] = _sentence(error)
                    transfer.bad_sources[peer] = None
                except self._no_luck as error:
                    progressed = incoming.walk.blocks > blocks_before
                    fruitless[peer] = 0 if progressed else fruitless[peer] + 1
                    if fruitless[peer] >= _patience(error):
                        transfer.failed[peer] = _sentence(error)
                    else:
                        waiting.append(peer)
            await incoming.publish()

    async def _receive_from(self, peer: str, key: str, incoming: Incoming, max_size: int, transfer: _Transfer) -> None:
        walk = incoming.walk
        async with self._request(peer, wire.Get(cid=key, skip=walk.blocks)) as reader:
            with trio.fail_after(self._stall_s):
                answer = await reader.read_message(wire.CONTENT_ANSWERS)
            if isinstance(answer, wire.Error):
                raise Refused(answer)
            while not walk.done:
                with trio.fail_after(self._stall_s):
                    block = await reader.read(walk.length_limit())
                await incoming.append(block)
                _check_size(key, incoming, max_size)
                if walk.size != answer.size:
                    raise wire.FrameError(f"said {answer.size} bytes of a blob of {walk.size}")
                for progress in transfer.progress:
                    progress(walk.held, walk.size)

    @asynccontextmanager
    async def _request(self, peer: str, request: wire.Message) -> AsyncIterator[FrameReader]:
        turn = self._turns.setdefault(peer, trio.Semaphore(REQUESTS_PER_SOURCE_MAX))
        try:
            async with turn:
                stream = await self._open_stream(peer, wire.PROTOCOL_ID, OPEN_TIMEOUT_S)
                async with _closing(stream):
                    with trio.fail_after(self._stall_s):
                        await stream.write(wire.message_frame(request))
                        await stream.close_write()
                    yield FrameReader(stream)
        finally:
            if turn.value == REQUESTS_PER_SOURCE_MAX:  # nobody else uses it
                self._turns.pop(peer, None)


def _patience(error: Exception) -> int:
    """After how many tries that brought nothing, the last with this error, a source is given up."""
    if not isinstance(error, Refused):
        return ATTEMPTS_WITHOUT_PROGRESS
    return ATTEMPTS_BUSY if error.code == wire.BUSY else 1


def _check_size(key: str, incoming: Incoming, max_size: int) -> None:
    # Only the size that a checked block proves counts: a source that merely claims a large one must not end a fetch.
    size = incoming.walk.size
    if size is not None and size > max_size:
        raise BlobTooLarge(f"blob {key} has {size} bytes, over the {max_size} that are allowed")


def _sentence(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no progress for too long"
    return str(error) or type(error).__name__


@asynccontextmanager
async def _closing(stream: Stream) -> AsyncIterator[None]:
    """Close ``stream`` in good order at the end, or reset it if something was raised."""
    try:
        yield
    except BaseException:
        with trio.CancelScope(shield=True):
            await stream.reset()
        raise
    await stream.aclose()
