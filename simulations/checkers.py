"""What must never happen, checked after every event. What must finally happen is in ``final.py``.

A rule subscribes to the kinds of events, effects and messages it is about, so that an event costs only the rules it
concerns. Rules look at what crosses a peer's border and at its public views, never inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from protocol.effects import Effect, FetchBlobs, Notice, Record, Reply, Send, StartRun
from protocol.events import (
    BlobsFetched,
    Event,
    MessageReceived,
    PeerLost,
    RunFailed,
    RunFinished,
    Started,
    WakeupReached,
)
from protocol.messages import (
    Accept,
    AcceptedVote,
    Announce,
    Bid,
    Decided,
    Leads,
    Offer,
    OfferAccepted,
    Promise,
    Receipts,
    ReceiptsAck,
    Refusal,
    Returned,
    Revoke,
    Shuffle,
    ShuffleReply,
)
from simulations.auctions import Auctions
from simulations.clock_rules import ClockRules
from simulations.job_rules import JobRules
from simulations.loss_rules import LossRules
from simulations.machines import Machine
from simulations.peer_rules import SenderRules, TableRules, WakeupRules
from simulations.pointer_rules import PointerRules
from simulations.record_rules import RecordRules
from simulations.repeat_rules import RepeatRules
from simulations.restart_rules import DeliveryRules, IncarnationRules
from simulations.run_rules import RunRules
from simulations.spread_rules import SpreadRules
from simulations.storm_rules import StormRules
from simulations.trust_rules import AcknowledgementRules, LieRules
from simulations.view_rules import ViewRules

if TYPE_CHECKING:
    from simulations.world import World

_TABLES_EVERY = 256
"""Each so many events of the world, one peer's tables are compared with their bounds."""

Rule = Callable[[Machine, Any], None]


class Checkers:
    """Gives every event and its effects to the rules that are about them. A broken rule raises ``Violation``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.records = RecordRules(world)
        self.jobs = JobRules(world)
        self.runs = RunRules(world)
        self.senders = SenderRules(world)
        self.wakeups = WakeupRules(world)
        self.storms = StormRules(world)
        self.tables = TableRules(world)
        self.views = ViewRules(world)
        self.losses = LossRules(world)
        self.clocks = ClockRules(world)
        self.pointers = PointerRules(world)
        self.auctions = Auctions(world)
        self.incarnations = IncarnationRules(world)
        self.deliveries = DeliveryRules(world)
        self.repeats = RepeatRules(world)
        self.spread = SpreadRules(world)
        self.lies = LieRules()
        self.acknowledgements = AcknowledgementRules(world)
        self._countdown = _TABLES_EVERY
        self._on_event: dict[type[Event], tuple[Rule, ...]] = {
            Started: (self._started,),
            WakeupReached: (self.wakeups.woken, self._glance),
            RunFinished: (self.runs.answered, self.repeats.finished, self.jobs.inspect),
            PeerLost: (self.storms.lost,),
            BlobsFetched: (self.repeats.fetched,),
            RunFailed: (self.runs.answered, self.jobs.inspect),
        }
        self._on_received: dict[type, tuple[Rule, ...]] = {
            Announce: (self.spread.heard,),
            Offer: (self.runs.offered, self.acknowledgements.offered),
            Leads: (self.acknowledgements.offered,),
            Decided: (self.runs.closed, self.deliveries.closed, self.acknowledgements.offered, self.jobs.inspect),
            ReceiptsAck: (self.deliveries.acknowledged,),
            Receipts: (self.jobs.inspect,),
            Returned: (self.jobs.inspect,),
            Promise: (self.jobs.inspect,),
            AcceptedVote: (self.jobs.inspect,),
        }
        self._on_heard: dict[type, tuple[Rule, ...]] = {
            Revoke: (self.runs.revoked,),
            ReceiptsAck: (self.acknowledgements.acknowledged,),
            Shuffle: (self.incarnations.told,),
            ShuffleReply: (self.incarnations.told,),
        }
        """As ``_on_received``, for rules that also ask who said so."""
        self._on_effect: dict[type[Effect], tuple[Rule, ...]] = {
            StartRun: (self.runs.asked, self.repeats.asked, self.auctions.began),
            FetchBlobs: (self.repeats.fetching,),
            Record: (self.clocks.recorded,),
            Reply: (self.clocks.replied,),
        }
        self._on_sent: dict[type, tuple[Rule, ...]] = {
            Offer: (
                self.senders.offer,
                self.repeats.offered,
                self.repeats.called_off,
                self.losses.offered,
                self.auctions.offered,
            ),
            Receipts: (self.senders.receipts, self.deliveries.sent, self.acknowledgements.sent),
            Announce: (self.auctions.announced, self.spread.sent),
            Bid: (self.senders.bid, self.clocks.bid, self.auctions.bid),
            Refusal: (self.auctions.refused,),
            OfferAccepted: (self.runs.accepted,),
            Returned: (self.runs.returned,),
            Promise: (self.records.promise,),
            Accept: (self.records.accept,),
            AcceptedVote: (self.records.voted,),
            Decided: (self.records.decided,),
            Leads: (self.losses.asked,),
        }
        if world.options.rules == "few":
            self._keep_few()

    def _keep_few(self) -> None:
        """What holders decide and how jobs end, what peers find wrong with each other, tables: what stays cheap."""
        self._on_event = {Started: (self._started,)}
        self._on_received = {AcceptedVote: (self.jobs.inspect,), Decided: (self.jobs.inspect,)}
        self._on_heard = {}
        self._on_effect = {StartRun: (self.auctions.began,)}
        self._on_sent[Offer] = (self.senders.offer, self.auctions.offered)
        self._on_sent[Announce] = (self.auctions.announced,)
        for kind in (Receipts, OfferAccepted, Returned, Leads):
            del self._on_sent[kind]

    def starting(self, machine: Machine) -> None:
        """A machine has a new peer, which has heard nothing yet."""
        self.runs.starting(machine)
        self.deliveries.starting(machine)

    def crashing(self, machine: Machine) -> None:
        """The last look at a peer, in a state that its journal has."""
        self.incarnations.stopping(machine)
        self.records.crashing(machine)

    def _started(self, machine: Machine, _: Started) -> None:
        self.incarnations.started(machine)
        self.records.started(machine, None)
        self.jobs.restarted(machine)
        self.pointers.started(machine)

    def _glance(self, machine: Machine, event: WakeupReached) -> None:
        if machine.peer is not None and machine.peer.stewarding:
            self.jobs.glance(machine, event)

    def after(self, machine: Machine, event: Event, effects: Sequence[Effect], is_lie: bool = False) -> None:
        """``is_lie``: what the event says is not to be believed, and a peer that does is found out by what it does."""
        kind: type = type(event)
        if kind is MessageReceived:
            if is_lie:
                self.lies.told(machine, event, effects)
            else:
                message = event.message  # type: ignore[attr-defined]
                kind = type(message)
                for rule in self._on_received.get(kind, ()):
                    rule(machine, message)
                for rule in self._on_heard.get(kind, ()):
                    rule(machine, event)
        else:
            for rule in self._on_event.get(kind, ()):
                rule(machine, event)
        for effect in effects:
            if type(effect) is Send:
                if effect.to == machine.peer_id or not machine.alive:
                    self.senders.sent(machine, effect)
                for rule in self._on_sent.get(type(effect.message), ()):
                    rule(machine, effect)
            elif type(effect) is Notice:
                self.senders.noticed(machine, event, effect)
            else:
                for rule in self._on_effect.get(type(effect), ()):
                    rule(machine, effect)
        self._countdown -= 1
        if self._countdown == 0:
            self._countdown = _TABLES_EVERY
            self.tables.check(machine)
            self.views.check(machine)
            self.losses.check(machine)
