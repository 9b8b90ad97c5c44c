"""Keeping a job's model and inputs for its steward: a signed promise, given once they are on this disk.

A holder of the record also keeps copies of outputs that only the steward has.
"""

from __future__ import annotations

from protocol.clock_check import ClockCheck
from protocol.context import Context, clipped
from protocol.effects import FetchBlobs
from protocol.facts import Copied
from protocol.identity import PeerId
from protocol.membership import Membership
from protocol.messages import CopyAnswer, CopyRequest, HoldAnswer, HoldRequest
from protocol.record_keeper import RecordKeeper
from protocol.records import Held, JobSpec
from protocol.signing import Opened, Signed
from protocol.wire import Link


def promise_to_keep(context: Context, spec: Opened[JobSpec]) -> Signed:
    """This peer's word that it has a job's files, and keeps them as long as the job may last."""
    held = Held(
        job=spec.digest,
        peer=context.me,
        store=context.profile.store,
        until=spec.record.not_after,
        issued_at=context.wall,
    )
    return context.sign(held).signed


class Holding:
    """Answers ``HoldRequest`` and ``CopyRequest``."""

    def __init__(self, context: Context, membership: Membership, clocks: ClockCheck, keeper: RecordKeeper) -> None:
        self._context = context
        self._membership = membership
        self._clocks = clocks
        self._keeper = keeper
        self._fetching: dict[int, tuple[PeerId, Opened[JobSpec]]] = {}
        self._copying: dict[int, tuple[PeerId, CopyRequest]] = {}

    @property
    def fetching_count(self) -> int:
        return len(self._fetching) + len(self._copying)

    def on_hold_request(self, sender: PeerId, message: HoldRequest) -> None:
        spec = self._context.open(message.spec, JobSpec)
        self._membership.learn_all(message.records, sender)
        reason = self._refuses(sender, spec)
        if reason is not None:
            self._context.send(sender, HoldAnswer(job=spec.digest, reason=clipped(reason)))
            return
        if any(asker == sender and one.digest == spec.digest for asker, one in self._fetching.values()):
            return  # asked again meanwhile
        number = self._context.new_id()
        self._fetching[number] = (sender, spec)
        sources = tuple(dict.fromkeys([sender, *message.sources]))
        self._context.emit(FetchBlobs(number, spec.record.blobs, sources, spec.record.not_after))

    def _refuses(self, sender: PeerId, spec: Opened[JobSpec]) -> str | None:
        limits, record, kept = self._context.limits, spec.record, self._keeper.find(spec.digest)
        first_holders = [holder.peer for holder in record.holders]
        if sender not in first_holders and (kept is None or not kept.chain.has_held(sender)):
            return "only a holder of a job asks for copies"
        if record.mesh != self._context.profile.mesh:
            return "a job of another mesh"
        if not self._context.wall - limits.clock_skew_ms < record.not_after <= self._latest_end():
            return "out of its time by this node's clock"
        if sum(link.size for link in record.blobs) > limits.copy_bytes_max:
            return "too large to keep a copy of"
        if len(self._fetching) >= limits.holds_max:
            return "busy copying for other jobs"
        return self._clocks.wrong() or self._context.profile.policy.refuses_job(record) or self._context.storage_low

    def _latest_end(self) -> int:
        limits = self._context.limits
        return self._context.wall + limits.clock_skew_ms + 2 * limits.retention_ms

    def on_fetched(self, fetch: int, failure: str | None) -> bool:
        """A fetch ended; False if it was not this role's."""
        if fetch in self._copying:
            asker, request = self._copying.pop(fetch)
            record = self._keeper.find(request.job)
            copied = Copied(receipt=request.receipt, peer=self._context.me)
            if record is not None and failure is None and record.learn(copied):
                self._keeper.on_merged(record, self._context.me, [copied])  # it may have taken over meanwhile
            answer = CopyAnswer(job=request.job, receipt=request.receipt, kept=failure is None)
            self._context.send(asker, answer)
            return True
        waiting = self._fetching.pop(fetch, None)
        if waiting is None:
            return False
        steward, spec = waiting
        if failure is not None:
            self._context.send(steward, HoldAnswer(job=spec.digest, reason=clipped(failure)))
            return True
        held = promise_to_keep(self._context, spec)
        self._context.send(steward, HoldAnswer(job=spec.digest, held=held))
        return True

    def on_copy_request(self, sender: PeerId, message: CopyRequest) -> None:
        limits, kept = self._context.limits, self._keeper.find(message.job)
        too_large = message.output.size > limits.keep_output_bytes_max
        if kept is None or not kept.chain.has_held(sender) or too_large or len(self._copying) >= limits.copies_max:
            self._context.send(sender, CopyAnswer(job=message.job, receipt=message.receipt, kept=False))
            return
        number, link = self._context.new_id(), Link(cid=message.output.cid, size=message.output.size)
        self._copying[number] = (sender, message)
        self._context.emit(FetchBlobs(number, (link,), (sender,), kept.spec.record.not_after, deep=True))
