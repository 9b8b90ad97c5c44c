"""Joining, keeping neighbours, and spreading records: HyParView with Cyclon-style shuffles.

After Leitao, Pereira, Rodrigues: "HyParView" (DSN 2007): a small symmetric active view, a larger passive view kept by
shuffles over random walks. What is added: records are signed and expire; a peer keeps looking for bootstrap peers that
it does not know, so that two meshes grown from the same list merge; a peer that sees a record of itself that it did
not issue moves past it (a restart with a lost counter would otherwise be ignored).
"""

from __future__ import annotations

from protocol.clock import Instant, after_ms
from protocol.clock_check import ClockCheck
from protocol.context import Context, clipped
from protocol.durable import Table
from protocol.effects import CloseLink
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.messages import (
    Disconnect,
    ForwardJoin,
    Join,
    JoinRefused,
    Neighbour,
    NeighbourReply,
    Shuffle,
    ShuffleReply,
)
from protocol.records import Capability
from protocol.signing import Opened, Signed
from protocol.views import Views, version_of

_MEETINGS_AT_FIRST = 15


class Membership:
    """Keeps ``Views`` filled, and this peer's own record fresh."""

    def __init__(
        self, context: Context, views: Views, clocks: ClockCheck, bootstrap: tuple[PeerId, ...], incarnation: int
    ) -> None:
        self._context = context
        self._views = views
        self._clocks = clocks
        self._bootstrap = tuple(peer for peer in bootstrap if peer != context.me)
        self._incarnation = incarnation
        self._revision = 0
        self._own = self._issue()
        self._asked: dict[PeerId, Instant] = {}
        self._join_pause_ms = context.limits.join_retry_ms
        self._met = 0

    @property
    def own(self) -> Opened[Capability]:
        """This peer's record as last signed."""
        return self._own

    @property
    def incarnation(self) -> int:
        return self._incarnation

    def restore(self, incarnation: int) -> None:
        """Go past the incarnation that an earlier start of this node used."""
        if incarnation >= self._incarnation:
            self._incarnation = incarnation + 1
            self._own = self._issue()

    def _record_incarnation(self) -> None:
        self._context.record(Table.INCARNATION, b"", self._incarnation.to_bytes(8, "big"))

    def start(self) -> None:
        self._record_incarnation()
        self._join()
        self._maintain()
        self._context.after_jittered(self._context.limits.shuffle_interval_ms, self._shuffle)
        self._context.after_jittered(self._context.limits.near_first_ms, self._meet_near)
        self._context.after_jittered(self._context.limits.capability_refresh_ms, self._refresh)

    def leave(self) -> None:
        for peer in self._views.active:
            self._context.send(peer, Disconnect(leaving=True))
            self._views.deactivate(peer)

    # -- this peer's own record

    def _issue(self) -> Opened[Capability]:
        profile, wall = self._context.profile, self._context.wall
        self._revision += 1
        return self._context.sign(
            Capability(
                peer=self._context.me,
                mesh=profile.mesh,
                incarnation=self._incarnation,
                revision=self._revision,
                store=profile.store,
                addresses=profile.addresses,
                cpu_milli=profile.cpu_milli,
                memory_bytes=profile.memory_bytes,
                isolation=profile.isolation,
                labels=profile.labels,
                price=profile.price,
                version=profile.version,
                issued_at=wall,
                not_after=wall + self._context.limits.capability_lifetime_ms,
            )
        )

    def _refresh(self) -> None:
        self._own = self._issue()
        self._context.after_jittered(self._context.limits.capability_refresh_ms, self._refresh)

    def _move_past(self, seen: Capability) -> None:
        if version_of(seen) > version_of(self._own.record):
            self._incarnation = seen.incarnation + 1
            self._record_incarnation()
            self._own = self._issue()

    def learn(self, signed: Signed, sender: PeerId) -> Opened[Capability] | None:
        """Take in a record that ``sender`` passed on or sent of itself."""
        return self._take(self._context.open(signed, Capability), sender)

    def _take(self, opened: Opened[Capability], sender: PeerId) -> Opened[Capability] | None:
        peer = opened.record.peer
        if peer == self._context.me:
            self._move_past(opened.record)
            return None
        if self._views.record_of(peer) is opened:
            return opened
        return self._views.take(opened, direct=peer == sender)

    def learn_all(self, records: tuple[Signed, ...], sender: PeerId) -> None:
        """Take in what is believable of what another peer passed on; the rest is its problem, not an offence."""
        open_record, take = self._context.open, self._take
        for signed in records:
            try:
                take(open_record(signed, Capability), sender)
            except RemoteProtocolError as error:
                self._context.notice("debug", f"record passed over: {error}", peer=sender)

    # -- joining

    def _join(self) -> None:
        """Without neighbours, ask the bootstrap peers to be taken in; later see that they are of the same mesh."""
        limits = self._context.limits
        missing = [peer for peer in self._bootstrap if peer not in self._views]
        if not missing or self._views.active:
            self._join_pause_ms = limits.join_retry_ms
        if not self._views.active:
            for peer in missing:
                self._context.send(peer, Join(capability=self._own.signed, wall_ms=self._context.wall))
            self._context.after_jittered(self._join_pause_ms, self._join)
            self._join_pause_ms = min(2 * self._join_pause_ms, limits.join_retry_max_ms)
            return
        if missing:  # two meshes grown from one list merge by exchanging records
            self._context.send(self._context.rng.choice(missing), self._shuffle_message(hops=0))
        self._context.after_jittered(limits.join_retry_max_ms, self._join)

    def on_join(self, sender: PeerId, message: Join) -> None:
        opened = self._welcome(sender, message.capability, message.wall_ms)
        if opened is None:
            return
        self._make_room(for_peer=sender)
        self._views.activate(sender)
        self._context.send(sender, self._reply(accepted=True))
        hops = self._context.limits.active_random_walk_hops
        for peer in self._views.active:
            if peer != sender:
                self._context.send(peer, ForwardJoin(capability=message.capability, hops=hops))

    def on_join_refused(self, sender: PeerId, message: JoinRefused) -> None:
        if sender in self._bootstrap or sender in self._asked:
            self._clocks.sample(sender, message.wall_ms)
        self._views.deactivate(sender)
        self._context.notice("warning", f"refused as a neighbour: {message.reason}", peer=sender)

    def on_forward_join(self, sender: PeerId, message: ForwardJoin) -> None:
        opened = self.learn(message.capability, sender)
        if opened is None:
            return
        newcomer = opened.record.peer
        others = [peer for peer in self._views.active if peer not in (sender, newcomer)]
        if message.hops == 0 or not others or self._has_room():
            self._ask(newcomer, urgent=message.hops == 0)
        if message.hops > 0 and others:
            self._context.send(
                self._context.rng.choice(others), ForwardJoin(capability=message.capability, hops=message.hops - 1)
            )

    # -- neighbours

    def _has_room(self) -> bool:
        return len(self._views.active) < self._context.limits.active_view_max

    def _make_room(self, for_peer: PeerId) -> None:
        if not self._has_room() and not self._views.is_active(for_peer):
            peer = self._context.rng.choice(self._views.active)
            self._context.send(peer, Disconnect())
            self._views.deactivate(peer)

    def _maintain(self) -> None:
        """One more neighbour if there is room: often while there are few, now and then while there are enough.

        Rarely another one where there is none: peers that are all each other's neighbours, and have no room, as a
        partition may leave them, would keep to themselves for ever.
        """
        limits, now = self._context.limits, self._context.now
        self._asked = {peer: until for peer, until in self._asked.items() if until > now}
        has_room = self._has_room()
        if has_room or self._context.rng.randrange(limits.maintain_swap) == 0:
            candidates = [peer for peer in self._views.passive if peer not in self._asked]
            if candidates:
                # two that have only each other are as lost as one that has nobody
                urgent = not has_room or len(self._views.active) < 2
                self._ask(self._context.rng.choice(candidates), urgent=urgent)
        enough = len(self._views.active) >= limits.active_view_enough
        pause_ms = limits.maintain_relaxed_ms if enough else limits.maintain_interval_ms
        self._context.after_jittered(pause_ms, self._maintain)

    def _ask(self, peer: PeerId, *, urgent: bool) -> None:
        if peer == self._context.me or self._views.is_active(peer) or peer in self._asked:
            return
        if len(self._asked) >= self._context.limits.passive_view_max:
            return  # somebody makes newcomers up
        self._asked[peer] = after_ms(self._context.now, self._context.limits.neighbour_timeout_ms)
        self._context.send(peer, Neighbour(capability=self._own.signed, urgent=urgent, wall_ms=self._context.wall))

    def on_neighbour(self, sender: PeerId, message: Neighbour) -> None:
        if self._welcome(sender, message.capability, message.wall_ms) is None:
            return
        accepted = message.urgent or self._has_room() or self._views.is_active(sender)
        if accepted:
            self._make_room(for_peer=sender)
            self._views.activate(sender)
        self._context.send(sender, self._reply(accepted=accepted))

    def on_neighbour_reply(self, sender: PeerId, message: NeighbourReply) -> None:
        if self._welcome(sender, message.capability, message.wall_ms) is None:
            return
        if message.accepted:
            self._make_room(for_peer=sender)
            self._views.activate(sender)

    def on_taken_for_neighbour(self, sender: PeerId) -> None:
        """A lost answer leaves two peers of two minds, and one of them unheard: it becomes a neighbour, or hears no."""
        if self._views.is_active(sender):
            return
        if sender in self._views and self._has_room():
            self._views.activate(sender)
        else:
            self._context.send(sender, Disconnect())

    def on_disconnect(self, sender: PeerId, message: Disconnect) -> None:
        if message.leaving:
            self._views.depart(sender)
        else:
            self._views.deactivate(sender)

    def _reply(self, *, accepted: bool) -> NeighbourReply:
        return NeighbourReply(accepted=accepted, capability=self._own.signed, wall_ms=self._context.wall)

    def _welcome(self, sender: PeerId, capability: Signed, wall_ms: int) -> Opened[Capability] | None:
        """The sender's own record, or a refusal sent back to it."""
        try:
            opened = self.learn(capability, sender)
            if opened is None or opened.record.peer != sender:
                raise RemoteProtocolError("not the sender's own record")
        except RemoteProtocolError as error:
            self._context.send(
                sender, JoinRefused(reason=clipped(f"your record is {error}"), wall_ms=self._context.wall)
            )
            if self._views.is_active(sender):
                self._views.deactivate(sender)
                self._context.emit(CloseLink(sender))
            return None
        self._clocks.sample(sender, wall_ms)
        return opened

    # -- shuffles

    def _shuffle(self) -> None:
        limits = self._context.limits
        self._views.expire()
        active = self._views.active
        if active:
            self._context.send(self._context.rng.choice(active), self._shuffle_message(limits.shuffle_walk_hops))
        self._context.after_jittered(limits.shuffle_interval_ms, self._shuffle)

    def _shuffle_message(self, hops: int) -> Shuffle:
        return self._shuffle_with(self._views.sample(self._context.limits.shuffle_records), hops)

    def _shuffle_with(self, records: list[Signed], hops: int) -> Shuffle:
        epoch, sketch = self._views.sketch()
        return Shuffle(origin=self._own.signed, records=tuple(records), epoch=epoch, sketch=sketch, hops=hops)

    def _meet_near(self) -> None:
        """Exchange with a peer nearby on the ring whom else is there (T-Man: Jelasity, Montresor, Babaoglu 2009).

        Often at first, so that those nearby have soon found each other. Where all are known nothing need be found.
        """
        limits, near = self._context.limits, self._views.near
        self._met += 1
        if near and self._views.mesh_size() > limits.passive_view_max:
            peer = self._context.rng.choice(near)
            self._context.send(peer, self._shuffle_with(self._views.nearest_to(peer, limits.shuffle_records), hops=0))
        pause_ms = limits.near_first_ms if self._met < _MEETINGS_AT_FIRST else limits.near_interval_ms
        self._context.after_jittered(pause_ms, self._meet_near)

    def on_shuffle(self, sender: PeerId, message: Shuffle) -> None:
        opened = self.learn(message.origin, sender)
        self.learn_all(message.records, sender)
        self._views.merge_sketch(message.epoch, message.sketch)
        origin = opened.record.peer if opened else None
        others = [peer for peer in self._views.active if peer not in (sender, origin)]
        if message.hops > 0 and others:
            forward = Shuffle(
                origin=message.origin,
                records=message.records,
                epoch=message.epoch,
                sketch=message.sketch,
                hops=message.hops - 1,
            )
            self._context.send(self._context.rng.choice(others), forward)
        elif origin is not None:
            epoch, sketch = self._views.sketch()
            count = self._context.limits.shuffle_records - 1
            near = self._views.nearest_to(origin, count // 2 + 1)
            records = (self._own.signed, *dict.fromkeys([*near, *self._views.sample(count - len(near))]))
            self._context.send(origin, ShuffleReply(records=records, epoch=epoch, sketch=sketch))

    def on_shuffle_reply(self, sender: PeerId, message: ShuffleReply) -> None:
        self.learn_all(message.records, sender)
        self._views.merge_sketch(message.epoch, message.sketch)
