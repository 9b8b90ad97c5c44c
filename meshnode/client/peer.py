"""The way to any node, over libp2p: for submitters without a node of their own.

A host that lives as long as the connection, on loopback only: nobody has to dial it. It runs in a thread, because
everything else here is plain synchronous code. The node fetches a job's files from it over the connection that is
open already, and it fetches the output from the node.
"""

from __future__ import annotations

import concurrent.futures
import secrets
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from meshnode.api import requests
from meshnode.api.errors import ApiError
from meshnode.api.gateway import ANSWER_BYTES_MAX, ANSWER_TIMEOUT_S, PROTOCOL, read_frame
from meshnode.blobs import wire as blob_wire
from meshnode.blobs.errors import BlobError
from meshnode.blobs.exchange import BlobClient, BlobServer
from meshnode.blobs.store import BlobStore
from meshnode.client.connection import Progress
from meshnode.client.errors import NoNode, RequestRefused
from meshnode.client.http import refusal
from meshnode.net.errors import BadAddress, NetworkError, ProtocolRefused
from meshnode.net.framing import encode_frame
from meshnode.net.network import Network
from protocol.wire import Link

T = TypeVar("T")

OPEN_TIMEOUT_S = 20.0
_PIECE_BYTES = 1 << 20
_BACKGROUND_JOIN_S = 10.0


@contextmanager
def connect_peer(address: str) -> Iterator[PeerConnection]:
    """Connect to the node at ``address``. Raises NoNode, or RequestRefused for an address that is none."""
    with tempfile.TemporaryDirectory(prefix="meshnode-submit-") as folder:
        ready: concurrent.futures.Future[PeerConnection] = concurrent.futures.Future()
        thread = threading.Thread(target=_run, args=(address, Path(folder), ready), name="libp2p", daemon=True)
        thread.start()
        connection = None
        try:
            connection = ready.result(timeout=OPEN_TIMEOUT_S + 10)
            yield connection
        finally:
            if connection is not None:
                connection.close()
            thread.join(_BACKGROUND_JOIN_S)


def _run(address: str, folder: Path, ready: concurrent.futures.Future[PeerConnection]) -> None:
    try:
        trio.run(_serve, address, folder, ready)
    except BaseException as error:
        if not ready.done():
            ready.set_exception(NoNode(f"no node answers at {address}: {error}"))


async def _serve(address: str, folder: Path, ready: concurrent.futures.Future[PeerConnection]) -> None:
    async with Network.start(secrets.token_bytes(32)) as network:
        store = BlobStore(folder, durable=False)
        try:
            with trio.fail_after(OPEN_TIMEOUT_S):
                node = await network.connect(address)
        except BadAddress as error:
            ready.set_exception(RequestRefused(f"--peer: {error}"))
            return
        except (NetworkError, trio.TooSlowError) as error:
            ready.set_exception(NoNode(f"no node answers at {address}: {error or 'it took too long'}"))
            return
        server = BlobServer(store, may_serve=lambda peer, cid: peer == node, errors=(NetworkError, OSError))
        network.handle(blob_wire.PROTOCOL_ID, server.serve)
        connection = PeerConnection(network, store, node)
        ready.set_result(connection)
        await connection.closed.wait()


class PeerConnection:
    """Requests to one node over libp2p. Made by ``connect_peer``; its methods are for other threads than trio's."""

    def __init__(self, network: Network, store: BlobStore, node: str) -> None:
        self.closed = trio.Event()
        self._network = network
        self._store = store
        self._node = node
        self._blobs = BlobClient(store, network.open_stream, errors=(NetworkError, OSError))
        self._trio = trio.lowlevel.current_trio_token()

    def close(self) -> None:
        with suppress(trio.RunFinishedError):
            self._trio.run_sync_soon(self.closed.set)

    def ask(self, request: requests.AnyRequest) -> Any:
        answer = self._await(self._ask, request)
        match answer:
            case {"result": result}:
                return result
            case {"error": error}:
                raise refusal(error)
            case _:
                raise RequestRefused("the node's answer is not understood", code="internal")

    def add_file(self, path: Path, progress: Progress | None = None) -> Link:
        added = self._await(self._store.add_file, path)
        if progress:
            progress(added.size)
        return Link(cid=added.cid, size=added.size)

    def add_bytes(self, data: bytes) -> Link:
        added = self._await(self._store.add_bytes, data)
        return Link(cid=added.cid, size=added.size)

    def blob_size(self, cid: str) -> int | None:
        try:
            (size,) = self._await(self._blobs.have, self._node, [cid])
        except (BlobError, ValueError):
            return None
        return size

    def read_blob(self, blob: Link) -> Iterator[bytes]:
        try:
            self._await(self._blobs.fetch, blob.cid, [self._node], blob.size)
        except (BlobError, ValueError) as error:
            raise NoNode(f"the node does not give the output: {error}") from None
        with self._store.path(blob.cid).open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    async def _ask(self, request: requests.AnyRequest) -> Any:
        with trio.fail_after(ANSWER_TIMEOUT_S):
            async with await self._network.open_stream(self._node, PROTOCOL) as stream:
                await stream.write(encode_frame(msgspec.json.encode(request)))
                await stream.close_write()
                return msgspec.json.decode(await read_frame(stream, ANSWER_BYTES_MAX))

    def _await(self, work: Callable[..., Awaitable[T]], *args: object) -> T:
        try:
            return trio.from_thread.run(work, *args, trio_token=self._trio)
        except ProtocolRefused:
            raise RequestRefused(f"{self._node} takes no jobs from strangers") from None
        except (NetworkError, ApiError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoNode(f"the connection to {self._node} broke: {error}") from None
        except (trio.TooSlowError, trio.RunFinishedError, trio.Cancelled):
            raise NoNode(f"{self._node} does not answer") from None
