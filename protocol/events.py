"""What can happen to a peer: its inputs, in the past tense.

An effect that takes time comes back as exactly one event that names it: ``StartRun`` as ``RunFinished`` or
``RunFailed``, ``FetchBlobs`` as ``BlobsFetched`` or ``BlobsFailed``.
"""

from __future__ import annotations

import msgspec

from protocol.clock import WallMs
from protocol.identity import PeerId
from protocol.messages import Message
from protocol.signing import Signed
from protocol.wire import Output


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=True):
    """Base of all events."""


class Started(Event, frozen=True):
    """The driver runs: the first event of all."""


class WakeupReached(Event, frozen=True):
    """Time passed. Early, late and needless ones are harmless."""


class ClockObserved(Event, frozen=True):
    """The wall clock was read; drivers send this every second or so, and at once after a suspension."""

    wall: WallMs


class MessageReceived(Event, frozen=True):
    sender: PeerId
    message: Message


class GarbageReceived(Event, frozen=True):
    """Bytes that are no message, on a channel that ``sender`` has authenticated."""

    sender: PeerId
    reason: str


class PeerLost(Event, frozen=True):
    """The connection to a peer broke, or none could be made; what was queued for it is gone."""

    peer: PeerId
    reason: str


class RunFinished(Event, frozen=True):
    """The task's command ended well and its output is stored."""

    run: int
    output: Output
    input_hash: bytes
    shards: int
    """For a split: how many its output lists."""
    image: str
    runtime: str
    pull_ms: int
    transfer_ms: int
    run_ms: int
    started_at: WallMs
    content: bytes = b""
    """The output's bytes, if they are few (``CONTENT_BYTES_MAX``): they travel with the receipt."""


class RunFailed(Event, frozen=True):
    """The task's command failed, or could not be started."""

    run: int
    reason: str
    counts: bool
    """Whether this is the task's fault (a signed failure) or this machine's (the task is given back)."""
    input_hash: bytes
    image: str
    runtime: str
    pull_ms: int
    transfer_ms: int
    run_ms: int
    started_at: WallMs
    unread: bool = False
    """Whether what the task reads could not be had from anybody: not the fault of this machine either."""


class BlobsFetched(Event, frozen=True):
    """All blobs of a fetch are on this node's disk, verified."""

    fetch: int


class BlobsFailed(Event, frozen=True):
    fetch: int
    reason: str


class JobSubmitted(Event, frozen=True):
    """A client handed in a signed spec; ``sources`` have its blobs. Answered by ``Reply(request, SubmitReply)``."""

    request: int
    spec: Signed
    sources: tuple[PeerId, ...]


class CancelAsked(Event, frozen=True):
    """A client handed in a signed cancel. Answered by ``Reply(request, CancelReply)``."""

    request: int
    cancel: Signed
    steward: PeerId
    holders: tuple[PeerId, ...] = ()
    """Whom to ask if the steward does not answer."""


class StatusAsked(Event, frozen=True):
    """A client asks about a job that ``steward`` looks after. Answered by ``Reply(request, StatusReply)``."""

    request: int
    job: bytes
    steward: PeerId
    start: int | None = None
    holders: tuple[PeerId, ...] = ()
    """Whom to ask if the steward does not answer."""


class PointersAsked(Event, frozen=True):
    """A client looks for jobs or models. Answered by ``Reply(request, LookupReply)``.

    ``what`` is ``job`` or ``model``; ``text`` the start of a job's id, an alias, a model's name, or "" for all.
    """

    request: int
    what: str
    text: str
    submitter: PeerId | None = None


class PointerPublished(Event, frozen=True):
    """A client hands in a signed model pointer. Answered by ``Reply(request, PointerStored | JoinRefused)``."""

    request: int
    pointer: Signed


class ProposalAsked(Event, frozen=True):
    """A client wants to know who could hold a job. Answered by ``Reply(request, Proposal)``."""

    request: int
    durability: int


class StorageLow(Event, frozen=True):
    """So little room is left that this node takes no new work: ``reason`` says so; None says there is room again."""

    reason: str | None


class LeaveAsked(Event, frozen=True):
    """The operator ends this node: tell the neighbours, give back the leases."""
