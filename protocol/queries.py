"""Questions about a job, and its cancellation: answered by its steward, asked through any peer."""

from __future__ import annotations

import msgspec

from protocol.context import Context
from protocol.effects import Reply
from protocol.errors import RemoteProtocolError
from protocol.events import CancelAsked, StatusAsked
from protocol.identity import PeerId
from protocol.limits import RECORDS_PER_MESSAGE_MAX
from protocol.membership import Membership
from protocol.messages import CancelReply, CancelRequest, JobView, StatusReply, StatusRequest
from protocol.records import Cancel, JobSpec
from protocol.steward import Steward
from protocol.timers import Timer
from protocol.views import Views


class Queries:
    """Passes a client's question to the steward, and answers those of others."""

    def __init__(self, context: Context, views: Views, membership: Membership, steward: Steward) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._steward = steward
        self._asked: dict[int, tuple[int, PeerId, Timer, StatusReply | CancelReply]] = {}

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    # -- a client's side

    def on_status_asked(self, event: StatusAsked) -> None:
        request = StatusRequest(number=0, job=event.job, page=event.page)
        if event.steward == self._context.me:
            self._context.emit(Reply(event.request, self._status(request)))
            return
        number = self._ask(event.request, event.steward, StatusReply(number=0))
        self._context.send(event.steward, StatusRequest(number=number, job=event.job, page=event.page))

    def on_cancel_asked(self, event: CancelAsked) -> None:
        if event.steward == self._context.me:
            self._context.emit(Reply(event.request, self._cancel(CancelRequest(number=0, cancel=event.cancel))))
            return
        number = self._ask(event.request, event.steward, CancelReply(number=0, status="unreachable"))
        self._context.send(event.steward, CancelRequest(number=number, cancel=event.cancel))

    def _ask(self, request: int, steward: PeerId, otherwise: StatusReply | CancelReply) -> int:
        """Await an answer; ``otherwise`` is given if none comes in time."""
        number = self._context.new_id()
        timer = self._context.after(2 * self._context.limits.lookup_timeout_ms, lambda: self._give_up(number))
        if len(self._asked) >= self._context.limits.lookups_max:
            self._give_up(next(iter(self._asked)))
        self._asked[number] = (request, steward, timer, otherwise)
        return number

    def _give_up(self, number: int) -> None:
        waiting = self._asked.pop(number, None)
        if waiting is not None:
            request, _, timer, otherwise = waiting
            timer.cancel()
            self._context.emit(Reply(request, otherwise))

    def on_peer_lost(self, peer: PeerId) -> None:
        for number in [number for number, (_, steward, _, _) in self._asked.items() if steward == peer]:
            self._give_up(number)

    def on_reply(self, sender: PeerId, message: StatusReply | CancelReply) -> None:
        waiting = self._asked.get(message.number)
        if waiting is None or waiting[1] != sender or type(message) is not type(waiting[3]):
            return
        if isinstance(message, StatusReply) and message.spec is not None:
            self._check_spec(sender, message)
        if isinstance(message, StatusReply) and message.view is not None:
            self._membership.learn_all(message.view.records, sender)
        request, _, timer, _ = self._asked.pop(message.number)
        timer.cancel()
        self._context.emit(Reply(request, message))

    def _check_spec(self, sender: PeerId, message: StatusReply) -> None:
        """Anyone can sign a pointer that names itself as steward; only the spec says who may speak for a job."""
        assert message.spec is not None
        spec = self._context.open(message.spec, JobSpec)
        speaks = sender in [holder.peer for holder in spec.record.holders]
        if message.view is None or message.view.job != spec.digest or not speaks:
            raise RemoteProtocolError("an answer about a job that the sender does not hold")

    # -- the steward's side

    def on_status_request(self, sender: PeerId, message: StatusRequest) -> None:
        self._context.send(sender, self._status(message))

    def _status(self, message: StatusRequest) -> StatusReply:
        job = self._steward.find(message.job)
        if job is None:
            return StatusReply(number=message.number)
        view = job.view(self._steward.recruiting.refusals_of(job), RECORDS_PER_MESSAGE_MAX)
        view = self._with_records(view)
        if message.page is None:
            return StatusReply(number=message.number, view=view, spec=job.spec.signed)
        tasks, awards, pages = job.task_views(message.page, self._context.limits.page_tasks)
        return StatusReply(
            number=message.number,
            view=view,
            spec=job.spec.signed,
            tasks=tasks,
            awards=tuple(award.signed for award in awards),
            pages=pages,
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
