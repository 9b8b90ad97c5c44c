"""Finding jobs and models from anywhere: own pointers, those responsible for the key, then the neighbourhood."""

from __future__ import annotations

from protocol.context import Context
from protocol.effects import Reply
from protocol.errors import RemoteProtocolError
from protocol.events import PointersAsked
from protocol.identity import PeerId
from protocol.limits import RECORDS_PER_MESSAGE_MAX
from protocol.membership import Membership
from protocol.messages import Lookup, LookupReply
from protocol.pointers import Pointers, matches, normal_id
from protocol.rate import TokenBucket
from protocol.rendezvous import KEY_BYTES, alias_key, job_key, model_key
from protocol.signing import Signed
from protocol.timers import Timer
from protocol.views import Views


class Search:
    """One question of a client, on its way."""

    __slots__ = ("awaiting", "found", "request", "text", "timer", "what")

    def __init__(self, request: int, what: str, text: str, awaiting: set[PeerId], timer: Timer) -> None:
        self.request = request
        self.what = what
        self.text = text
        self.awaiting = awaiting
        self.found: dict[bytes, Signed] = {}
        self.timer = timer


class Lookups:
    """Asks and answers ``Lookup``."""

    def __init__(self, context: Context, views: Views, membership: Membership, pointers: Pointers) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._pointers = pointers
        self._searches: dict[int, Search] = {}
        self._seen: dict[tuple[str, int], None] = {}
        self._bucket = TokenBucket(context.limits.forwards_per_s_max, context.now)

    @property
    def search_count(self) -> int:
        return len(self._searches)

    def ask(self, event: PointersAsked) -> None:
        """Answered when all who were asked directly have answered, or after ``lookup_timeout_ms``."""
        context, number = self._context, self._context.new_id()
        keys = _keys_of(event.what, event.text, event.submitter)
        direct = self._pointers.responsible(keys) if keys else []
        targets = dict.fromkeys([*direct, *self._views.active])
        timer = context.after(context.limits.lookup_timeout_ms, lambda: self._finish(number))
        search = Search(event.request, event.what, event.text, set(targets), timer)
        for signed in self._pointers.matching(event.what, event.text):
            search.found[signed.digest] = signed
        if len(self._searches) >= context.limits.lookups_max:
            self._finish(next(iter(self._searches)))
        self._searches[number] = search
        hops = context.limits.lookup_hops
        for peer in targets:
            lookup = Lookup(
                number=number,
                origin=self._membership.own.signed,
                what=event.what,
                text=event.text,
                hops=0 if peer in direct else hops,
            )
            context.send(peer, lookup)
        if not targets:
            self._finish(number)

    def _finish(self, number: int) -> None:
        search = self._searches.pop(number, None)
        if search is not None:
            search.timer.cancel()
            found = tuple(search.found.values())[:RECORDS_PER_MESSAGE_MAX]
            self._context.emit(Reply(search.request, LookupReply(number=number, pointers=found)))

    def on_lookup(self, sender: PeerId, message: Lookup) -> None:
        origin = self._views.open(message.origin).record.peer
        if (origin, message.number) in self._seen or not self._bucket.take(self._context.now):
            return
        self._membership.learn_all((message.origin,), sender)
        self._seen[(origin, message.number)] = None
        if len(self._seen) > self._context.limits.seen_max:
            del self._seen[next(iter(self._seen))]
        found = self._pointers.matching(message.what, message.text)[:RECORDS_PER_MESSAGE_MAX]
        if found or origin == sender:
            self._context.send(origin, LookupReply(number=message.number, pointers=tuple(found)))
        hops = min(message.hops, self._context.limits.lookup_hops)
        if hops > 0:
            forward = Lookup(
                number=message.number, origin=message.origin, what=message.what, text=message.text, hops=hops - 1
            )
            for peer in self._views.active:
                if peer not in (sender, origin) and self._bucket.take(self._context.now):
                    self._context.send(peer, forward)

    def on_lookup_reply(self, sender: PeerId, message: LookupReply) -> None:
        search = self._searches.get(message.number)
        if search is None:
            return
        for signed in message.pointers:
            opened = self._pointers.open(signed)
            if not matches(opened.record, search.what, search.text):
                raise RemoteProtocolError("a pointer that was not asked for")
            if len(search.found) < self._context.limits.lookups_max:
                search.found[opened.digest] = signed
        search.awaiting.discard(sender)
        if not search.awaiting and not (self._is_wide(search) and len(self._views) > len(self._views.active)):
            self._finish(message.number)

    def _is_wide(self, search: Search) -> bool:
        """Whether more may come from peers that were not asked directly."""
        return search.text == "" or not search.found


def _keys_of(what: str, text: str, submitter: PeerId | None) -> list[bytes]:
    """Under which keys to look for what ``text`` may mean; none if it is too short for any."""
    if not text:
        return []
    if what == "model":
        return [model_key(text)]
    keys = []
    digits = normal_id(text)[: 2 * KEY_BYTES]
    if len(digits) == 2 * KEY_BYTES and all(digit in "0123456789abcdef" for digit in digits):
        keys.append(job_key(bytes.fromhex(digits)))
    if submitter is not None:
        keys.append(alias_key(submitter, text))
    return keys
