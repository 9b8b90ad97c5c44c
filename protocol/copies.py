"""A second copy of every output that counts: so that losing a worker, or the steward, loses no finished work.

The steward copies what others made; what it made itself another holder copies. Whoever takes over finds it there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from protocol.context import Context
from protocol.effects import FetchBlobs
from protocol.facts import AnyFact, Copied
from protocol.identity import PeerId
from protocol.job import Job, Needless
from protocol.messages import CopyAnswer, CopyRequest
from protocol.plan import TaskState, TaskStatus
from protocol.wire import Link


class Copies:
    """Copies on their way, to this peer or to another holder.

    ``note`` keeps facts, ``advance`` is told of the job when a copy arrives or is given up, ``stop_needless`` of
    tries that it made so; ``witness_of`` names another holder that is there.
    """

    def __init__(
        self,
        context: Context,
        note: Callable[[Job, AnyFact], None],
        advance: Callable[[Job], None],
        stop_needless: Callable[[Needless], None],
        witness_of: Callable[[Job], PeerId | None],
    ) -> None:
        self._context = context
        self._note = note
        self._advance = advance
        self._stop_needless = stop_needless
        self._witness_of = witness_of
        self._fetches: dict[int, tuple[Job, int]] = {}
        """The job, and how often this copy was tried."""
        self._requests: dict[int, tuple[Job, PeerId]] = {}
        """The job, and who was asked."""

    def make(self, job: Job, state: TaskState, content: bytes | None = None) -> None:
        """See to a second copy of a pinned output, unless there is one, or it is larger than is copied.

        ``content``: its bytes, where they came with the receipt.
        """
        output, pin = state.output, state.pin
        if output is None or pin is None or output.size > self._context.limits.keep_output_bytes_max:
            return
        if (state.task, output.cid) in job.copying.values():
            return
        if self._context.me not in state.keepers:
            self._fetch(job, state, tries=1, content=content)
        elif pin.record.worker == self._context.me and len(state.keepers) < 2:
            self._ask_for_copy(job, state)

    # -- by another holder

    def _ask_for_copy(self, job: Job, state: TaskState) -> None:
        witness = self._witness_of(job)
        assert state.output is not None
        assert state.pin is not None
        if witness is not None:
            number = self._context.new_id()
            job.copying[number] = (state.task, state.output.cid)
            self._requests[number] = (job, witness)
            request = CopyRequest(job=job.digest, receipt=state.pin.digest, output=state.output)
            self._context.send(witness, request)
            self._context.after(self._context.limits.copy_timeout_ms, partial(self._not_answered, number))

    def _not_answered(self, number: int) -> None:
        """Too late: the job goes on, and ends, with one copy."""
        job, _ = self._requests.pop(number, (None, None))
        if job is not None:
            del job.copying[number]
            self._advance(job)

    def on_gone(self, peer: PeerId) -> None:
        """Who was to make a copy is gone: somebody else is asked."""
        for number, (job, asked) in list(self._requests.items()):
            if asked == peer:
                del self._requests[number]
                task, _ = job.copying.pop(number)
                state = job.plan.find(task)
                if state is not None and not job.left:
                    self.make(job, state)

    def on_answer(self, job: Job, sender: PeerId, message: CopyAnswer) -> None:
        receipt = job.kept.facts.receipts.get(message.receipt)
        if receipt is None or receipt.record.output is None or sender not in job.kept.chain.current.peers:
            return
        asked = (receipt.record.task, receipt.record.output.cid)
        for number in [number for number, copying in job.copying.items() if copying == asked]:
            if self._requests.pop(number, None) is not None:
                del job.copying[number]
        if message.kept:
            self._note(job, Copied(receipt=message.receipt, peer=sender))
            state = job.plan.find(receipt.record.task)
            if state is not None and state.pin is not None and state.pin.digest == message.receipt:
                self._stop_needless(job.found(state, sender))
        self._advance(job)

    # -- by this peer

    def _fetch(self, job: Job, state: TaskState, tries: int, content: bytes | None = None) -> None:
        assert state.output is not None
        assert state.pin is not None
        number, link = self._context.new_id(), Link(cid=state.output.cid, size=state.output.size)
        self._fetches[number] = (job, tries)
        job.copying[number] = (state.task, link.cid)
        sources = dict.fromkeys([*state.keepers, *job.kept.facts.copies.get(state.pin.digest, ())])
        sources.pop(self._context.me, None)
        contents = (content,) if content is not None else ()
        order = FetchBlobs(number, (link,), tuple(sources), job.record.not_after, deep=True, contents=contents)
        self._context.emit(order)

    def on_fetched(self, fetch: int, failure: str | None) -> bool:
        """A fetch ended; False if it was not one of these. What nobody delivers is lost, and made again."""
        job, tries = self._fetches.pop(fetch, (None, 0))
        if job is None:
            return False
        task, cid = job.copying.pop(fetch)
        state = job.plan.find(task)
        if job.left:
            return True
        if state is not None and state.pin is not None and state.output is not None and state.output.cid == cid:
            if failure is None:
                self._note(job, Copied(receipt=state.pin.digest, peer=self._context.me))
                self._stop_needless(job.found(state, self._context.me))
            elif not self._is_last_hope(job, state, cid) or not job.plan.still_needed(state):
                pass
            elif tries < self._context.limits.copy_tries:
                job.copying[fetch] = (task, cid)  # as long as there is hope it is on its way
                again = partial(self._again, job, state, fetch, tries)
                self._context.after_jittered(self._context.limits.copy_retry_ms, again)
            else:
                self._context.notice("warning", f"no copy of an output: {failure}", job=job.digest)
                job.plan.lose_output(state)
        self._advance(job)
        return True

    def _again(self, job: Job, state: TaskState, fetch: int, tries: int) -> None:
        """A steward that has just restarted, say, knows nobody's address yet: one failure is not the end."""
        _, cid = job.copying.pop(fetch)
        if job.left:
            return
        if state.output is not None and state.output.cid == cid and self._is_last_hope(job, state, cid):
            self._fetch(job, state, tries + 1)
        else:
            self._advance(job)

    def _is_last_hope(self, job: Job, state: TaskState, cid: str) -> bool:
        """Whether it matters that a copy failed: not if one is here or under way, or the task runs again already."""
        if job.left or state.status is not TaskStatus.DONE or self._context.me in state.keepers:
            return False
        return (state.task, cid) not in job.copying.values()
