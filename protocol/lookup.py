"""Finding jobs and models from anywhere: own pointers, those responsible for the key, then the neighbourhood."""

from __future__ import annotations

import msgspec

from protocol.context import Context
from protocol.effects import Reply
from protocol.errors import RemoteProtocolError
from protocol.events import PointersAsked
from protocol.identity import PeerId
from protocol.limits import POINTERS_BYTES_MAX, RECORDS_PER_MESSAGE_MAX
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

    __slots__ = ("awaiting", "found", "request", "text", "timer", "what", "wide")

    def __init__(self, request: int, what: str, text: str) -> None:
        self.request = request
        self.what = what
        self.text = text
        #: Peers asked directly that have not answered.
        self.awaiting: set[PeerId] = set()
        self.found: dict[bytes, Signed] = {}
        self.timer: Timer | None = None
        #: Whether the neighbourhood has been asked as well.
        self.wide = False


class Lookups:
    """Asks and answers ``Lookup``: first on a walk towards the key, then through the neighbours."""

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
        """Answered as soon as something is found and all who were asked have answered, or when time is up."""
        context, number = self._context, self._context.new_id()
        search = Search(event.request, event.what, event.text)
        for signed in self._pointers.matching(event.what, event.text):
            search.found[signed.digest] = signed
        if len(self._searches) >= context.limits.lookups_max:
            self._finish(next(iter(self._searches)))
        self._searches[number] = search
        for key in _keys_of(event.what, event.text, event.submitter):
            for peer in self._pointers.responsible(key):
                search.awaiting.add(peer)
                context.send(peer, self._lookup(number, search, key))
        search.timer = context.after(
            context.limits.lookup_near_ms if search.awaiting else 0, lambda: self._near_over(number)
        )

    def _lookup(self, number: int, search: Search, key: bytes) -> Lookup:
        limits = self._context.limits
        hops = limits.walk_hops if key else limits.lookup_hops
        origin = self._membership.own.signed
        return Lookup(number=number, origin=origin, what=search.what, text=search.text, key=key, hops=hops)

    def _near_over(self, number: int) -> None:
        """What is not where it should be, or has no key, is asked of the neighbourhood."""
        search = self._searches[number]
        if search.found and search.text:
            self._finish(number)
            return
        del self._searches[number]
        number = self._context.new_id()  # another question: peers that were asked before may be on its way
        self._searches[number] = search
        search.wide = True
        search.timer = self._context.after(self._context.limits.lookup_timeout_ms, lambda: self._finish(number))
        search.awaiting = set(self._views.active)
        for peer in self._views.active:
            self._context.send(peer, self._lookup(number, search, b""))
        if not search.awaiting:
            self._finish(number)

    def _finish(self, number: int) -> None:
        search = self._searches.pop(number, None)
        if search is not None:
            if search.timer is not None:
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
        found = _as_many_as_fit(self._pointers.matching(message.what, message.text))
        if found or origin == sender:
            self._context.send(origin, LookupReply(number=message.number, pointers=found))
        hops = min(message.hops, self._context.limits.walk_hops if message.key else self._context.limits.lookup_hops)
        if hops > 0 and not (found and message.key):
            forward = msgspec.structs.replace(message, hops=hops - 1)
            targets = self._pointers.towards(message.key, 2) if message.key else self._views.active
            for peer in targets:
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
        if search.found and search.text and not search.awaiting:
            self._finish(message.number)
        elif search.wide and not search.awaiting and len(self._views) == len(self._views.active):
            self._finish(message.number)  # a small mesh: everybody was asked, and has answered


def _as_many_as_fit(pointers: list[Signed]) -> tuple[Signed, ...]:
    """Of the matching pointers, the first that one answer can carry."""
    left = POINTERS_BYTES_MAX
    fitting = []
    for signed in pointers[:RECORDS_PER_MESSAGE_MAX]:
        left -= len(signed.payload)
        if left >= 0:
            fitting.append(signed)
    return tuple(fitting)


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
