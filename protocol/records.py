"""Signed records: what is stored, passed on, or argued about later. ``docs/specs/signed-records.md``.

Each record names its signer in a field, so that the signature says who vouches for it wherever it turns up. Times are
wall-clock milliseconds since the Unix epoch.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol import limits
from protocol.identity import PeerId
from protocol.wire import (
    U63,
    Address,
    Ballot,
    Cid,
    Count,
    Digest,
    Holder,
    Link,
    Name,
    Needs,
    Nonce,
    Output,
    Peer,
    Range,
    Role,
    Settings,
    Size,
    Task,
    Text,
    Wire,
)

Priority = Annotated[int, Meta(ge=0, le=9)]
"""9 before 0."""


class Record(Wire, tag_field="kind", frozen=True, kw_only=True):
    """Base of all signed records."""

    @property
    def signer(self) -> PeerId:
        """Whose signature makes this record count."""
        raise NotImplementedError


class Capability(Record, tag="capability", frozen=True, kw_only=True):
    """What a peer can do and where it is reached; newer by (incarnation, revision)."""

    peer: Peer
    mesh: Name
    incarnation: U63
    """Counts the starts of the node; a peer never uses one that it did not issue itself."""
    revision: U63
    store: Nonce
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)] = ()
    cpu_milli: Count
    memory_bytes: Size
    isolation: Annotated[tuple[Name, ...], Meta(max_length=4)] = ()
    """Levels this node runs tasks at: ``namespace`` or ``landlock`` (sandbox), ``container`` (Docker)."""
    labels: Annotated[dict[Name, Name], Meta(max_length=limits.LABELS_MAX)] = msgspec.field(default_factory=dict)
    price: Size = 0
    """What it wants, in millionths of the mesh's unit for one CPU and second."""
    version: Name = ""
    issued_at: Size
    not_after: Size

    @property
    def signer(self) -> PeerId:
        return self.peer


SPLITS = ("tile", "batch", "window", "lines", "range", "candidates", "container")
MERGES = ("concat-json", "concat", "stitch", "sum", "mean", "vote", "best", "none", "container")
"""The built-in splits and merges. Plug-ins have a dot in their name."""


class StageSpec(Wire, frozen=True, kw_only=True):
    """One model to run over the parts of an input. Times in milliseconds."""

    name: Name
    model: Name
    manifest: Link
    """The model: its ``model.yaml`` and files, by CID."""
    needs: Needs = Needs()
    split: Name = ""
    """Split mode; "" leaves the input whole: one shard."""
    merge: Name = ""
    """Merge strategy; "" takes the only shard's output as it is."""
    settings: Settings = b"{}"
    """``{"params": …, "split": …, "merge": …}``."""
    shard_count: Annotated[int, Meta(ge=0, le=limits.SHARDS_MAX)] = 0
    """Into how many shards at most; 0 makes one of each part."""
    max_shards: Annotated[int, Meta(ge=1, le=limits.SHARDS_MAX)] = limits.SHARDS_MAX
    timeout_ms: Size = 120_000
    attempts: Annotated[int, Meta(ge=1, le=limits.ATTEMPTS_MAX)] = 4
    """Signed failures after which a task has failed."""
    max_lost: Annotated[int, Meta(ge=1, le=limits.ATTEMPTS_MAX)] = 16
    """Lost, expired and declined tries after which a task has failed."""
    allow_failures: Count = 0


class JobSpec(Record, tag="job-spec", frozen=True, kw_only=True):
    """A job, signed by its submitter. The SHA-256 of its payload is the job's full id."""

    mesh: Name
    submitter: Peer
    alias: Name = ""
    nonce: Nonce
    issued_at: Size
    not_after: Size
    """Nobody starts anything for the job, or keeps its record, after this."""
    deadline_ms: Size
    """From ``issued_at``: when the steward may give up."""
    priority: Priority = 5
    durability: Annotated[int, Meta(ge=1, le=2)] = 1
    holders: Annotated[tuple[Holder, ...], Meta(min_length=1, max_length=limits.HOLDERS_MAX)]
    steward: Peer
    """The holder that acts first: under ballot (0, 0, steward)."""
    supersedes: Digest | None = None
    """An earlier job of the same submitter that ends for this one: a signed cancel of it."""
    input: Link
    """The job's input object, JSON, with its files as links."""
    blobs: Annotated[tuple[Link, ...], Meta(max_length=limits.BLOBS_PER_JOB_MAX)] = ()
    """Every blob the job needs, manifests and the input object included."""
    stages: Annotated[tuple[StageSpec, ...], Meta(min_length=1, max_length=limits.STAGES_MAX)]

    @property
    def signer(self) -> PeerId:
        return self.submitter


class Announcement(Record, tag="announcement", frozen=True, kw_only=True):
    """A steward looks for workers. Who answers is drawn: ``auction.draw``."""

    job: Digest
    stage: Count
    round: Count
    steward: Peer
    ballot: Ballot
    needs: Needs
    tasks: Count
    task_timeout_ms: Size
    inputs: Annotated[tuple[Cid, ...], Meta(max_length=8)] = ()
    """The largest blobs a worker will need: who has them starts sooner."""
    submitter: Peer
    model: Name
    priority: Priority = 5
    bid_threshold: U63
    refusal_threshold: U63
    issued_at: Size
    not_after: Size

    @property
    def signer(self) -> PeerId:
        return self.steward


class Part(Wire, frozen=True, kw_only=True):
    """One shard's result as a merge sees it; no output if the shard failed and the job allows that."""

    index: Count
    output: Output | None = None
    receipt: Digest | None = None


class Award(Record, tag="award", frozen=True, kw_only=True):
    """A lease: exclusive right to named tasks of one stage until a deadline."""

    job: Digest
    holders: Annotated[tuple[Holder, ...], Meta(max_length=limits.HOLDERS_MAX)]
    steward: Peer
    ballot: Ballot
    worker: Peer
    stage: Count
    role: Role
    ranges: Annotated[tuple[Range, ...], Meta(min_length=1, max_length=limits.RANGES_PER_AWARD_MAX)]
    """Shard indexes; split and merge have the one range 0..1."""
    attempt: Count
    """A label for people: which try of these tasks this is."""
    shards: Count = 0
    """How many shards the stage has; known once its split is done."""
    split: Output | None = None
    """Output of the split, where the shards' inputs are listed; none for a stage without a split."""
    split_receipt: Digest | None = None
    parts: Annotated[tuple[Part, ...], Meta(max_length=limits.TASKS_MAX)] = ()
    """For a merge: what it merges, in shard order."""
    price: Size = 0
    """What its worker bid, in millionths of the mesh's unit for one CPU and second."""
    why: Text = ""
    """What of the job's placement decided for this worker, or why the tasks are run twice; for people."""
    lease_ms: Size
    nonce: U63
    """Two awards of the same tasks to the same worker are two tries."""
    issued_at: Size
    not_after: Size

    @property
    def signer(self) -> PeerId:
        return self.steward


class Receipt(Record, tag="receipt", frozen=True, kw_only=True):
    """One finished try of one task, signed by the worker that ran it. Times in milliseconds."""

    job: Digest
    task: Task
    award: Digest
    attempt: Count
    worker: Peer
    success: bool
    output: Output | None = None
    shards: Count = 0
    """For a split: how many shards its output lists."""
    input_hash: Digest
    """SHA-256 of the task's input object in RFC 8785 form, files as links; of the array of its shards' if several."""
    upstream: Annotated[tuple[Digest, ...], Meta(max_length=limits.TASKS_MAX)] = ()
    """Receipts whose outputs this task read."""
    error: Text = ""
    image: Text = ""
    runtime: Name = ""
    queued_ms: Size = 0
    pull_ms: Size = 0
    """Pulling the image, or loading a model that stays loaded."""
    transfer_ms: Size = 0
    run_ms: Size = 0
    latency_ms: Size = 0
    """From the award's arrival, or the end of the try before it, to the signed receipt."""
    started_at: Size
    issued_at: Size

    @property
    def signer(self) -> PeerId:
        return self.worker


class Vote(Record, tag="vote", frozen=True, kw_only=True):
    """A holder accepts one decree in one ballot: a majority of these is a certificate."""

    job: Digest
    ballot: Ballot
    decree: Digest
    """SHA-256 of the decree's bytes."""
    peer: Peer
    store: Nonce

    @property
    def signer(self) -> PeerId:
        return self.peer


class Cancel(Record, tag="cancel", frozen=True, kw_only=True):
    """The submitter wants the job to end."""

    job: Digest
    submitter: Peer
    issued_at: Size

    @property
    def signer(self) -> PeerId:
        return self.submitter


class Held(Record, tag="held", frozen=True, kw_only=True):
    """A peer promises to keep a job's blobs until a time."""

    job: Digest
    peer: Peer
    store: Nonce
    until: Size
    issued_at: Size

    @property
    def signer(self) -> PeerId:
        return self.peer


class JobPointer(Record, tag="job-pointer", frozen=True, kw_only=True):
    """Where a job's record is kept."""

    job: Digest
    submitter: Peer
    alias: Name = ""
    holders: Annotated[tuple[Holder, ...], Meta(max_length=limits.HOLDERS_MAX)]
    steward: Peer
    issued_at: Size
    not_after: Size

    @property
    def signer(self) -> PeerId:
        return self.steward


class ModelPointer(Record, tag="model-pointer", frozen=True, kw_only=True):
    """A publisher names a model: the newest by ``issued_at`` counts."""

    publisher: Peer
    model: Name
    manifest: Link
    files: Annotated[tuple[Link, ...], Meta(max_length=limits.BLOBS_PER_JOB_MAX)] = ()
    keepers: Annotated[tuple[Peer, ...], Meta(max_length=8)] = ()
    """Peers that hold the files."""
    withdrawn: bool = False
    issued_at: Size
    not_after: Size

    @property
    def signer(self) -> PeerId:
        return self.publisher


AnyRecord = Capability | JobSpec | Announcement | Award | Receipt | Vote | Cancel | Held | JobPointer | ModelPointer
