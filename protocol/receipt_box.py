"""A worker's receipts: delivered until acknowledged, kept until their job is closed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from protocol.context import Context
from protocol.durable import ReceiptRow, Table
from protocol.identity import PeerId
from protocol.limits import RECEIPTS_PER_MESSAGE_MAX
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
    """One receipt, and the steward who gets it."""

    __slots__ = ("award", "receipt", "steward", "work")

    def __init__(self, receipt: Opened[Receipt], award: Opened[Award], steward: PeerId, work: Work) -> None:
        self.receipt = receipt
        self.award = award
        self.steward = steward
        self.work = work


class ReceiptBox:
    """Bounded: the oldest receipt goes first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._unacked: dict[bytes, None] = {}
        self._successes: dict[Work, bytes] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, receipt: Opened[Receipt], award: Opened[Award]) -> None:
        """A receipt that has just been signed, for its award's steward."""
        self._take(receipt, award, award.record.steward)
        self._record(receipt.digest)
        while len(self._kept) > self._context.limits.receipts_kept_max:
            self._forget(next(iter(self._kept)))

    def restore(self, row: ReceiptRow) -> None:
        """A receipt of before a restart: delivered again, for who knows whether it arrived."""
        award = self._context.open(row.award, Award)
        self._take(self._context.open(row.receipt, Receipt), award, row.steward)

    def _take(self, receipt: Opened[Receipt], award: Opened[Award], steward: PeerId) -> None:
        work = work_of(award.record, receipt.record.task)
        self._kept[receipt.digest] = Kept(receipt, award, steward, work)
        self._unacked[receipt.digest] = None
        if receipt.record.success:
            self._successes[work] = receipt.digest

    def _record(self, digest: bytes) -> None:
        kept = self._kept[digest]
        row = ReceiptRow(receipt=kept.receipt.signed, award=kept.award.signed, steward=kept.steward)
        self._context.record(Table.RECEIPT, digest, row)

    def resend_done(self, award: Award, task: Task) -> bool:
        """Deliver an earlier success over the same inputs, now to this award's steward; False if there is none."""
        digest = self._successes.get(work_of(award, task))
        if digest is None:
            return False
        if self._kept[digest].steward != award.steward:
            self._kept[digest].steward = award.steward
            self._record(digest)
        self._unacked[digest] = None
        return True

    def unacked(self) -> Iterator[tuple[PeerId, Receipts]]:
        """What is still to be acknowledged: messages by steward and job."""
        batches: dict[tuple[PeerId, bytes], list[Signed]] = {}
        for digest in self._unacked:
            kept = self._kept[digest]
            batches.setdefault((kept.steward, kept.receipt.record.job), []).append(kept.receipt.signed)
        for (steward, job), receipts in batches.items():
            for start in range(0, len(receipts), RECEIPTS_PER_MESSAGE_MAX):
                batch = tuple(receipts[start : start + RECEIPTS_PER_MESSAGE_MAX])
                yield steward, Receipts(job=job, receipts=batch)

    def acknowledge(self, digest: bytes, by: PeerId) -> None:
        kept = self._kept.get(digest)
        if kept is not None and kept.steward == by:
            self._unacked.pop(digest, None)

    def close(self, job: bytes, by: PeerId) -> bool:
        """Forget the receipts of a job that its steward has ended; whether there were any."""
        digests = [
            digest for digest, kept in self._kept.items() if kept.receipt.record.job == job and kept.steward == by
        ]
        for digest in digests:
            self._forget(digest)
        return bool(digests)

    def _forget(self, digest: bytes) -> None:
        kept = self._kept.pop(digest)
        self._context.record(Table.RECEIPT, digest, None)
        self._unacked.pop(digest, None)
        if self._successes.get(kept.work) == digest:
            del self._successes[kept.work]
