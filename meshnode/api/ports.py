"""What the API needs of a node. ``meshnode.node.Node`` is one; tests bring their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from meshnode.blobs.store import BlobStore
from protocol.clock import WallMs
from protocol.effects import Proposal
from protocol.events import Event
from protocol.identity import PeerId
from protocol.messages import Message
from protocol.peer import PeerSnapshot
from protocol.records import JobSpec
from protocol.signing import Signed
from protocol.wire import Link


class ApiNode(Protocol):
    """One running node, from the inside."""

    @property
    def peer_id(self) -> PeerId: ...

    @property
    def blobs(self) -> BlobStore: ...

    def wall(self) -> WallMs:
        """The node's wall clock."""
        ...

    def snapshot(self) -> PeerSnapshot: ...

    async def ask(self, make_event: Callable[[int], Event], timeout_s: float) -> Message | Proposal:
        """Hand a request to the core and wait for its reply. Raises ``meshnode.node.NotAnswered``."""
        ...

    async def fetch_blob(self, link: Link, sources: Sequence[PeerId], records: Sequence[Signed] = ()) -> None:
        """Have a blob in ``blobs``; ``records`` say where the sources are. Raises BlobError, ValueError."""
        ...

    def refuses(self, spec: JobSpec) -> str | None:
        """Why nothing is done here for a job of a stranger, in one sentence; None if it may be."""
        ...

    async def doctor(self) -> dict[str, Any]:
        """What the node knows of its own health, as JSON."""
        ...
