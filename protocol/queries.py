"""Questions about a job, and its cancellation: answered by its holders, asked through any peer.

The steward of a running job answers, or whichever holder of one that has ended. A holder that knows better sends the
asker on; one that hears of no steward says what it knows itself, which is provisional.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from protocol.chain import Chain
from protocol.clock import elapsed_ms
from protocol.context import Context
from protocol.effects import Reply
from protocol.ending import ENDS
from protocol.errors import RemoteProtocolError
from protocol.events import CancelAsked, StatusAsked
from protocol.identity import PeerId
from protocol.job import Job
from protocol.job_record import JobRecord
from protocol.job_views import details_of, summary_of
from protocol.limits import RECORDS_PER_MESSAGE_MAX
from protocol.membership import Membership
from protocol.messages import CancelReply, CancelRequest, JobView, StatusReply, StatusRequest
from protocol.record_keeper import RecordKeeper
from protocol.records import Cancel, JobSpec, Vote
from protocol.replay import view_of
from protocol.steward import Steward
from protocol.timers import Timer
from protocol.views import Views

Asker = tuple[PeerId, int]
"""Who wants to know: another peer and its number, or this peer and a client's request."""

_VIEWS_KEPT = 16
_HOPS_MAX = 6


class Question:
    """One question of a client, on its way to the job's holders; ``otherwise`` is the answer if none comes in time."""

    __slots__ = ("ahead", "asked", "job", "make", "otherwise", "request", "target", "timer")

    def __init__(
        self,
        request: int,
        job: bytes,
        targets: tuple[PeerId, ...],
        make: Callable[[int], StatusRequest | CancelRequest],
        otherwise: StatusReply | CancelReply,
    ) -> None:
        self.request = request
        self.job = job
        #: Whom to ask next, and how many were asked.
        self.ahead = list(targets)
        self.asked = 0
        self.make = make
        self.otherwise = otherwise
        self.target: PeerId | None = None
        self.timer: Timer | None = None


class Queries:
    """Passes a client's question to a job's holders, and answers those of others."""

    def __init__(
        self, context: Context, views: Views, membership: Membership, keeper: RecordKeeper, steward: Steward
    ) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._keeper = keeper
        self._steward = steward
        self._asked: dict[int, Question] = {}
        self._cancels: dict[bytes, list[Asker]] = {}
        self._shown: OrderedDict[bytes, Job] = OrderedDict()

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    # -- a client's side

    def on_status_asked(self, event: StatusAsked) -> None:
        def make(number: int) -> StatusRequest:
            return StatusRequest(number=number, job=event.job, start=event.start)

        targets = (event.steward, *event.holders)
        self._ask(Question(event.request, event.job, targets, make, StatusReply(number=0)))

    def on_cancel_asked(self, event: CancelAsked) -> None:
        def make(number: int) -> CancelRequest:
            return CancelRequest(number=number, cancel=event.cancel)

        targets = (event.steward, *event.holders)
        self._ask(Question(event.request, b"", targets, make, CancelReply(number=0, status="unreachable")))

    def _ask(self, question: Question) -> None:
        number = self._context.new_id()
        if len(self._asked) >= self._context.limits.lookups_max:
            self._finish(next(iter(self._asked)))
        self._asked[number] = question
        self._ask_next(number)

    def _ask_next(self, number: int) -> None:
        """The next holder; without one, whatever was the best answer so far."""
        question = self._asked.get(number)
        if question is None:
            return
        if question.timer is not None:
            question.timer.cancel()
        if not question.ahead or question.asked >= _HOPS_MAX:
            self._finish(number)
            return
        question.target = question.ahead.pop(0)
        question.asked += 1
        request, to_myself = question.make(number), question.target == self._context.me
        if to_myself and isinstance(request, StatusRequest):
            self._take(number, self._status(request))  # at once, for nothing is to be waited for
            return
        limits = self._context.limits
        wait_ms = limits.lookup_timeout_ms if question.ahead else 2 * limits.lookup_timeout_ms
        if isinstance(request, CancelRequest):
            wait_ms += limits.cancel_ms
        question.timer = self._context.after(wait_ms, lambda: self._ask_next(number))
        if to_myself and isinstance(request, CancelRequest):
            self._on_cancel((self._context.me, number), request)
        else:
            self._context.send(question.target, request)

    def _finish(self, number: int) -> None:
        question = self._asked.pop(number, None)
        if question is not None:
            if question.timer is not None:
                question.timer.cancel()
            self._context.emit(Reply(question.request, question.otherwise))

    def on_peer_lost(self, peer: PeerId) -> None:
        for number in [number for number, question in self._asked.items() if question.target == peer]:
            self._ask_next(number)

    def on_reply(self, sender: PeerId, message: StatusReply | CancelReply) -> None:
        question = self._asked.get(message.number)
        if question is None or question.target != sender or type(message) is not type(question.otherwise):
            return
        if isinstance(message, StatusReply) and (message.view is not None or message.spec is not None):
            self._check(question.job, sender, message)
        if isinstance(message, StatusReply) and message.view is not None:
            self._membership.learn_all(message.view.records, sender)
        self._take(message.number, message)

    def _take(self, number: int, message: StatusReply | CancelReply) -> None:
        """An answer, or whom to ask instead."""
        question = self._asked[number]
        if isinstance(message, CancelReply):
            useful = message.status not in ("unknown", "elsewhere")
            if message.status == "elsewhere":
                question.otherwise = CancelReply(number=0, status="requested")  # a holder knows it, and passes it on
            elif useful or question.otherwise == CancelReply(number=0, status="unreachable"):
                question.otherwise = message
        else:
            useful = message.view is not None
            if useful:
                question.otherwise = message
        if message.elsewhere is not None:
            question.ahead = [message.elsewhere, *(peer for peer in question.ahead if peer != message.elsewhere)]
            self._ask_next(number)
        elif useful:
            self._finish(number)
        else:
            self._ask_next(number)

    def _check(self, job: bytes, sender: PeerId, message: StatusReply) -> None:
        """Anyone can sign a pointer that names itself as steward; only spec and chain say who may speak for a job.

        How it ended its holders' votes say, and nobody else.
        """
        if message.view is None or message.spec is None:
            raise RemoteProtocolError("an answer without the job's spec, or with nothing else")
        spec = self._context.open(message.spec, JobSpec)
        if not message.view.job == spec.digest == job:
            raise RemoteProtocolError("an answer about a job that was not asked for")
        chain = Chain(spec, partial(self._context.open, kind=Vote))
        chain.extend(message.chain)
        if not chain.has_held(sender):
            raise RemoteProtocolError("an answer by a peer that does not hold the job")
        ended = message.view.status in ENDS
        if ended != (message.body is not None) or (message.body is not None and not chain.certifies(message.body)):
            raise RemoteProtocolError("an end of the job that its holders have not decided")
        if message.body is not None and (message.body.status, message.body.output) != (
            message.view.status,
            message.view.output,
        ):
            raise RemoteProtocolError("another end of the job than its holders have decided")

    # -- a holder's side

    def on_status_request(self, sender: PeerId, message: StatusRequest) -> None:
        self._context.send(sender, self._status(message))

    def _status(self, message: StatusRequest) -> StatusReply:
        record = self._keeper.find(message.job)
        if record is None:
            return StatusReply(number=message.number)
        job = self._steward.find(message.job)
        if job is not None:
            refusals = self._steward.recruiting.refusals_of(job)
        else:
            refusals = {}
            job = self._view(record)
        view = self._with_records(summary_of(job, refusals, RECORDS_PER_MESSAGE_MAX))
        reply = StatusReply(
            number=message.number,
            view=view,
            spec=record.spec.signed,
            chain=tuple(record.chain.certificates),
            body=record.final,
            elsewhere=self._who_knows_better(record),
        )
        if message.start is None:
            return reply
        tasks, awards, following = details_of(job, message.start)
        return msgspec.structs.replace(reply, tasks=tasks, awards=awards, next=following)

    def _view(self, record: JobRecord) -> Job:
        """A job that this peer does not look after, made from its facts; one that has ended stays as it is."""
        job = self._shown.get(record.job)
        if job is not None and job.kept is record:
            return job
        job = view_of(self._context, record)
        if record.final is not None and record.complete:
            self._shown[record.job] = job
            if len(self._shown) > _VIEWS_KEPT:
                self._shown.popitem(last=False)
        return job

    def _who_knows_better(self, record: JobRecord) -> PeerId | None:
        """The steward of a job that goes on, if this holder has heard of it lately; or who has all of an ended one."""
        if record.final is not None:
            decided_by = record.chain.certificates[-1].ballot.peer
            return None if record.complete or decided_by == self._context.me else decided_by
        if self._steward.find(record.job) is not None or record.leader is None:
            return None
        silent_ms = elapsed_ms(record.heard_at, self._context.now)
        lately = silent_ms < self._context.limits.suspect_ms
        return record.leader.peer if lately and record.leader.peer != self._context.me else None

    def _with_records(self, view: JobView) -> JobView:
        """Where the keepers of the output are reached."""
        records = [
            self._membership.own if peer == self._context.me else self._views.record_of(peer) for peer in view.keepers
        ]
        signed = tuple(opened.signed for opened in records if opened is not None)
        return msgspec.structs.replace(view, records=signed)

    # -- cancelling

    def on_cancel_request(self, sender: PeerId, message: CancelRequest) -> None:
        self._on_cancel((sender, message.number), message)

    def _on_cancel(self, asker: Asker, message: CancelRequest) -> None:
        """Answered once the job's holders have decided how it ends, or when that takes too long."""
        record = self._cancelled_by(message)
        if record is None:
            self._answer(asker, CancelReply(number=0, status="unknown"))
            return
        self._steward.cancel(record, message.cancel)
        if record.final is not None:
            self._answer(asker, CancelReply(number=0, status=record.final.status))
        elif (better := self._who_knows_better(record)) is not None:
            self._answer(asker, CancelReply(number=0, status="elsewhere", elsewhere=better))
        else:
            waiting = self._cancels.setdefault(record.job, [])
            if len(waiting) >= self._context.limits.askers_max:
                self._answer(waiting.pop(0), CancelReply(number=0, status="requested"))
            waiting.append(asker)
            self._context.after(self._context.limits.cancel_ms, lambda: self._cancel_late(record.job, asker))

    def _cancelled_by(self, message: CancelRequest) -> JobRecord | None:
        """The record of the job, if its submitter signed the cancel."""
        try:
            opened = self._context.open_any(message.cancel)
        except RemoteProtocolError:
            return None
        match opened.record:
            case Cancel(job=job) | JobSpec(supersedes=bytes(job)):
                record = self._keeper.find(job)
            case _:
                return None
        if record is None or record.spec.record.submitter != opened.record.signer:
            return None
        return record

    def _cancel_late(self, job: bytes, asker: Asker) -> None:
        waiting = self._cancels.get(job, [])
        if asker in waiting:
            waiting.remove(asker)
            self._answer(asker, CancelReply(number=0, status="requested"))
        if not waiting:
            self._cancels.pop(job, None)

    def on_end(self, record: JobRecord) -> None:
        """Whoever wanted it to end is told how it did."""
        assert record.final is not None
        for asker in self._cancels.pop(record.job, []):
            self._answer(asker, CancelReply(number=0, status=record.final.status))

    def _answer(self, asker: Asker, reply: CancelReply) -> None:
        peer, number = asker
        reply = msgspec.structs.replace(reply, number=number)
        if peer != self._context.me:
            self._context.send(peer, reply)
        elif number in self._asked:
            self._take(number, reply)
