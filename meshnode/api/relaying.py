"""Having a job's files here for as long as its steward needs to fetch them.

A client behind a connection that it opened itself cannot be dialled by the steward, so the peer it is connected to
stands in between. What was brought here for that alone goes again when the steward has answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from meshnode import retention
from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from meshnode.blobs.errors import BlobError
from protocol.identity import PeerId
from protocol.records import JobSpec
from protocol.wire import Link

STRANGERS_AT_ONCE = 4


class Relay:
    """Fetches files of jobs through one node."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._strangers = trio.CapacityLimiter(STRANGERS_AT_ONCE)
        self._users: Counter[str] = Counter()
        """How many jobs in here need a blob that was not at this node before them."""
        self._brought: dict[str, float | None] = {}
        """When such a blob was last used, by the time it was here."""

    @asynccontextmanager
    async def files_of(self, spec: JobSpec, sources: Sequence[PeerId], *, stranger: bool) -> AsyncIterator[None]:
        """Have all blobs of the job here until the block is left. Raises ApiError.

        For a stranger only what this node's policy and its bounds allow.
        """
        if not stranger:
            async with self._held(spec, sources):
                yield
            return
        if reason := self._core.node.refuses(spec):
            raise ApiError("refused", reason)
        try:
            self._strangers.acquire_nowait()
        except trio.WouldBlock:
            raise ApiError("refused", "this node is busy fetching the files of other jobs, try again later") from None
        try:
            async with self._held(spec, sources):
                yield
        finally:
            self._strangers.release()

    @asynccontextmanager
    async def _held(self, spec: JobSpec, sources: Sequence[PeerId]) -> AsyncIterator[None]:
        blobs = self._core.node.blobs
        wanted = [link for link in spec.blobs if link.cid in self._users or not self._core.has(link)]
        self._users.update(link.cid for link in wanted)
        try:
            for link in wanted:
                if not blobs.has(link.cid):
                    await self._fetch(link, sources)
            yield
        finally:
            with trio.CancelScope(shield=True):
                for link in wanted:
                    await self._let_go(link.cid)

    async def _fetch(self, link: Link, sources: Sequence[PeerId]) -> None:
        try:
            await self._core.node.fetch_blob(link, sources)
        except (BlobError, ValueError) as error:
            raise ApiError("bad-request", f"a file of the job cannot be had: {error}", "blobs") from None
        self._brought[link.cid] = retention.wanted_at(self._core.node.blobs, link.cid)

    async def _let_go(self, cid: str) -> None:
        """Remove the blob after its last user, unless somebody else has come to want it, a holder of the job say."""
        self._users[cid] -= 1
        if self._users[cid]:
            return
        del self._users[cid]
        brought = self._brought.pop(cid, None)
        if brought is not None and retention.wanted_at(self._core.node.blobs, cid) == brought:
            await self._core.node.blobs.remove(cid)
