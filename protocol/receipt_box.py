"""A worker's receipts: delivered until acknowledged, kept until their job has ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from protocol.context import Context
from protocol.durable import ReceiptRow, Table
from protocol.identity import PeerId
from protocol.limits import CONTENT_BYTES_MAX, FACTS_BYTES_MAX, RECEIPTS_PER_MESSAGE_MAX
from protocol.messages import Receipts
from protocol.records import Award, Receipt
from protocol.signing import Opened, Signed
from protocol.wire import Task

Work = tuple[bytes, Task, bytes]
"""One task of one job over particular inputs."""


def work_of(award: Award, task: Task) -> Work:
    """What tells tries of a task over the same inputs from tries over others."""
    split = award.split.sha256 if award.split is not None else b""
    parts = (part.output.sha256 if part.output is not None else b"-" for part in award.parts)
    return award.job, task, b"/".join((split, *parts))


class Kept:
    """One receipt, and the award that it is for.

    ``content``: a small output's bytes, until the receipt is acknowledged; a node that restarts has them on disk only.
    """

    __slots__ = ("award", "content", "receipt", "work")

    def __init__(self, receipt: Opened[Receipt], award: Opened[Award], work: Work, content: bytes) -> None:
        self.receipt = receipt
        self.award = award
        self.work = work
        self.content = content


class ReceiptBox:
    """Bounded: the oldest receipt goes first. ``steward_of`` says to whom those of a job are delivered."""

    def __init__(self, context: Context, steward_of: Callable[[bytes], PeerId | None]) -> None:
        self._context = context
        self._steward_of = steward_of
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._unacked: dict[bytes, None] = {}
        self._successes: dict[Work, bytes] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def unacked_count(self) -> int:
        """Receipts that are delivered until somebody says to have them."""
        return len(self._unacked)

    def has_any(self, job: bytes) -> bool:
        return any(kept.receipt.record.job == job for kept in self._kept.values())

    def add(self, receipt: Opened[Receipt], award: Opened[Award], content: bytes = b"") -> None:
        """A receipt that has just been signed, and its output's bytes if they are few."""
        self._take(receipt, award, content)
        row = ReceiptRow(receipt=receipt.signed, award=award.signed)
        self._context.record(Table.RECEIPT, receipt.digest, row)
        while len(self._kept) > self._context.limits.receipts_kept_max:
            self._forget(next(iter(self._kept)))

    def restore(self, row: ReceiptRow) -> None:
        """A receipt of before a restart: delivered again, for who knows whether it arrived."""
        award = self._context.open(row.award, Award)
        self._take(self._context.open(row.receipt, Receipt), award)

    def _take(self, receipt: Opened[Receipt], award: Opened[Award], content: bytes = b"") -> None:
        work = work_of(award.record, receipt.record.task)
        self._kept[receipt.digest] = Kept(receipt, award, work, content[:CONTENT_BYTES_MAX])
        self._unacked[receipt.digest] = None
        if receipt.record.success:
            self._successes[work] = receipt.digest

    def resend_done(self, award: Award, task: Task) -> bool:
        """Deliver an earlier success over the same inputs once more; False if there is none."""
        digest = self._successes.get(work_of(award, task))
        if digest is None:
            return False
        self._unacked[digest] = None
        return True

    def resend_all(self, job: bytes) -> None:
        """The job has another steward, who may know none of them."""
        self._unacked.update((digest, None) for digest, kept in self._kept.items() if kept.receipt.record.job == job)

    def unacked(self) -> Iterator[tuple[PeerId, Receipts]]:
        """What is still to be acknowledged: messages by job, each small enough for a frame."""
        batches: dict[bytes, list[Kept]] = {}
        for digest in self._unacked:
            kept = self._kept[digest]
            batches.setdefault(kept.receipt.record.job, []).append(kept)
        for job, batch in batches.items():
            steward = self._steward_of(job)
            if steward is not None:
                yield from ((steward, message) for message in _messages(job, steward, batch))

    def acknowledge(self, digest: bytes, by: PeerId) -> bytes | None:
        """A steward has a receipt; the job that it is of, None if that says nothing."""
        kept = self._kept.get(digest)
        if kept is None or self._steward_of(kept.receipt.record.job) != by:
            return None
        self._unacked.pop(digest, None)
        kept.content = b""
        return kept.receipt.record.job

    def close(self, job: bytes) -> None:
        """Forget the receipts of a job that has ended."""
        for digest in [digest for digest, kept in self._kept.items() if kept.receipt.record.job == job]:
            self._forget(digest)

    def _forget(self, digest: bytes) -> None:
        kept = self._kept.pop(digest)
        self._context.record(Table.RECEIPT, digest, None)
        self._unacked.pop(digest, None)
        if self._successes.get(kept.work) == digest:
            del self._successes[kept.work]


def _messages(job: bytes, steward: PeerId, batch: list[Kept]) -> Iterator[Receipts]:
    """As few as hold all of them, with the awards that the steward did not give itself, and with small outputs."""
    receipts: list[Signed] = []
    awards: dict[bytes, Signed] = {}
    contents: list[bytes] = []
    size = 0

    def message() -> Receipts:
        return Receipts(
            job=job, receipts=tuple(receipts), awards=tuple(awards.values()), contents=tuple(dict.fromkeys(contents))
        )

    for kept in batch:
        foreign = kept.award.record.steward != steward
        weight = len(kept.receipt.signed.payload) + len(kept.content)
        if foreign and kept.award.digest not in awards:
            weight += len(kept.award.signed.payload)
        if receipts and (size + weight > FACTS_BYTES_MAX or len(receipts) >= RECEIPTS_PER_MESSAGE_MAX):
            yield message()
            receipts, awards, contents, size = [], {}, [], 0
        receipts.append(kept.receipt.signed)
        if foreign:
            awards[kept.award.digest] = kept.award.signed
        if kept.content:
            contents.append(kept.content)
        size += weight
    if receipts:
        yield message()
