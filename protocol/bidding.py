"""Answering announcements: a bid if this node can and may do the work, else one reason why not."""

from __future__ import annotations

from typing import Protocol

from protocol import auction
from protocol.clock_check import ClockCheck
from protocol.context import Context
from protocol.fitness import lacks
from protocol.membership import Membership
from protocol.messages import Bid, Refusal
from protocol.rate import TokenBucket
from protocol.records import Announcement
from protocol.signing import Opened
from protocol.wire import Cid, Name


class Workload(Protocol):
    """What bidding asks of the role that does the work."""

    def too_busy(self) -> str | None: ...
    def start_in_ms(self, priority: int) -> int: ...
    def usual_run_ms(self, model: Name) -> int: ...
    def has_run(self, model: Name) -> bool: ...
    def has_blobs(self, cids: tuple[Cid, ...]) -> bool: ...


class Bidding:
    """Knows what this node is and what it is doing; decides whether to take part."""

    def __init__(self, context: Context, membership: Membership, workload: Workload, clocks: ClockCheck) -> None:
        self._context = context
        self._membership = membership
        self._workload = workload
        self._clocks = clocks
        self._refusals = TokenBucket(context.limits.refusals_per_s_max, context.now)

    def on_announcement(self, announcement: Opened[Announcement]) -> None:
        record, digest = announcement.record, announcement.digest
        reason = self._refuses(record)
        if reason is None:
            bid = self._bid(announcement)
            near = record.needs.placement.near_input and bid.has_inputs
            if near or auction.is_drawn(digest, self._context.me, "bid", record.bid_threshold):
                self._context.send(record.steward, bid)
        elif auction.is_drawn(digest, self._context.me, "refusal", record.refusal_threshold) and self._refusals.take(
            self._context.now
        ):
            refusal = Refusal(announcement=digest, job=record.job, stage=record.stage, reason=reason)
            self._context.send(record.steward, refusal)

    def _refuses(self, record: Announcement) -> str | None:
        profile = self._context.profile
        return (
            profile.policy.refuses(record.submitter, record.needs)
            or lacks(profile, record.needs, self._context.me)
            or self._clocks.wrong()
            or self._context.storage_low
            or self._workload.too_busy()
        )

    def _bid(self, announcement: Opened[Announcement]) -> Bid:
        record = announcement.record
        return Bid(
            announcement=announcement.digest,
            job=record.job,
            stage=record.stage,
            slots=self._context.profile.slots,
            start_in_ms=self._workload.start_in_ms(record.priority),
            task_ms=self._workload.usual_run_ms(record.model),
            warm=self._workload.has_run(record.model),
            has_inputs=self._workload.has_blobs(record.inputs),
            price=self._context.profile.price,
            capability=self._membership.own.signed,
        )
