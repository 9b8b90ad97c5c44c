"""Questions to the node's core; whatever comes back wrong is an ApiError."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from meshnode.api.errors import ApiError
from meshnode.api.ports import ApiNode
from meshnode.node import NotAnswered
from protocol.effects import Proposal
from protocol.errors import RemoteProtocolError
from protocol.events import Event, PointersAsked
from protocol.identity import Ed25519Verifier, PeerId
from protocol.messages import LookupReply, Message
from protocol.records import Record
from protocol.show import read_signed
from protocol.signing import Opened, RecordReader
from protocol.wire import Link

R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=Message | Proposal)

ASK_TIMEOUT_S = 10.0


class Core:
    """The core of one node, as the operations see it."""

    def __init__(self, node: ApiNode) -> None:
        self.node = node
        self.reader = RecordReader(Ed25519Verifier())

    async def ask(self, kind: type[M], make_event: Callable[[int], Event], *, timeout_s: float = ASK_TIMEOUT_S) -> M:
        """The core's answer, which is of ``kind`` unless it refuses."""
        try:
            answer = await self.node.ask(make_event, timeout_s)
        except NotAnswered as error:
            raise ApiError("no-answer", str(error)) from None
        if not isinstance(answer, kind):
            raise ApiError("refused", getattr(answer, "reason", "") or f"the node answered {type(answer).__name__}")
        return answer

    async def search(self, what: str, text: str, kind: type[R], submitter: PeerId | None = None) -> list[R]:
        """The pointers that a search of the mesh finds; anybody may have made them up, but not their signatures."""
        reply = await self.ask(LookupReply, lambda number: PointersAsked(number, what, text, submitter))
        found = []
        for signed in reply.pointers:
            try:
                found.append(self.reader.open(signed, kind).record)
            except RemoteProtocolError:
                continue  # one liar does not spoil the search
        return found

    def open(self, signed: str, kind: type[R]) -> Opened[R]:
        """A record that a client handed in."""
        try:
            return self.reader.open(read_signed(signed), kind)
        except RemoteProtocolError as error:
            raise ApiError("bad-request", str(error), "signed") from None

    def open_any(self, signed: str) -> Opened[Record]:
        """A record of whatever kind that a client handed in."""
        try:
            return self.reader.open_any(read_signed(signed))
        except RemoteProtocolError as error:
            raise ApiError("bad-request", str(error), "signed") from None

    def has(self, link: Link) -> bool:
        """Whether a blob that a client names is at this node."""
        try:
            return self.node.blobs.has(link.cid)
        except ValueError as error:
            raise ApiError("bad-request", str(error), "blobs") from None
