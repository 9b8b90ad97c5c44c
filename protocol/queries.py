"""Questions about a job, and its cancellation: answered by its steward, asked through any peer."""

from __future__ import annotations

import msgspec

from protocol.context import Context
from protocol.effects import Reply
from protocol.errors import RemoteProtocolError
from protocol.events import CancelAsked, StatusAsked
from protocol.identity import PeerId
from protocol.job_views import details_of, summary_of
from protocol.limits import RECORDS_PER_MESSAGE_MAX
from protocol.membership import Membership
from protocol.messages import CancelReply, CancelRequest, JobView, StatusReply, StatusRequest
from protocol.records import Cancel, JobSpec
from protocol.steward import Steward
from protocol.timers import Timer
from protocol.views import Views


class Question:
    """One question of a client, on its way to a steward; ``otherwise`` is the answer if none comes in time."""

    __slots__ = ("job", "otherwise", "request", "steward", "timer")

    def __init__(
        self, request: int, job: bytes, steward: PeerId, timer: Timer, otherwise: StatusReply | CancelReply
    ) -> None:
        self.request = request
        self.job = job
        self.steward = steward
        self.timer = timer
        self.otherwise = otherwise


class Queries:
    """Passes a client's question to the steward, and answers those of others."""

    def __init__(self, context: Context, views: Views, membership: Membership, steward: Steward) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._steward = steward
        self._asked: dict[int, Question] = {}

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    # -- a client's side

    def on_status_asked(self, event: StatusAsked) -> None:
        request = StatusRequest(number=0, job=event.job, start=event.start)
        if event.steward == self._context.me:
            self._context.emit(Reply(event.request, self._status(request)))
            return
        number = self._ask(event.request, event.job, event.steward, StatusReply(number=0))
        self._context.send(event.steward, StatusRequest(number=number, job=event.job, start=event.start))

    def on_cancel_asked(self, event: CancelAsked) -> None:
        if event.steward == self._context.me:
            self._context.emit(Reply(event.request, self._cancel(CancelRequest(number=0, cancel=event.cancel))))
            return
        number = self._ask(event.request, b"", event.steward, CancelReply(number=0, status="unreachable"))
        self._context.send(event.steward, CancelRequest(number=number, cancel=event.cancel))

    def _ask(self, request: int, job: bytes, steward: PeerId, otherwise: StatusReply | CancelReply) -> int:
        number = self._context.new_id()
        timer = self._context.after(2 * self._context.limits.lookup_timeout_ms, lambda: self._give_up(number))
        if len(self._asked) >= self._context.limits.lookups_max:
            self._give_up(next(iter(self._asked)))
        self._asked[number] = Question(request, job, steward, timer, otherwise)
        return number

    def _give_up(self, number: int) -> None:
        question = self._asked.pop(number, None)
        if question is not None:
            question.timer.cancel()
            self._context.emit(Reply(question.request, question.otherwise))

    def on_peer_lost(self, peer: PeerId) -> None:
        for number in [number for number, question in self._asked.items() if question.steward == peer]:
            self._give_up(number)

    def on_reply(self, sender: PeerId, message: StatusReply | CancelReply) -> None:
        question = self._asked.get(message.number)
        if question is None or question.steward != sender or type(message) is not type(question.otherwise):
            return
        if isinstance(message, StatusReply) and (message.view is not None or message.spec is not None):
            self._check(sender, question.job, message)
        if isinstance(message, StatusReply) and message.view is not None:
            self._membership.learn_all(message.view.records, sender)
        del self._asked[message.number]
        question.timer.cancel()
        self._context.emit(Reply(question.request, message))

    def _check(self, sender: PeerId, job: bytes, message: StatusReply) -> None:
        """Anyone can sign a pointer that names itself as steward; only the spec says who may speak for a job."""
        if message.view is None or message.spec is None:
            raise RemoteProtocolError("an answer without the job's spec, or with nothing else")
        spec = self._context.open(message.spec, JobSpec)
        holds = sender in [holder.peer for holder in spec.record.holders]
        if not holds or not message.view.job == spec.digest == job:
            raise RemoteProtocolError("an answer about a job that was not asked for, or that the sender does not hold")

    # -- the steward's side

    def on_status_request(self, sender: PeerId, message: StatusRequest) -> None:
        self._context.send(sender, self._status(message))

    def _status(self, message: StatusRequest) -> StatusReply:
        job = self._steward.find(message.job)
        if job is None:
            return StatusReply(number=message.number)
        view = summary_of(job, self._steward.recruiting.refusals_of(job), RECORDS_PER_MESSAGE_MAX)
        view = self._with_records(view)
        if message.start is None:
            return StatusReply(number=message.number, view=view, spec=job.spec.signed)
        tasks, awards, following = details_of(job, message.start)
        return StatusReply(
            number=message.number,
            view=view,
            spec=job.spec.signed,
            tasks=tasks,
            awards=awards,
            next=following,
        )

    def _with_records(self, view: JobView) -> JobView:
        """Where the keepers of the output are reached."""
        records = [
            self._membership.own if peer == self._context.me else self._views.record_of(peer) for peer in view.keepers
        ]
        signed = tuple(opened.signed for opened in records if opened is not None)
        return msgspec.structs.replace(view, records=signed)

    def on_cancel_request(self, sender: PeerId, message: CancelRequest) -> None:
        self._context.send(sender, self._cancel(message))

    def _cancel(self, message: CancelRequest) -> CancelReply:
        try:
            cancel = self._context.open(message.cancel, Cancel).record
        except RemoteProtocolError:
            return CancelReply(number=message.number, status="unknown")
        return CancelReply(number=message.number, status=self._steward.cancel(cancel))
