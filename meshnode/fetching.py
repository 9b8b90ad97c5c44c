"""Getting the blobs that something needs onto this disk, several at a time, and what they refer to."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import trio

from meshnode import retention
from meshnode.blobs.errors import BlobError
from meshnode.blobs.exchange import BlobClient
from meshnode.blobs.store import BlobStore
from meshnode.execution.linked import TooManyLinks, linked_in
from protocol.identity import PeerId
from protocol.wire import Link

log = logging.getLogger(__name__)

_AT_ONCE = 8
_LISTS_BYTES_MAX = 64 << 20
"""A larger blob is not looked into for files that it refers to."""
_LEVELS = 2
"""Of files that list files: the output of a split lists those with the inputs of its shards, which list tiles."""


class Fetcher:
    """Fetches into ``store`` with ``client``; ``own_id`` is never asked."""

    def __init__(self, store: BlobStore, client: BlobClient, own_id: PeerId) -> None:
        self._store = store
        self._client = client
        self._own_id = own_id
        self._slots = trio.CapacityLimiter(_AT_ONCE)

    async def fetch(self, links: Iterable[Link], sources: Sequence[PeerId]) -> None:
        """Have every blob in the store. Raises the first BlobError, or ValueError for what is no CID."""
        errors: list[Exception] = []

        async def fetch_or_end_all(link: Link) -> None:
            if (error := await self._fetch_one(link, sources)) is not None:
                errors.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(fetch_or_end_all, link)
        if errors:
            raise errors[0]

    async def hold(self, links: Iterable[Link], sources: Sequence[PeerId], until_s: float, bytes_max: int) -> None:
        """Have every blob in the store and keep it until then (Unix time), with the files it refers to.

        An output is of little use without the tiles or pictures it lists, so those come along where the sources
        have them, up to ``bytes_max`` in all. What is listed but cannot be had is no failure: it may be anything.
        """
        held = {link.cid: link for link in links}
        await self.fetch(held.values(), sources)
        room = bytes_max
        lists = list(held.values())
        for _ in range(_LEVELS):
            wanted: list[Link] = []
            for listed in lists:
                for below in await self._listed_in(listed):
                    if below.size <= room and below.cid not in held:
                        room -= below.size
                        held[below.cid] = below
                        wanted.append(below)
            async with trio.open_nursery() as nursery:
                for below in wanted:
                    nursery.start_soon(self._fetch_one, below, sources)
            lists = wanted
        for cid in held:
            retention.keep_until(self._store, cid, until_s)

    async def _fetch_one(self, link: Link, sources: Sequence[PeerId]) -> Exception | None:
        """Have one blob in the store; what went wrong if it is not."""
        try:
            if self._store.has(link.cid):
                retention.mark_used(self._store, link.cid)
                return None
            async with self._slots:
                await self._client.fetch(link.cid, [peer for peer in sources if peer != self._own_id], link.size)
        except (BlobError, ValueError) as error:
            log.debug("%s", error)
            return error
        return None

    async def _listed_in(self, link: Link) -> list[Link]:
        if link.size > _LISTS_BYTES_MAX or not self._store.has(link.cid):
            return []
        try:
            return await trio.to_thread.run_sync(linked_in, [self._store.path(link.cid)])
        except (OSError, TooManyLinks):
            return []
