"""Doing the work: leases accepted, tasks run within this machine's capacity, receipts signed and delivered.

A receipt is sent again until the steward acknowledges it, and kept until the job is closed, so that losing the
steward's copy costs nothing. Expiry of a lease ends its exclusivity, not a task that already runs.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from protocol.clock import Instant, WallMs, after_ms, elapsed_ms
from protocol.context import Context, clipped
from protocol.durable import ReceiptRow, Table, WorkRow
from protocol.effects import StartRun, StopRun
from protocol.employers import Employers
from protocol.errors import RemoteProtocolError
from protocol.events import RunFailed, RunFinished
from protocol.fitness import PRICE_UNITS, lacks
from protocol.identity import PeerId
from protocol.lease import Lease, tasks_in, well_formed
from protocol.limits import BUILT_IN_MEMORY_BYTES, TASKS_MAX
from protocol.messages import (
    Decided,
    Leads,
    Offer,
    OfferAccepted,
    OfferDeclined,
    Progress,
    ReceiptsAck,
    Returned,
    Revoke,
)
from protocol.periodic import Periodic
from protocol.receipt_box import ReceiptBox, work_of
from protocol.records import Award, JobSpec, Receipt
from protocol.signing import Opened, Signed
from protocol.wire import Output, Range, Role, Task


class Run:
    """One execution in progress."""

    __slots__ = ("lease", "memory_bytes", "queued_ms", "started", "stopped", "task")

    def __init__(self, lease: Lease, task: Task, memory_bytes: int, queued_ms: int, started: Instant) -> None:
        self.lease = lease
        self.task = task
        self.memory_bytes = memory_bytes
        self.queued_ms = queued_ms
        self.started = started
        #: Whether nobody wants it any more.
        self.stopped = False


class Worker:
    """Leases, runs, and receipts of this node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._leases: dict[bytes, Lease] = {}
        #: Awards that were accepted: each is held once.
        self._accepted: OrderedDict[bytes, None] = OrderedDict()
        #: Awards whose tasks died with an earlier start of this node: returned until their stewards have heard.
        self._returned: dict[bytes, Opened[Award]] = {}
        self._runs: dict[int, Run] = {}
        self._memory_used = 0
        self._employers = Employers(context)
        self._receipts = ReceiptBox(context, self._steward_of)
        self._reporting = Periodic(context, self._report, self._reporting_pace)
        self._delivering = Periodic(context, self._send_unacked, self._delivering_pace)
        self._closed: OrderedDict[bytes, None] = OrderedDict()
        self._run_ms: OrderedDict[str, int] = OrderedDict()
        self._blobs: OrderedDict[str, None] = OrderedDict()

    def _steward_of(self, job: bytes) -> PeerId | None:
        employer = self._employers.find(job)
        return employer.steward if employer is not None else None

    def restore_work(self, row: WorkRow) -> None:
        self._employers.restore(row)

    def restore_receipt(self, row: ReceiptRow) -> None:
        self._receipts.restore(row)

    def restore_lease(self, award: Signed) -> None:
        """A lease does not outlive a restart: what ran is gone."""
        opened = self._context.open(award, Award)
        self._returned[opened.digest] = opened

    def start(self) -> None:
        self._reporting.wake()
        self._delivering.wake()

    # -- what bidding and views ask

    @property
    def lease_count(self) -> int:
        return len(self._leases)

    @property
    def run_count(self) -> int:
        return len(self._runs)

    @property
    def employer_count(self) -> int:
        return len(self._employers)

    @property
    def receipt_count(self) -> int:
        return len(self._receipts)

    def too_busy(self) -> str | None:
        if len(self._leases) >= self._context.limits.leases_per_peer_max:
            return f"{len(self._leases)} leases held already"
        return None

    def start_in_ms(self, priority: int) -> int:
        """A guess of when a new task would start: all that waits and is not less urgent, at the usual pace."""
        ahead_of_it = [lease for lease in self._leases.values() if lease.spec.record.priority >= priority]
        waiting = sum(len(lease.waiting) for lease in ahead_of_it)
        ahead = waiting + len(self._runs)
        if ahead < self._context.profile.slots:
            return 0
        usual = max(self._run_ms.values(), default=1000)
        return min(ahead * usual // self._context.profile.slots, 1 << 40)

    def usual_run_ms(self, model: str) -> int:
        return self._run_ms.get(model, 0)

    def has_run(self, model: str) -> bool:
        return model in self._run_ms

    def has_blobs(self, cids: tuple[str, ...]) -> bool:
        return bool(cids) and all(cid in self._blobs for cid in cids)

    def note_blobs(self, cids: list[str]) -> None:
        """These are on this node's disk now, or were lately."""
        for cid in cids:
            self._blobs[cid] = None
            self._blobs.move_to_end(cid)
        while len(self._blobs) > self._context.limits.receipts_kept_max:
            self._blobs.popitem(last=False)

    # -- leases

    def on_offer(self, sender: PeerId, message: Offer) -> None:
        award = self._context.open(message.award, Award)
        spec = self._context.open(message.spec, JobSpec)
        if award.digest in self._leases:
            self._context.send(sender, OfferAccepted(award=award.digest))
            return
        if award.digest in self._accepted:
            return  # a late copy: its tasks were done, revoked or given back, and are its steward's to award anew
        reason = self._refuses(sender, award.record, spec)
        chain = self._employers.judge(spec, message.chain, award.record.steward)
        if reason is not None:
            self._context.send(sender, OfferDeclined(award=award.digest, reason=clipped(reason)))
            return
        self._context.send(sender, OfferAccepted(award=award.digest))
        self._accepted[award.digest] = None
        if len(self._accepted) > self._context.limits.receipts_kept_max:
            self._accepted.popitem(last=False)
        now = self._context.now
        self._employers.add(spec, chain, award.record.ballot)
        self._reporting.wake()
        if len(self._employers) > self._context.limits.records_max:
            self._close(self._employers.oldest)
        tasks = self._still_to_do(award.record)
        expires_at = after_ms(now, award.record.lease_ms)
        lease = Lease(award, spec, message.sources, tasks, now, expires_at)
        if lease.left:
            self._leases[award.digest] = lease
            self._context.record(Table.LEASE, award.digest, award.signed)
            self._fill()

    def _refuses(self, sender: PeerId, award: Award, spec: Opened[JobSpec]) -> str | None:
        """Why an offer is declined; RemoteProtocolError if it is no offer at all."""
        record, wall, skew = spec.record, self._context.wall, self._context.limits.clock_skew_ms
        if award.worker != self._context.me or award.steward != sender or spec.digest != award.job:
            raise RemoteProtocolError("an award that is not this sender's to give")
        if award.ballot.peer != award.steward:
            raise RemoteProtocolError("an award under another steward's ballot")
        if award.stage >= len(record.stages) or not well_formed(award, record.stages[award.stage]):
            raise RemoteProtocolError("an award of tasks that the job does not have")
        if record.mesh != self._context.profile.mesh:
            return "a job of another mesh"
        if award.job in self._closed:
            return "the job has ended"
        if record.not_after < wall - skew or award.not_after < wall - skew or award.issued_at > wall + skew:
            return "out of its time by this node's clock"
        needs = record.stages[award.stage].needs
        return (
            self._context.profile.policy.refuses(record.submitter, needs)
            or lacks(self._context.profile, needs, self._context.me)
            or self._underpaid(award)
            or self._context.storage_low
            or self.too_busy()
        )

    def _underpaid(self, award: Award) -> str | None:
        asked = self._context.profile.price
        if award.price >= asked:
            return None
        return f"price {award.price / PRICE_UNITS:g} < {asked / PRICE_UNITS:g}"

    def _still_to_do(self, award: Award) -> list[Task]:
        """The award's tasks less those running here or done here over the same inputs: one execution is enough."""
        running = {work_of(run.lease.award.record, run.task) for run in self._runs.values() if not run.stopped}
        todo: list[Task] = []
        resent = False
        for task in tasks_in(award):
            if self._receipts.resend_done(award, task):
                resent = True
            elif work_of(award, task) not in running:
                todo.append(task)
        if resent:
            self._send_receipts()
        return todo

    def on_revoke(self, sender: PeerId, message: Revoke) -> None:
        lease, returned = self._leases.get(message.award), self._returned.get(message.award)
        if lease is not None and self._may_end(sender, lease.award.record):
            self._employers.heard(lease.job, sender)
            if message.ranges:
                self._stop(lease, message.ranges)
            else:
                self._drop(lease, stop=True)
        if returned is not None and self._may_end(sender, returned.record):
            self._forget_returned(message.award)

    def _may_end(self, sender: PeerId, award: Award) -> bool:
        """An award is revoked by who gave it, or by who is steward now."""
        return sender in (award.steward, self._steward_of(award.job))

    def _forget_returned(self, award: bytes) -> None:
        del self._returned[award]
        self._context.record(Table.LEASE, award, None)

    # -- for whom

    def on_leads(self, sender: PeerId, message: Leads) -> None:
        """Another holder is steward: it hears what this worker has of the job, and what it is doing."""
        if self._employers.on_leads(sender, message):
            self._receipts.resend_all(message.job)
            self._send_receipts()
            for lease in self._leases.values():
                if lease.job == message.job:
                    self._send_progress(lease)
        for award in message.awards:
            if award not in self._leases:
                self._context.send(sender, Returned(award=award, reason="not held any more"))

    def on_decided(self, sender: PeerId, message: Decided) -> None:
        """The job has ended, which its holders' votes prove: stop its tasks, forget its receipts."""
        if self._employers.on_decided(message):
            self._close(message.job)

    def _close(self, job: bytes) -> None:
        for lease in [lease for lease in self._leases.values() if lease.job == job]:
            self._drop(lease, stop=True)
        for award in [digest for digest, returned in self._returned.items() if returned.record.job == job]:
            self._forget_returned(award)
        self._receipts.close(job)
        self._employers.remove(job)
        self._closed[job] = None
        if len(self._closed) > self._context.limits.jobs_max:
            self._closed.popitem(last=False)
        self._fill()

    def on_peer_lost(self, peer: PeerId) -> None:
        self._employers.lost(peer)

    def _close_lease(self, lease: Lease) -> None:
        if self._leases.pop(lease.award.digest, None) is not None:
            self._context.record(Table.LEASE, lease.award.digest, None)

    def _drop(self, lease: Lease, *, stop: bool) -> None:
        lease.waiting.clear()
        if stop:
            for number in lease.running.values():
                self._runs[number].stopped = True
                self._context.emit(StopRun(number))
        self._close_lease(lease)

    def _stop(self, lease: Lease, ranges: tuple[Range, ...]) -> None:
        """Some of a lease's tasks were done elsewhere."""
        indexes = {index for span in ranges for index in range(span.start, min(span.stop, TASKS_MAX))}
        lease.waiting = deque(task for task in lease.waiting if task.index not in indexes)
        for task, number in [item for item in lease.running.items() if item[0].index in indexes]:
            del lease.running[task]
            self._runs[number].stopped = True
            self._context.emit(StopRun(number))
        if lease.left == 0:
            self._close_lease(lease)

    def _give_back(self, lease: Lease, reason: str, *, unread: bool = False) -> None:
        steward = self._steward_of(lease.job) or lease.award.record.steward
        self._context.send(steward, Returned(award=lease.award.digest, reason=clipped(reason), unread=unread))
        self._drop(lease, stop=True)

    def give_back_all(self, reason: str) -> None:
        """This node leaves: nobody has to wait for its leases to expire."""
        for lease in list(self._leases.values()):
            self._give_back(lease, reason)

    def _report(self) -> None:
        """Tell each steward that its award is being worked on; end leases that have run out."""
        for lease in list(self._leases.values()):
            if self._context.now >= lease.expires_at:
                if not lease.running:
                    self._give_back(lease, "the lease ran out")
                lease.waiting.clear()
                continue
            self._send_progress(lease)
        for job in self._employers.ask_around():
            self._close(job)

    def _reporting_pace(self) -> int | None:
        return self._context.limits.progress_interval_ms if len(self._employers) or self._leases else None

    def _send_progress(self, lease: Lease) -> None:
        award = lease.award
        steward = self._steward_of(lease.job) or award.record.steward
        progress = Progress(
            award=award.digest,
            running=tuple(task.index for task in lease.running),
            left=lease.left,
            signed=award.signed if steward != award.record.steward else None,
        )
        self._context.send(steward, progress)

    # -- runs

    def _fill(self) -> None:
        """Start what waits while there is room: jobs of higher priority first, then in order of arrival."""
        now = self._context.now
        waiting = [lease for lease in self._leases.values() if lease.waiting and now < lease.expires_at]
        waiting.sort(key=lambda lease: -lease.spec.record.priority)
        for lease in waiting:
            while lease.waiting and self._has_room(lease):
                self._start(lease, lease.waiting.popleft())

    def _has_room(self, lease: Lease) -> bool:
        fits = self._memory_used + _memory_of(lease) <= self._context.profile.memory_bytes
        return len(self._runs) < self._context.profile.slots and (fits or not self._runs)

    def _start(self, lease: Lease, task: Task) -> None:
        number, now = self._context.new_id(), self._context.now
        award = lease.award.record
        self._runs[number] = Run(lease, task, _memory_of(lease), elapsed_ms(lease.free_since, now), now)
        self._memory_used += _memory_of(lease)
        lease.running[task] = number
        self._context.emit(
            StartRun(
                run=number,
                job=award.job,
                task=task,
                attempt=award.attempt,
                stage=lease.stage,
                input=lease.spec.record.input,
                shards=award.shards,
                split=award.split,
                parts=award.parts,
                sources=lease.sources,
                alias=lease.spec.record.alias,
                submitter=lease.spec.record.submitter,
            )
        )

    def on_run_finished(self, event: RunFinished) -> None:
        self.note_blobs([event.output.cid])
        run = self._runs.get(event.run)
        if run is None:
            return
        limit = run.lease.stage.max_shards
        if run.task.role is Role.SPLIT and not 1 <= event.shards <= limit:
            error = f"split into {event.shards} shards where 1 to {limit} are allowed"
            self._finish(event, success=False, output=None, shards=0, error=error)
        else:
            self._finish(event, success=True, output=event.output, shards=event.shards, error="")

    def on_run_failed(self, event: RunFailed) -> None:
        run = self._runs.get(event.run)
        if event.counts:
            self._finish(event, success=False, output=None, shards=0, error=event.reason)
        elif run is not None:
            self._end(event.run)
            if run.lease.award.digest in self._leases and not run.stopped:
                self._give_back(run.lease, event.reason, unread=event.unread)
            self._fill()

    def _end(self, number: int) -> Run | None:
        """Take a run off the books; None if it was not on them."""
        run = self._runs.pop(number, None)
        if run is not None:
            self._memory_used -= run.memory_bytes
            run.lease.running.pop(run.task, None)
            run.lease.free_since = self._context.now
        return run

    def _finish(
        self, event: RunFinished | RunFailed, *, success: bool, output: Output | None, shards: int, error: str
    ) -> None:
        run = self._end(event.run)
        if run is None:
            return
        award = run.lease.award.record
        if award.job in self._closed:
            self._fill()
            return
        if success:
            self._run_ms[run.lease.stage.model] = event.run_ms
            if len(self._run_ms) > self._context.limits.jobs_max:
                self._run_ms.popitem(last=False)
        receipt = self._context.sign(
            Receipt(
                job=award.job,
                task=run.task,
                award=run.lease.award.digest,
                attempt=award.attempt,
                worker=self._context.me,
                success=success,
                output=output,
                shards=shards,
                input_hash=event.input_hash,
                upstream=_upstream_of(award),
                error=clipped(error),
                image=event.image,
                runtime=event.runtime,
                queued_ms=run.queued_ms,
                pull_ms=event.pull_ms,
                transfer_ms=event.transfer_ms,
                run_ms=event.run_ms,
                latency_ms=run.queued_ms + elapsed_ms(run.started, self._context.now),
                started_at=WallMs(max(0, event.started_at)),
                issued_at=self._context.wall,
            )
        )
        content = event.content if isinstance(event, RunFinished) and success else b""
        self._receipts.add(receipt, run.lease.award, content)
        if run.lease.left == 0:
            self._close_lease(run.lease)
        self._send_receipts()
        self._fill()

    # -- receipts

    def _delivering_pace(self) -> int | None:
        waits = self._receipts.unacked_count or self._returned
        return self._context.limits.receipt_retry_ms if waits else None

    def _send_receipts(self) -> None:
        self._delivering.wake()
        for steward, message in self._receipts.unacked():
            self._context.send(steward, message)

    def _send_unacked(self) -> None:
        self._send_receipts()
        for award in list(self._returned.values()):
            if award.record.not_after + self._context.limits.clock_skew_ms < self._context.wall:
                self._forget_returned(award.digest)
            else:
                returned = Returned(award=award.digest, reason="the node was restarted")
                self._context.send(self._steward_of(award.record.job) or award.record.steward, returned)

    def on_receipts_ack(self, sender: PeerId, message: ReceiptsAck) -> None:
        for digest in message.receipts:
            job = self._receipts.acknowledge(digest, by=sender)
            if job is not None:
                self._employers.heard(job, sender)


def _memory_of(lease: Lease) -> int:
    return lease.stage.needs.memory_bytes if lease.award.record.role is Role.SHARD else BUILT_IN_MEMORY_BYTES


def _upstream_of(award: Award) -> tuple[bytes, ...]:
    """The receipts whose outputs this award's tasks read."""
    if award.split_receipt is not None and award.role is Role.SHARD:
        return (award.split_receipt,)
    return tuple(part.receipt for part in award.parts if part.receipt is not None)
