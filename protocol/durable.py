"""What a peer keeps over restarts, as rows of a journal: written as ``Record`` effects, read by ``Peer.restore``.

A job is its spec and the steps its steward took since, in order: replaying them makes the same state again. Times in
rows are wall-clock ones, because an instant of the monotonic clock means nothing after a reboot.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from protocol import limits
from protocol.messages import SubmitReply
from protocol.signing import Signed
from protocol.wire import Count, Digest, Name, Peer, Size, Task, Text, Wire


class Table(StrEnum):
    """The tables, and their keys."""

    INCARNATION = "incarnation"
    """One row, without a key: the incarnation in use, 8 bytes, big endian."""
    JOB = "job"
    """By job: ``JobRow``."""
    STEP = "step"
    """By job and number of the step (4 bytes, big endian): one of ``STEP_KINDS``."""
    RECEIPT = "receipt"
    """By receipt: ``ReceiptRow``, at the worker that signed it."""
    LEASE = "lease"
    """By award: the award, ``Signed``, at the worker that accepted it."""
    POINTER = "pointer"
    """By name: ``Signed``, kept for others."""
    PLACEMENT = "placement"
    """By pointer: ``Signed``, placed by this peer."""


class JobRow(Wire, frozen=True, kw_only=True):
    """A job that this peer is steward of."""

    spec: Signed
    holders: Annotated[tuple[Peer, ...], Meta(max_length=64)]
    accepted: SubmitReply
    status: Name = ""
    """How it ended; "" while it runs."""
    error: Text = ""
    completed_at: Size = 0


class Step(Wire, frozen=True, kw_only=True, tag_field="kind"):
    """Something a steward did about a job, or took notice of."""


class Gave(Step, frozen=True, kw_only=True, tag="gave"):
    award: Signed


class Ended(Step, frozen=True, kw_only=True, tag="ended"):
    """An award ended with tasks left over."""

    award: Digest
    outcome: Name
    reason: Text
    counts: bool


class Counted(Step, frozen=True, kw_only=True, tag="counted"):
    receipt: Signed


class Copied(Step, frozen=True, kw_only=True, tag="copied"):
    """The output of a task is on this node's disk."""

    task: Task


class OutputLost(Step, frozen=True, kw_only=True, tag="output-lost"):
    """Nobody delivers the output of a task."""

    task: Task


class KeeperGone(Step, frozen=True, kw_only=True, tag="keeper-gone"):
    peer: Peer


STEP_KINDS: dict[str, type[Step]] = {str(kind.__struct_config__.tag): kind for kind in Step.__subclasses__()}


class ReceiptRow(Wire, frozen=True, kw_only=True):
    receipt: Signed
    award: Signed
    steward: Peer
    """To whom it is delivered."""


ROW_BYTES_MAX = 4 * limits.RECORD_BYTES_MAX


def step_key(job: bytes, number: Count) -> bytes:
    return job + number.to_bytes(4, "big")
