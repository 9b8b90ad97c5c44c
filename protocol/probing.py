"""Who is still there: SWIM's probes, direct and through helpers.

After Das, Gupta, Motivala: "SWIM" (DSN 2002), sections 3.1 and 4.2. One random neighbour is pinged per period; no
answer within the timeout asks ``probe_helpers`` others to try; no answer then either and the peer is believed gone.
Suspicion is not gossiped: records expire, and a falsely suspected peer comes back with its next record or message.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.clock_check import ClockCheck
from protocol.context import Context
from protocol.identity import PeerId
from protocol.membership import Membership
from protocol.messages import Ack, Ping, ProbeRequest, ProbeResult
from protocol.records import Capability
from protocol.signing import Opened
from protocol.timers import Timer
from protocol.views import Views


class Probe:
    """One running check of one peer."""

    __slots__ = ("helpers", "number", "timer", "told")

    def __init__(self, number: int, timer: Timer, told: bytes) -> None:
        self.number = number
        self.timer = timer
        #: This peer's own record, by digest, that the other one knows once it answers.
        self.told = told
        #: Who was asked to try as well; only their word counts.
        self.helpers: list[PeerId] = []


class Probing:
    """Pings, and decides who has departed."""

    def __init__(self, context: Context, views: Views, membership: Membership, clocks: ClockCheck) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._clocks = clocks
        self._number = 0
        self._probes: dict[PeerId, Probe] = {}
        #: Probes for others by number: the target, who asked, its number, and how long it may take.
        self._for_others: dict[int, tuple[PeerId, PeerId, int, Timer]] = {}
        #: Questions to helpers about somebody else: whom, what to do with the answer, and how long it may take.
        self._helpers: dict[int, tuple[PeerId, Callable[[bool], None], Timer]] = {}
        self._told: dict[PeerId, bytes] = {}
        self._queue: list[PeerId] = []

    def start(self) -> None:
        self._context.after_jittered(self._context.limits.probe_interval_ms, self._period)
        self._context.after_jittered(self._context.limits.partner_ping_ms, self._renew_partners)

    def _renew_partners(self) -> None:
        """Exchange records with those that this peer relies on: nobody else sees to it in a large mesh."""
        for peer in self._views.partners():
            if not self._views.is_active(peer):
                self._context.send(
                    peer,
                    Ping(
                        number=self._next_number(),
                        capability=self._membership.own.signed,
                        wall_ms=self._context.wall,
                    ),
                )
        self._context.after_jittered(self._context.limits.partner_ping_ms, self._renew_partners)

    def _period(self) -> None:
        while self._queue and not self._views.is_active(self._queue[-1]):
            self._queue.pop()
        if not self._queue:  # round robin over a shuffled list: bounds the time to detection (SWIM 4.3)
            self._queue = list(self._views.active)
            self._context.rng.shuffle(self._queue)
        if self._queue:
            self.check(self._queue.pop())
        self._told = {peer: digest for peer, digest in self._told.items() if self._views.is_active(peer)}
        self._context.after_jittered(self._context.limits.probe_interval_ms, self._period)

    def check(self, peer: PeerId) -> None:
        """Ping ``peer``; unless it answers in time, or a helper hears it, it has departed."""
        if peer in self._probes or peer == self._context.me:
            return
        number = self._next_number()
        timer = self._context.after(self._context.limits.probe_timeout_ms, lambda: self._unanswered(peer))
        self._probes[peer] = Probe(number, timer, self._membership.own.digest)
        self._ping(peer, number)

    def _ping(self, peer: PeerId, number: int) -> None:
        own = self._membership.own
        news = None if self._told.get(peer) == own.digest else own.signed
        neighbour = self._views.is_active(peer)
        self._context.send(peer, Ping(number=number, capability=news, neighbour=neighbour, wall_ms=self._context.wall))

    def _unanswered(self, peer: PeerId) -> None:
        probe = self._probes[peer]
        # Helpers for neighbours only: a helper that fails checks the peer itself, and would ask helpers of its own, so
        # that every death would be a flood.
        helpers = [other for other in self._views.active if other != peer] if self._views.is_active(peer) else []
        record = self._views.record_of(peer)
        if probe.helpers or not helpers or record is None:
            self._conclude_gone(peer)
            return
        probe.helpers = self._context.rng.sample(helpers, min(self._context.limits.probe_helpers, len(helpers)))
        for helper in probe.helpers:
            self._context.send(helper, ProbeRequest(number=probe.number, target=record.signed))
        probe.timer = self._context.after(2 * self._context.limits.probe_timeout_ms, lambda: self._unanswered(peer))

    def _conclude_gone(self, peer: PeerId) -> None:
        self._settle(peer)
        self._clocks.forget(peer)
        self._told.pop(peer, None)
        self._views.depart(peer)
        self._context.notice("info", "gone: answers neither this node nor its neighbours", peer=peer)

    def _settle(self, peer: PeerId) -> None:
        probe = self._probes.pop(peer, None)
        if probe is not None:
            probe.timer.cancel()

    def on_peer_lost(self, peer: PeerId) -> None:
        """The connection broke: check at once. If it broke while checking, nobody is there to answer."""
        probe = self._probes.get(peer)
        if peer not in self._views:
            self._views.depart(peer)
        elif probe is None:
            self.check(peer)
        elif not probe.helpers:
            probe.timer.cancel()
            self._unanswered(peer)

    def on_ping(self, sender: PeerId, message: Ping) -> None:
        if sender in self._views:  # a stranger's word about the time is worth nothing
            self._clocks.sample(sender, message.wall_ms)
        if message.capability is not None:
            self._membership.learn(message.capability, sender)
        if message.neighbour:
            self._membership.on_taken_for_neighbour(sender)
        own = self._membership.own.signed if message.capability is not None else None
        self._context.send(sender, Ack(number=message.number, capability=own, wall_ms=self._context.wall))

    def on_ack(self, sender: PeerId, message: Ack) -> None:
        if sender in self._views:
            self._clocks.sample(sender, message.wall_ms)
        if message.capability is not None:
            self._membership.learn(message.capability, sender)
        probe = self._probes.get(sender)
        if probe is not None and probe.number == message.number:
            self._settle(sender)
            self._told[sender] = probe.told
        waiting = self._for_others.get(message.number)
        if waiting is not None and waiting[0] == sender:
            _, asker, number, timer = self._for_others.pop(message.number)
            timer.cancel()
            self._context.send(asker, ProbeResult(number=number, alive=True))

    def on_probe_request(self, sender: PeerId, message: ProbeRequest) -> None:
        """Ping a peer for somebody else; silence is answer enough."""
        target = self._views.open(message.target)
        self._membership.learn_all((message.target,), sender)
        if (
            target.record.peer == self._context.me
            or len(self._for_others) >= self._context.limits.queries_per_sender_max
        ):
            return
        number = self._next_number()
        limit_ms = 2 * self._context.limits.probe_timeout_ms
        timer = self._context.after(limit_ms, lambda: self._give_up_for_other(number))
        self._for_others[number] = (target.record.peer, sender, message.number, timer)
        self._ping(target.record.peer, number)

    def _give_up_for_other(self, number: int) -> None:
        self._for_others.pop(number, None)

    def ask_helper(self, helper: PeerId, target: Opened[Capability], then: Callable[[bool], None]) -> None:
        """Have ``helper`` try to reach a peer; ``then`` is told whether it did, False also for silence."""
        if len(self._helpers) >= self._context.limits.queries_per_sender_max:
            then(False)
            return
        number = self._next_number()
        timer = self._context.after(3 * self._context.limits.probe_timeout_ms, lambda: self._helper_silent(number))
        self._helpers[number] = (helper, then, timer)
        self._context.send(helper, ProbeRequest(number=number, target=target.signed))

    def _helper_silent(self, number: int) -> None:
        if (waiting := self._helpers.pop(number, None)) is not None:
            waiting[1](False)

    def on_probe_result(self, sender: PeerId, message: ProbeResult) -> None:
        waiting = self._helpers.get(message.number)
        if waiting is not None and waiting[0] == sender:
            _, then, timer = self._helpers.pop(message.number)
            timer.cancel()
            then(message.alive)
            return
        for peer, probe in self._probes.items():
            if probe.number == message.number and message.alive and sender in probe.helpers:
                self._settle(peer)
                return

    def _next_number(self) -> int:
        self._number = (self._number + 1) % (1 << 31)
        return self._number
