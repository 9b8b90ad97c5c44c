"""Bugs in who does the work: leases, slots, receipts at the worker."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from protocol.employers import Employers
from protocol.receipt_box import ReceiptBox
from protocol.worker import Worker
from tests.simulations.planted.registry import bug, does_nothing, replaced, together


@bug
def more_runs_than_slots() -> AbstractContextManager[None]:
    """A worker starts all that waits at once."""
    return replaced(Worker, "_has_room", lambda self, lease: True)


@bug
def one_run_more_than_slots() -> AbstractContextManager[None]:
    """A worker's slots are counted from zero."""
    return replaced(Worker, "_has_room", lambda self, lease: len(self._runs) <= self._context.profile.slots)


@bug
def tasks_start_after_their_lease_ran_out() -> AbstractContextManager[None]:
    """The time of a lease is not looked at when a task starts, nor when all are reported."""

    def fill(self: Worker) -> None:
        for lease in [lease for lease in self._leases.values() if lease.waiting]:
            while lease.waiting and self._has_room(lease):
                self._start(lease, lease.waiting.popleft())

    def report(self: Worker) -> None:
        for lease in list(self._leases.values()):
            self._send_progress(lease)
        for job in self._employers.ask_around():
            self._close(job)
        self._context.after_jittered(self._context.limits.progress_interval_ms, self._report)

    return together(replaced(Worker, "_fill", fill), replaced(Worker, "_report", report))


@bug
def a_revoked_lease_goes_on() -> AbstractContextManager[None]:
    """A worker does not listen when its steward no longer wants what is left of an award."""
    return replaced(Worker, "on_revoke", does_nothing)


@bug
def anybody_closes_jobs() -> AbstractContextManager[None]:
    """A worker drops all that it does for a job on anybody's word, proved or not."""
    return replaced(Worker, "on_decided", lambda self, sender, message: self._close(message.job))


@bug
def anybody_gives_work() -> AbstractContextManager[None]:
    """A worker takes an award of whoever has signed one, be he holder of the job or not."""

    def judge(self: Employers, spec: Any, certificates: Any, steward: Any) -> Any:
        known = self.find(spec.digest)
        chain = known.chain if known is not None else self._chain(spec)
        chain.extend(certificates)
        return chain

    return replaced(Employers, "judge", judge)


@bug
def receipts_are_sent_once() -> AbstractContextManager[None]:
    """A receipt that got lost on its way is not sent again."""

    def unacked(self: ReceiptBox) -> Any:
        batches = list(right(self))
        self._unacked.clear()
        return batches

    right = ReceiptBox.unacked
    return replaced(ReceiptBox, "unacked", unacked)


@bug
def receipts_do_not_survive() -> AbstractContextManager[None]:
    """A restarted worker does not know the receipts that it still owes."""
    return replaced(Worker, "restore_receipt", does_nothing)


@bug
def an_acknowledged_receipt_is_owed_for_ever() -> AbstractContextManager[None]:
    """A worker goes on sending what has arrived."""
    return replaced(Worker, "on_receipts_ack", does_nothing)


@bug
def leases_do_not_end() -> AbstractContextManager[None]:
    """A lease whose job has ended is kept."""
    return replaced(Worker, "on_decided", does_nothing)


@bug
def failed_runs_block_their_slot() -> AbstractContextManager[None]:
    """After a run failed by the machine's fault, its slot is never free again."""

    def on_run_failed(self: Worker, event: Any) -> None:
        if event.counts:
            right(self, event)

    right = Worker.on_run_failed
    return replaced(Worker, "on_run_failed", on_run_failed)
