"""What a peer can ask of its driver: its outputs, in the imperative.

Effects are carried out in order per destination. ``Send`` may be lost, late or repeated: the core retries from its
own deadlines, never from an error return.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.identity import PeerId
from protocol.messages import Message
from protocol.records import Part, StageSpec
from protocol.wire import Holder, Link, Output, Task


class Effect(msgspec.Struct, frozen=True, tag_field="effect", tag=True):
    """Base of all effects."""


class Send(Effect, frozen=True):
    to: PeerId
    message: Message


class LearnAddresses(Effect, frozen=True):
    """Where a peer says it is reached; a later ``Send`` may need it."""

    peer: PeerId
    addresses: tuple[str, ...]


class KeepLink(Effect, frozen=True):
    """Hold the connection to a neighbour open (or let it go when idle)."""

    peer: PeerId
    keep: bool


class CloseLink(Effect, frozen=True):
    """Cut the connection to a peer now."""

    peer: PeerId


class StartRun(Effect, frozen=True):
    """Fetch what the task reads, run it, store its output."""

    run: int
    job: bytes
    task: Task
    attempt: int
    stage: StageSpec
    input: Link
    """The job's input object."""
    shards: int
    split: Output | None
    """Output of the split, if the task is a shard of one."""
    parts: tuple[Part, ...]
    """What a merge reads."""
    sources: tuple[PeerId, ...]
    alias: str = ""
    """What the job's submitter calls it."""
    submitter: PeerId = PeerId("")


class StopRun(Effect, frozen=True):
    """End a run early; it still comes back as one event."""

    run: int


class FetchBlobs(Effect, frozen=True):
    """Have these blobs on disk, from any of ``sources``, and keep them until ``until_ms`` (wall clock)."""

    fetch: int
    blobs: tuple[Link, ...]
    sources: tuple[PeerId, ...]
    until_ms: int
    deep: bool = False
    """Also what JSON blobs among them link to."""
    contents: tuple[bytes, ...] = ()
    """Of some of them, as somebody has sent them: what is the content of a wanted blob need not be fetched."""


class Record(Effect, frozen=True):
    """Keep ``value`` under ``(table, key)``, durably, before any effect after this one is carried out.

    ``None`` removes it. What is kept is handed to ``Peer.restore`` when the node starts again.
    """

    table: str
    key: bytes
    value: bytes | None


class Proposal(msgspec.Struct, frozen=True):
    """Who could hold a job, from this peer's point of view."""

    mesh: str
    steward: PeerId
    holders: tuple[Holder, ...]
    wall_ms: int
    notes: tuple[str, ...]


class Reply(Effect, frozen=True):
    """Answer to a client's request."""

    request: int
    answer: Message | Proposal


class Notice(Effect, frozen=True):
    """Something an operator may want to know; never needed for correctness."""

    level: Literal["debug", "info", "warning"]
    text: str
    peer: PeerId | None = None
    job: bytes | None = None
