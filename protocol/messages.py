"""The whole vocabulary of direct messages between two peers, in one read. ``docs/specs/messages.md``.

A message is authenticated by the channel it arrives on; what must be believed later or elsewhere travels inside it as
a signed record. Times are relative (``ttl_ms``, ``in_ms``) except where wall clocks are compared on purpose.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol import codec, limits
from protocol.decrees import Chain, Decree, FinalBody
from protocol.facts import AnyFact
from protocol.signing import Signed
from protocol.wire import (
    U63,
    Ballot,
    Content,
    Count,
    Digest,
    FactKey,
    Name,
    Nonce,
    Output,
    Peer,
    Range,
    Size,
    Task,
    Text,
    Wire,
)

Hops = Annotated[int, Meta(ge=0, le=64)]
Records = Annotated[tuple[Signed, ...], Meta(max_length=limits.RECORDS_PER_MESSAGE_MAX)]
Facts = Annotated[tuple[AnyFact, ...], Meta(max_length=limits.FACTS_PER_MESSAGE_MAX)]
FactKeys = Annotated[tuple[FactKey, ...], Meta(max_length=limits.FACTS_MAX)]
Mark = Annotated[bytes, Meta(min_length=limits.FACT_KEY_BYTES, max_length=limits.FACT_KEY_BYTES)]
"""Of all facts that a holder knows, in whatever order it learnt them."""
Sketch = Annotated[tuple[U63, ...], Meta(max_length=limits.SKETCH_VALUES_MAX)]


class Message(Wire, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all direct messages."""


# -- membership (HyParView, SWIM): membership.py --------------------------------------------------------------


class Join(Message, frozen=True, kw_only=True, tag="join"):
    """A newcomer asks its contact for neighbours."""

    capability: Signed
    wall_ms: Size


class JoinRefused(Message, frozen=True, kw_only=True, tag="join-refused"):
    """Another mesh, a key that is not admitted, a record that is not believed."""

    reason: Text
    wall_ms: Size


class ForwardJoin(Message, frozen=True, kw_only=True, tag="forward-join"):
    """The newcomer's record on a random walk through the mesh."""

    capability: Signed
    hops: Hops


class Neighbour(Message, frozen=True, kw_only=True, tag="neighbour"):
    """Let us be neighbours; urgent if the asker has none left."""

    capability: Signed
    urgent: bool
    wall_ms: Size


class NeighbourReply(Message, frozen=True, kw_only=True, tag="neighbour-reply"):
    accepted: bool
    capability: Signed
    wall_ms: Size


class Disconnect(Message, frozen=True, kw_only=True, tag="disconnect"):
    """No longer neighbours; ``leaving`` if the sender goes away for good."""

    leaving: bool = False


class Shuffle(Message, frozen=True, kw_only=True, tag="shuffle"):
    """Records to exchange with a random peer, reached by a random walk."""

    origin: Signed
    records: Records
    epoch: Count
    sketch: Sketch
    hops: Hops


class ShuffleReply(Message, frozen=True, kw_only=True, tag="shuffle-reply"):
    records: Records
    epoch: Count
    sketch: Sketch


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    number: Count
    capability: Signed | None = None
    """Sent along until this peer has acknowledged a ping with it."""
    neighbour: bool = False
    """The sender takes this peer for its neighbour: so should this peer."""
    wall_ms: Size


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    number: Count
    capability: Signed | None = None
    """In return for that of the peer that asks."""
    wall_ms: Size


class ProbeRequest(Message, frozen=True, kw_only=True, tag="probe-request"):
    """Please ping ``target`` for me: I do not hear it. Its record comes along, for the address."""

    number: Count
    target: Signed


class ProbeResult(Message, frozen=True, kw_only=True, tag="probe-result"):
    number: Count
    alive: bool


class SeeMe(Message, frozen=True, kw_only=True, tag="see-me"):
    """Please have another peer try to reach me, and tell me whether it could."""

    number: U63


class Seen(Message, frozen=True, kw_only=True, tag="seen"):
    number: U63
    seen: bool


# -- the record of a job, at its holders: record_keeper.py, leadership.py ----------------------------------------


class Create(Message, frozen=True, kw_only=True, tag="create"):
    """Keep the record of this job: you are a holder, by its spec or by its chain, or are asked to become one."""

    spec: Signed
    chain: Chain = ()


class Created(Message, frozen=True, kw_only=True, tag="created"):
    """Kept, on the disk with this store id; or not, for a reason."""

    job: Digest
    store: Nonce
    reason: Text = ""


class Prepare(Message, frozen=True, kw_only=True, tag="prepare"):
    """Take part in no lower ballot than mine, and tell me what I do not know."""

    job: Digest
    ballot: Ballot
    known: FactKeys = ()


class Promise(Message, frozen=True, kw_only=True, tag="promise"):
    job: Digest
    ballot: Ballot
    store: Nonce
    voted_in: Ballot | None = None
    voted_for: Decree | None = None
    body: FinalBody | None = None
    """What it has voted for, if that is an end."""
    facts: Facts = ()
    """Those that the asker does not know, as many as fit."""
    more: bool = False
    """Whether there are others: ask again."""
    lacks: FactKeys = ()
    """Those of the asker's that this holder does not know."""
    wall_ms: Size


class Nack(Message, frozen=True, kw_only=True, tag="nack"):
    """A higher ballot has this holder's promise."""

    job: Digest
    ballot: Ballot


class UnknownJob(Message, frozen=True, kw_only=True, tag="unknown-job"):
    """This peer has no record of the job."""

    job: Digest


class Accept(Message, frozen=True, kw_only=True, tag="accept"):
    """Vote for this decree in this ballot."""

    job: Digest
    ballot: Ballot
    decree: Decree
    body: FinalBody | None = None


class AcceptedVote(Message, frozen=True, kw_only=True, tag="accepted-vote"):
    vote: Signed


class Decided(Message, frozen=True, kw_only=True, tag="decided"):
    """What the holders have decided so far; with the body if that is the job's end."""

    job: Digest
    chain: Chain
    body: FinalBody | None = None


class Renewal(Wire, frozen=True, kw_only=True):
    """One job's steward is at work; what is new of it."""

    job: Digest
    ballot: Ballot
    progress: Count
    """Grows whenever the job comes further."""
    idle: bool = False
    """Whether tasks are ready and nobody has them."""
    facts: Facts = ()


class Renew(Message, frozen=True, kw_only=True, tag="renew"):
    renewals: Annotated[tuple[Renewal, ...], Meta(max_length=limits.RENEWALS_MAX)]


class RenewedJob(Wire, frozen=True, kw_only=True):
    job: Digest
    ballot: Ballot
    """The highest that this holder has promised."""
    got: FactKeys = ()
    mark: Mark


class Renewed(Message, frozen=True, kw_only=True, tag="renewed"):
    jobs: Annotated[tuple[RenewedJob, ...], Meta(max_length=limits.RENEWALS_MAX)]
    store: Nonce
    wall_ms: Size


class WhoLeads(Message, frozen=True, kw_only=True, tag="who-leads"):
    """Who is steward of this job? Answered by ``leads``, ``decided`` or ``unknown-job``."""

    job: Digest


class Leads(Message, frozen=True, kw_only=True, tag="leads"):
    """The steward that this holder knows of, if any; asked for, or sent to workers by a new steward."""

    job: Digest
    ballot: Ballot | None = None
    chain: Chain = ()
    awards: Annotated[tuple[Digest, ...], Meta(max_length=limits.AWARDS_ASKED_MAX)] = ()
    """Are these still being worked on? Answered by ``progress`` or ``returned``."""


class CopyRequest(Message, frozen=True, kw_only=True, tag="copy-request"):
    """Keep a copy of an output of a job whose record you keep; I have it."""

    job: Digest
    receipt: Digest
    output: Output


class CopyAnswer(Message, frozen=True, kw_only=True, tag="copy-answer"):
    job: Digest
    receipt: Digest
    kept: bool


# -- finding workers: dissemination.py, bidding.py, auction.py ---------------------------------------------------


class Announce(Message, frozen=True, kw_only=True, tag="announce"):
    """An announcement and its steward's record; passed on while ``hops`` are left."""

    announcement: Signed
    steward: Signed
    hops: Hops


class Bid(Message, frozen=True, kw_only=True, tag="bid"):
    """What the bidder expects; it reserves nothing."""

    announcement: Digest
    job: Digest
    stage: Count
    slots: Annotated[int, Meta(ge=1, le=1024)]
    """Tasks it would run at once."""
    start_in_ms: Size
    task_ms: Size
    """Its guess of one task's duration; 0 if it has none."""
    warm: bool = False
    """Whether it has run this model before: model and image are on its disk."""
    has_inputs: bool = False
    price: Size = 0
    """In millionths of the mesh's unit for one CPU and second."""
    capability: Signed


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """One reason why this peer does not bid."""

    announcement: Digest
    job: Digest
    stage: Count
    reason: Text


# -- work: steward.py, worker.py ------------------------------------------------------------------------------------


class Offer(Message, frozen=True, kw_only=True, tag="offer"):
    """An award, with the spec it belongs to, who may award, and who holds the bytes."""

    award: Signed
    spec: Signed
    chain: Chain = ()
    sources: Annotated[tuple[Peer, ...], Meta(max_length=16)]
    """Peers to fetch inputs from."""
    records: Records = ()
    """Their capability records, for the addresses."""


class OfferAccepted(Message, frozen=True, kw_only=True, tag="offer-accepted"):
    award: Digest


class OfferDeclined(Message, frozen=True, kw_only=True, tag="offer-declined"):
    award: Digest
    reason: Text


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """A worker still works on an award."""

    award: Digest
    running: Annotated[tuple[Count, ...], Meta(max_length=1024)]
    """Shard indexes that run now."""
    left: Count
    """Tasks of the award that are not finished."""
    signed: Signed | None = None
    """The award itself, for a steward that may not know it."""


class Receipts(Message, frozen=True, kw_only=True, tag="receipts"):
    """Finished tries of one job; repeated until acknowledged."""

    job: Digest
    receipts: Annotated[tuple[Signed, ...], Meta(max_length=limits.RECEIPTS_PER_MESSAGE_MAX)]
    awards: Annotated[tuple[Signed, ...], Meta(max_length=limits.RECEIPTS_PER_MESSAGE_MAX)] = ()
    """Their awards, for a steward that may not know them."""
    contents: Annotated[tuple[Content, ...], Meta(max_length=limits.RECEIPTS_PER_MESSAGE_MAX)] = ()
    """Small outputs among theirs, each told by its SHA-256: the steward need not fetch those."""


class ReceiptsAck(Message, frozen=True, kw_only=True, tag="receipts-ack"):
    receipts: Annotated[tuple[Digest, ...], Meta(max_length=limits.RECEIPTS_PER_MESSAGE_MAX)]


class Returned(Message, frozen=True, kw_only=True, tag="returned"):
    """A worker gives up what is left of an award: it does not know it, or cannot go on."""

    award: Digest
    reason: Text
    unread: bool = False
    """Whether what its tasks read could not be had from anybody."""


class Revoke(Message, frozen=True, kw_only=True, tag="revoke"):
    """The steward no longer wants what is left of an award, or some of it."""

    award: Digest
    reason: Text
    ranges: Annotated[tuple[Range, ...], Meta(max_length=limits.RANGES_PER_AWARD_MAX)] = ()
    """Of these tasks, if any are named; the others go on."""


class HoldRequest(Message, frozen=True, kw_only=True, tag="hold-request"):
    """Keep this job's blobs; fetch them from ``sources``."""

    spec: Signed
    sources: Annotated[tuple[Peer, ...], Meta(max_length=16)]
    records: Records = ()


class HoldAnswer(Message, frozen=True, kw_only=True, tag="hold-answer"):
    job: Digest
    held: Signed | None = None
    reason: Text = ""


# -- finding jobs and models: pointers.py, lookup.py -----------------------------------------------------------------


Key = Annotated[bytes, Meta(max_length=8)]
"""Under which a pointer is kept."""


class StorePointer(Message, frozen=True, kw_only=True, tag="store-pointer"):
    """Keep this pointer; passed on towards those responsible for these of its keys while ``hops`` are left."""

    pointer: Signed
    keys: Annotated[tuple[Key, ...], Meta(max_length=2)] = ()
    hops: Hops = 0


class PointerStored(Message, frozen=True, kw_only=True, tag="pointer-stored"):
    pointer: Digest


class Lookup(Message, frozen=True, kw_only=True, tag="lookup"):
    """Which pointers match? Answered to ``origin``; passed on while ``hops`` are left.

    With a ``key`` it goes to ever nearer peers, without one to all neighbours.
    """

    number: U63
    origin: Signed
    what: Annotated[str, Meta(pattern="^(job|model)$")]
    text: Name
    """Start of a job's id, an alias, a model's name; "" for all."""
    key: Key = b""
    hops: Hops = 0


class LookupReply(Message, frozen=True, kw_only=True, tag="lookup-reply"):
    number: U63
    pointers: Records


# -- submitting and asking, from any peer: intake.py, queries.py -------------------------------------------------------


class Submit(Message, frozen=True, kw_only=True, tag="submit"):
    """A signed spec for the steward it names."""

    number: U63
    spec: Signed
    sources: Annotated[tuple[Peer, ...], Meta(max_length=16)]
    records: Records = ()


class SubmitReply(Message, frozen=True, kw_only=True, tag="submit-reply"):
    number: U63
    accepted: bool
    reason: Text = ""
    again: bool = False
    """Not by this peer, or not now: ask the job's other holders, and again."""
    copies: Count = 0
    pointers: Count = 0
    notes: Annotated[tuple[Text, ...], Meta(max_length=8)] = ()
    """What a mesh of this size cannot promise."""


class CancelRequest(Message, frozen=True, kw_only=True, tag="cancel-request"):
    number: U63
    cancel: Signed


class CancelReply(Message, frozen=True, kw_only=True, tag="cancel-reply"):
    number: U63
    status: Name
    """``cancelled``, the status the job had ended with, ``requested`` as long as it has not, or ``unknown``."""
    elsewhere: Peer | None = None
    """Who else to ask: the job's steward."""


class StatusRequest(Message, frozen=True, kw_only=True, tag="status-request"):
    number: U63
    job: Digest
    start: Count | None = None
    """Also the details, from this task on as many as fit a frame; none for the summary alone."""


class TryView(Wire, frozen=True, kw_only=True):
    """One execution of a task under one award, as the steward sees it."""

    worker: Peer
    attempt: Count
    award: Digest
    outcome: Name
    """``offered``, ``running``, ``success``, ``failed``, ``lost``, ``declined``, ``expired``, ``revoked``."""
    reason: Text = ""
    why: Text = ""
    """What decided for its worker, where more than speed did."""


class TaskView(Wire, frozen=True, kw_only=True):
    task: Task
    status: Name
    tries: Annotated[tuple[TryView, ...], Meta(max_length=limits.TRIES_SHOWN_MAX)] = ()
    receipt: Signed | None = None


class RefusalView(Wire, frozen=True, kw_only=True):
    peer: Peer
    reason: Text


class JobView(Wire, frozen=True, kw_only=True):
    """A job as its steward sees it. Counts are of shards, not of split and merge tasks."""

    job: Digest
    alias: Name
    submitter: Peer
    steward: Peer
    model: Name
    status: Name
    merge_status: Name
    total_shards: Count
    succeeded: Count
    failed: Count
    running: Count
    output: Output | None = None
    error: Text = ""
    issued_at: Size
    completed_at: Size = 0
    waiting: Text = ""
    """Why nothing runs, in one sentence; "" if something does."""
    refusals: Annotated[tuple[RefusalView, ...], Meta(max_length=limits.RECORDS_PER_MESSAGE_MAX)] = ()
    provisional: Name = ""
    """How the job would end, as long as no majority of its holders answers; "" if it is known, or still runs."""
    provisional_output: Output | None = None
    keepers: Annotated[tuple[Peer, ...], Meta(max_length=8)] = ()
    """Who has the output."""
    records: Records = ()
    """The keepers' capability records, for the addresses."""


class StatusReply(Message, frozen=True, kw_only=True, tag="status-reply"):
    number: U63
    view: JobView | None = None
    """None if this peer does not know the job."""
    spec: Signed | None = None
    tasks: Annotated[tuple[TaskView, ...], Meta(max_length=limits.RECEIPTS_PER_MESSAGE_MAX)] = ()
    awards: Annotated[tuple[Signed, ...], Meta(max_length=limits.RECEIPTS_PER_MESSAGE_MAX)] = ()
    """The awards that the shown receipts name."""
    next: Count = 0
    """Where the tasks after these start; 0 if there are none."""
    chain: Chain = ()
    """What the job's holders have decided."""
    body: FinalBody | None = None
    elsewhere: Peer | None = None
    """Who else to ask: the job's steward."""


def _kinds(base: type[Message]) -> dict[str, type[Message]]:
    return {str(kind.__struct_config__.tag): kind for kind in base.__subclasses__()}


MESSAGE_KINDS = _kinds(Message)


def encode_message(message: Message) -> bytes:
    """One frame's bytes."""
    return codec.encode(message)


def decode_message(frame: bytes) -> Message:
    """The message in a frame; RemoteProtocolError if there is none, UnknownKind if it is of a later version."""
    return codec.decode(frame, MESSAGE_KINDS, max_bytes=limits.FRAME_BYTES_MAX)
