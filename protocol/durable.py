"""What a peer keeps over restarts, as rows of a journal: written as ``Record`` effects, read by ``Peer.restore``.

Times in rows are wall-clock ones, because an instant of the monotonic clock means nothing after a reboot.
"""

from __future__ import annotations

from enum import StrEnum

from protocol import limits
from protocol.decrees import Chain, Decree, FinalBody
from protocol.signing import Signed
from protocol.wire import Ballot, Digest, Size, Wire


class Table(StrEnum):
    """The tables, and their keys."""

    INCARNATION = "incarnation"
    """One row, without a key: the incarnation in use, 8 bytes, big endian."""
    JOB = "job"
    """By job: ``JobRow``, at each of its holders."""
    REGISTER = "register"
    """By job: ``RegisterRow``."""
    FACT = "fact"
    """By job and number (4 bytes, big endian), in the order in which it was learnt: one of ``FACT_KINDS``."""
    TOMBSTONE = "tombstone"
    """By job: ``Tombstone``, where the record of an ended job was forgotten before its time."""
    RECEIPT = "receipt"
    """By receipt: ``ReceiptRow``, at the worker that signed it."""
    LEASE = "lease"
    """By award: the award, ``Signed``, at the worker that accepted it."""
    WORK = "work"
    """By job: ``WorkRow``, at a worker that has leases or receipts of it."""
    POINTER = "pointer"
    """By name: ``Signed``, kept for others."""
    PLACEMENT = "placement"
    """By pointer: ``Signed``, placed by this peer."""


class JobRow(Wire, frozen=True, kw_only=True):
    """A job whose record this peer holds."""

    spec: Signed


class RegisterRow(Wire, frozen=True, kw_only=True):
    """What a holder has promised and voted in the current configuration, and what was decided before."""

    promised: Ballot
    voted_in: Ballot | None = None
    voted_for: Decree | None = None
    chain: Chain = ()
    body: FinalBody | None = None


class Tombstone(Wire, frozen=True, kw_only=True):
    """Nobody becomes a holder of this job again while its spec is good."""

    not_after: Size


class ReceiptRow(Wire, frozen=True, kw_only=True):
    receipt: Signed
    award: Signed


class WorkRow(Wire, frozen=True, kw_only=True):
    """What a worker needs to know whom to deliver to, and whom to believe that a job has ended."""

    spec: Signed
    chain: Chain = ()


ROW_BYTES_MAX = 4 * limits.RECORD_BYTES_MAX


def fact_key(job: Digest, number: int) -> bytes:
    return job + number.to_bytes(4, "big")
