"""How an announcement reaches peers that can do the work: directly, then within some hops, then everywhere.

Whoever passes it on knows further peers than the steward: where few of them fit, these are told directly as well.

Announcements only. What follows is negotiated directly between two peers. Duplicates are suppressed by digest, and
a peer passes on no more than ``forwards_per_s_max``, whoever floods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from protocol.context import Context
from protocol.errors import RemoteProtocolError
from protocol.fitness import lacks
from protocol.identity import PeerId
from protocol.membership import Membership
from protocol.messages import Announce
from protocol.rate import TokenBucket
from protocol.records import Announcement, Capability
from protocol.signing import Opened
from protocol.views import Views


class Dissemination:
    """Sends this peer's announcements, and passes on those of others."""

    def __init__(self, context: Context, views: Views, membership: Membership) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._bucket = TokenBucket(context.limits.forwards_per_s_max, context.now)

    @property
    def seen_count(self) -> int:
        return len(self._seen)

    def announce(self, announcement: Opened[Announcement], direct: Sequence[PeerId]) -> None:
        """One round: to ``direct`` peers at once, to this peer itself, later also through the neighbours."""
        hops = self.hops_of_round(announcement.record.round)
        targets = list(direct)
        if hops > 0:
            targets += [peer for peer in self._views.active if peer not in targets]
        self.send_to(self._context.me, announcement)
        for peer in targets:
            self.send_to(peer, announcement, hops)

    def send_to(self, peer: PeerId, announcement: Opened[Announcement], hops: int = 0) -> None:
        message = Announce(announcement=announcement.signed, steward=self._membership.own.signed, hops=hops)
        self._context.send(peer, message)

    def hops_of_round(self, number: int) -> int:
        """0 in the first round, then ever more, then as far as a mesh can be wide; and so on from the start.

        A mesh in which much waits would drown if all that waits were announced everywhere each time.
        """
        limits = self._context.limits
        step = self.step_of_round(number)
        return limits.flood_hops if step == limits.announce_rounds_to_flood else limits.announce_hops * step

    def step_of_round(self, number: int) -> int:
        """How wide a round is, from 0 to ``announce_rounds_to_flood``."""
        return number % (self._context.limits.announce_rounds_to_flood + 1)

    def on_announce(self, sender: PeerId, message: Announce) -> Opened[Announcement] | None:
        """The announcement if it is new and believable; passed on to the neighbours if hops are left."""
        announcement = self._context.open(message.announcement, Announcement)
        if announcement.digest in self._seen:
            return None
        record = announcement.record
        self._membership.learn(message.steward, sender)
        if self._context.open(message.steward, Capability).record.peer != record.steward:
            raise RemoteProtocolError("an announcement without its steward's own record")
        skew = self._context.limits.clock_skew_ms
        if record.not_after < self._context.wall - skew or record.issued_at > self._context.wall + skew:
            self._context.notice("debug", "an announcement out of its time by this node's clock", peer=record.steward)
            return None  # perhaps this clock is wrong: whoever passed it on has done nothing wrong
        if record.not_after - record.issued_at > 2 * self._context.limits.announcement_lifetime_ms:
            raise RemoteProtocolError("an announcement valid for too long")
        self._remember(announcement.digest)
        hops = min(message.hops, self._context.limits.flood_hops)
        if hops > 0:
            forward = Announce(announcement=message.announcement, steward=message.steward, hops=hops - 1)
            for peer in self._views.active:
                if peer not in (sender, record.steward) and self._bucket.take(self._context.now):
                    self._context.send(peer, forward)
            self._scout(message, sender, record)
        return announcement

    def _scout(self, message: Announce, sender: PeerId, record: Announcement) -> None:
        """Of hardware so rare that hardly anybody known has it, those few hear at once: no flood need find them."""
        told = (self._context.me, sender, record.steward)
        fitting = [
            peer
            for opened in self._views.known()
            if lacks(opened.record, record.needs, peer := opened.record.peer) is None
        ]
        if len(fitting) > self._context.limits.scouted_max:
            return
        last = msgspec.structs.replace(message, hops=0)
        for peer in fitting:
            if peer not in told and not self._views.is_active(peer) and self._bucket.take(self._context.now):
                self._context.send(peer, last)

    def _remember(self, digest: bytes) -> None:
        self._seen[digest] = None
        if len(self._seen) > self._context.limits.seen_max:
            self._seen.popitem(last=False)
