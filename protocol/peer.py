"""One mesh peer as a state machine: an event and the time go in, effects come out.

Only dispatch is here; what is decided, and why, is in the roles. The contract with a driver:

1. Inputs are complete: whatever influences a decision is in the event, in ``now``, or in a constructor argument.
2. ``restore``, if there is a journal, comes before ``Started``, and that before all other events. From then on
   ``handle`` is the only method that changes state, and it never raises for remote input.
3. Effects are carried out in order per destination. ``Send`` may be lost, late or repeated.
4. Every ``StartRun`` is answered by exactly one ``RunFinished`` or ``RunFailed``, also after ``StopRun``; every
   ``FetchBlobs`` by one ``BlobsFetched`` or ``BlobsFailed``.
5. All ``Record`` effects of one ``handle`` are durable before any other effect of it is carried out.
6. ``next_wakeup`` says when ``WakeupReached`` is next worth sending. Early, late and needless ones are harmless.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec

from protocol import codec, events, messages
from protocol.bidding import Bidding
from protocol.clock import Instant, WallMs, after_ms
from protocol.clock_check import ClockCheck
from protocol.context import Context, clipped
from protocol.dissemination import Dissemination
from protocol.durable import ROW_BYTES_MAX, JobRow, ReceiptRow, RegisterRow, Table, Tombstone, WorkRow
from protocol.effects import CloseLink, Effect, Reply
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.facts import FACT_KINDS, AnyFact
from protocol.holding import Holding
from protocol.identity import PeerId, Signer
from protocol.intake import Intake
from protocol.job_record import JobRecord
from protocol.lead import Lead
from protocol.leadership import Leadership
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.lookup import Lookups
from protocol.membership import Membership
from protocol.messages import JoinRefused, Message, PointerStored
from protocol.pointers import Pointers
from protocol.probing import Probing
from protocol.profile import Profile
from protocol.queries import Queries
from protocol.record_keeper import RecordKeeper
from protocol.records import Capability, ModelPointer
from protocol.signing import RecordReader, Signed
from protocol.steward import Steward
from protocol.upkeep import Upkeep
from protocol.views import Views
from protocol.visibility import Visibility
from protocol.worker import Worker


class PeerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen view of a peer for checkers, tests and people; never for decisions in a driver."""

    peer_id: PeerId
    mesh: str
    incarnation: int
    capability: Capability
    neighbours: tuple[PeerId, ...]
    known: tuple[Capability, ...]
    mesh_size: int
    clock_offset_ms: int | None
    clock_wrong: str | None
    visible: bool | None
    """Whether others could reach this peer when it last asked; None if nobody was asked yet."""
    stewarding: tuple[bytes, ...]
    leases: int
    runs: int
    tables: dict[str, int]
    """Entries of every table that remote parties can make grow."""


class Peer:
    """Composes the roles and hands each event to the one it is for."""

    def __init__(
        self,
        *,
        signer: Signer,
        reader: RecordReader,
        profile: Profile,
        bootstrap: tuple[PeerId, ...],
        rng: Random,
        limits: Limits = DEFAULT_LIMITS,
        incarnation: int,
        wall: WallMs,
        now: Instant,
    ) -> None:
        context = Context(signer=signer, reader=reader, profile=profile, limits=limits, rng=rng, wall=wall, now=now)
        self._context = context
        self._views = Views(context)
        self._clocks = ClockCheck(context)
        self._membership = Membership(context, self._views, self._clocks, bootstrap, incarnation)
        self._probing = Probing(context, self._views, self._membership, self._clocks)
        self._visibility = Visibility(context, self._views, self._probing, expects_others=bool(bootstrap))
        self._dissemination = Dissemination(context, self._views, self._membership)
        self._worker = Worker(context)
        self._bidding = Bidding(context, self._membership, self._worker, self._clocks)
        self._pointers = Pointers(context, self._views)
        self._lookups = Lookups(context, self._views, self._membership, self._pointers)
        self._keeper = keeper = RecordKeeper(context, self._clocks)
        self._views.relied_on.append(keeper.relied_on)
        self._leadership = leadership = Leadership(context, keeper)
        self._steward = steward = Steward(context, self._views, self._dissemination, keeper, leadership)
        self._holding = Holding(context, self._membership, self._clocks, keeper)
        self._intake = Intake(
            context, self._views, self._membership, self._clocks, self._pointers, keeper, leadership, steward
        )
        self._upkeep = Upkeep(context, self._views, self._membership, keeper, leadership, steward)
        self._queries = Queries(context, self._views, self._membership, keeper, steward)
        leadership.on_elected = self._elected
        leadership.on_deposed = steward.leave
        leadership.on_facts = steward.on_facts
        leadership.on_end = self._job_ended
        leadership.on_missing = self._upkeep.on_missing
        leadership.on_holders = self._place_pointer
        self._upkeep.on_unfindable = self._point_to
        self._garbage: OrderedDict[PeerId, tuple[int, Instant]] = OrderedDict()
        self._on_message = self._message_handlers()
        self._on_event = self._event_handlers()

    # -- the interface

    def restore(self, rows: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Bring back what earlier starts of this node kept: (table, key, value), ordered. Before ``Started``.

        Raises LocalProtocolError for a row that this version cannot read: nothing is lost by refusing to start.
        """
        try:
            self._read(rows)
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"the journal holds what this version cannot read: {error}") from None

    def _read(self, rows: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Hand rows to the roles they are for; those of one job's record belong together."""
        jobs: dict[bytes, JobRow] = {}
        registers: dict[bytes, RegisterRow] = {}
        facts: dict[bytes, list[tuple[int, AnyFact]]] = {}
        for table, key, value in rows:
            match table:
                case Table.INCARNATION:
                    self._membership.restore(int.from_bytes(value, "big"))
                case Table.JOB:
                    jobs[key] = codec.decode_as(value, JobRow, max_bytes=ROW_BYTES_MAX)
                case Table.REGISTER:
                    registers[key] = codec.decode_as(value, RegisterRow, max_bytes=ROW_BYTES_MAX)
                case Table.FACT:
                    fact: Any = codec.decode(value, FACT_KINDS, max_bytes=ROW_BYTES_MAX)
                    facts.setdefault(key[:-4], []).append((int.from_bytes(key[-4:], "big"), fact))
                case Table.TOMBSTONE:
                    self._keeper.restore_tombstone(key, codec.decode_as(value, Tombstone, max_bytes=ROW_BYTES_MAX))
                case Table.RECEIPT:
                    self._worker.restore_receipt(codec.decode_as(value, ReceiptRow, max_bytes=ROW_BYTES_MAX))
                case Table.LEASE:
                    self._worker.restore_lease(codec.decode_as(value, Signed, max_bytes=ROW_BYTES_MAX))
                case Table.WORK:
                    self._worker.restore_work(codec.decode_as(value, WorkRow, max_bytes=ROW_BYTES_MAX))
                case Table.POINTER | Table.PLACEMENT:
                    signed = codec.decode_as(value, Signed, max_bytes=ROW_BYTES_MAX)
                    self._pointers.restore(signed, own=table == Table.PLACEMENT)
                case _:
                    raise LocalProtocolError(f"the journal holds a table {table!r} that this version does not know")
        for job, row in jobs.items():
            self._keeper.restore(JobRecord.restore(self._context, row, registers[job], facts.get(job, [])))

    def handle(self, event: events.Event, *, now: Instant) -> tuple[Effect, ...]:
        """Advance by one event. The only method that changes state; never raises for remote input."""
        context = self._context
        assert now >= context.now, "the monotonic clock went backwards"
        context.advance(now)
        self._on_event[type(event)](event)
        context.timers.fire_due(now)
        while context.to_self:
            self._deliver(context.me, context.to_self.popleft())
        return context.take_effects()

    def next_wakeup(self) -> Instant | None:
        """When ``WakeupReached`` is next worth sending; None if nothing is planned."""
        return self._context.timers.next_due()

    def snapshot(self) -> PeerSnapshot:
        context, views = self._context, self._views
        return PeerSnapshot(
            peer_id=context.me,
            mesh=context.profile.mesh,
            incarnation=self._membership.incarnation,
            capability=self._membership.own.record,
            neighbours=views.active,
            known=tuple(opened.record for opened in views.known()),
            mesh_size=views.mesh_size(),
            clock_offset_ms=self._clocks.offset_ms(),
            clock_wrong=self._clocks.wrong(),
            visible=self._visibility.visible,
            stewarding=self._steward.jobs,
            leases=self._worker.lease_count,
            runs=self._worker.run_count,
            tables={
                "known": len(views),
                "departed": views.departed_count(),
                "seen": self._dissemination.seen_count,
                "receipts": self._worker.receipt_count,
                "pointers": self._pointers.kept_count,
                "searches": self._lookups.search_count,
                "questions": self._queries.asked_count,
                "submissions": self._intake.submission_count,
                "holding": self._holding.fetching_count,
                "jobs": len(self._steward.jobs),
                "records": len(self._keeper),
                "tombstones": self._keeper.tombstone_count,
                "ended_bytes": self._keeper.ended_bytes,
                "employers": self._worker.employer_count,
                "garbage": len(self._garbage),
            },
        )

    @property
    def stewarding(self) -> tuple[bytes, ...]:
        """The jobs that this peer looks after."""
        return self._steward.jobs

    def believes_gone(self, peer: PeerId) -> bool:
        """Whether ``peer`` answered nobody, or said goodbye, and has not been heard of since."""
        return self._views.has_departed(peer)

    def is_banned(self, sender: PeerId) -> bool:
        """Whether nothing that ``sender`` says is listened to at present."""
        if sender not in self._garbage:
            return False
        count, until = self._garbage[sender]
        return count >= self._context.limits.garbage_max and self._context.now < until

    def record_of(self, job: bytes) -> JobRecord | None:
        """What this peer keeps of a job as one of its holders; for checkers, to read."""
        return self._keeper.find(job)

    # -- messages

    def _deliver(self, sender: PeerId, message: Message) -> None:
        handler = self._on_message[type(message)]
        try:
            handler(sender, message)
        except RemoteProtocolError as error:
            self._misbehaved(sender, f"{type(message).__name__}: {error}")

    def _message_handlers(self) -> dict[type[Message], Callable[[PeerId, Any], object]]:
        membership, probing, worker, steward = self._membership, self._probing, self._worker, self._steward
        return {
            messages.Join: membership.on_join,
            messages.JoinRefused: membership.on_join_refused,
            messages.ForwardJoin: membership.on_forward_join,
            messages.Neighbour: membership.on_neighbour,
            messages.NeighbourReply: membership.on_neighbour_reply,
            messages.Disconnect: membership.on_disconnect,
            messages.Shuffle: membership.on_shuffle,
            messages.ShuffleReply: membership.on_shuffle_reply,
            messages.Ping: probing.on_ping,
            messages.Ack: probing.on_ack,
            messages.ProbeRequest: probing.on_probe_request,
            messages.ProbeResult: probing.on_probe_result,
            messages.SeeMe: self._visibility.on_see_me,
            messages.Seen: self._visibility.on_seen,
            messages.Announce: self._on_announce,
            messages.Bid: self._on_bid,
            messages.Refusal: steward.recruiting.on_refusal,
            messages.Offer: self._on_offer,
            messages.OfferAccepted: steward.awarding.on_offer_accepted,
            messages.OfferDeclined: steward.awarding.on_offer_declined,
            messages.Progress: steward.on_progress,
            messages.Receipts: steward.on_receipts,
            messages.ReceiptsAck: worker.on_receipts_ack,
            messages.Returned: steward.awarding.on_returned,
            messages.Revoke: worker.on_revoke,
            messages.Create: self._keeper.on_create,
            messages.Created: self._on_created,
            messages.Prepare: self._keeper.on_prepare,
            messages.Promise: self._leadership.on_promise,
            messages.Nack: self._leadership.on_nack,
            messages.UnknownJob: self._leadership.on_unknown,
            messages.Accept: self._keeper.on_accept,
            messages.AcceptedVote: self._leadership.on_accepted,
            messages.Decided: self._on_decided,
            messages.Renew: self._keeper.on_renew,
            messages.Renewed: self._leadership.on_renewed,
            messages.WhoLeads: self._keeper.on_who_leads,
            messages.Leads: self._on_leads,
            messages.CopyRequest: self._holding.on_copy_request,
            messages.CopyAnswer: self._on_copy_answer,
            messages.HoldRequest: self._holding.on_hold_request,
            messages.HoldAnswer: self._on_hold_answer,
            messages.StorePointer: self._pointers.on_store,
            messages.PointerStored: self._on_pointer_stored,
            messages.Lookup: self._lookups.on_lookup,
            messages.LookupReply: self._lookups.on_lookup_reply,
            messages.Submit: self._intake.on_submit,
            messages.SubmitReply: self._intake.on_submit_reply,
            messages.CancelRequest: self._queries.on_cancel_request,
            messages.CancelReply: self._queries.on_reply,
            messages.StatusRequest: self._queries.on_status_request,
            messages.StatusReply: self._queries.on_reply,
        }

    def _on_announce(self, sender: PeerId, message: messages.Announce) -> None:
        announcement = self._dissemination.on_announce(sender, message)
        if announcement is not None:
            self._bidding.on_announcement(announcement)

    def _on_bid(self, sender: PeerId, message: messages.Bid) -> None:
        self._membership.learn_all((message.capability,), sender)
        self._steward.recruiting.on_bid(sender, message)

    def _on_offer(self, sender: PeerId, message: messages.Offer) -> None:
        self._membership.learn_all(message.records, sender)
        self._worker.on_offer(sender, message)

    def _on_pointer_stored(self, sender: PeerId, message: PointerStored) -> None:
        if self._pointers.on_stored(sender, message) is not None:
            self._intake.on_pointer_stored(message)

    def _on_created(self, sender: PeerId, message: messages.Created) -> None:
        self._intake.on_created(sender, message)
        self._upkeep.on_created(sender, message)

    def _on_hold_answer(self, sender: PeerId, message: messages.HoldAnswer) -> None:
        if not self._intake.on_hold_answer(sender, message):
            self._upkeep.on_hold_answer(sender, message)

    def _on_copy_answer(self, sender: PeerId, message: messages.CopyAnswer) -> None:
        job = self._steward.find(message.job)
        if job is not None:
            self._steward.copies.on_answer(job, sender, message)

    def _on_decided(self, sender: PeerId, message: messages.Decided) -> None:
        self._keeper.on_decided(sender, message)
        self._worker.on_decided(sender, message)

    def _on_leads(self, sender: PeerId, message: messages.Leads) -> None:
        self._leadership.on_leads(sender, message)
        self._worker.on_leads(sender, message)

    # -- leading

    def _elected(self, lead: Lead) -> None:
        """This peer is to look after a job that others, or an earlier start of its own, have looked after before."""
        self._steward.take_up(lead)
        self._place_pointer(lead.record)
        self._intake.on_elected(lead)

    def _point_to(self, record: JobRecord) -> None:
        if not self._pointers.has_placed(record.job):
            self._place_pointer(record)

    def _place_pointer(self, record: JobRecord) -> None:
        self._intake.place_pointer(record.spec, record.chain.current.holders)

    def _job_ended(self, record: JobRecord) -> None:
        self._steward.on_end(record)
        self._queries.on_end(record)

    # -- events

    def _event_handlers(self) -> dict[type[events.Event], Callable[[Any], object]]:
        return {
            events.Started: self._started,
            events.WakeupReached: lambda event: None,
            events.ClockObserved: self._clock_observed,
            events.MessageReceived: self._message_received,
            events.GarbageReceived: lambda event: self._misbehaved(event.sender, event.reason),
            events.PeerLost: self._peer_lost,
            events.RunFinished: self._worker.on_run_finished,
            events.RunFailed: self._worker.on_run_failed,
            events.BlobsFetched: lambda event: self._fetch_ended(event.fetch, None),
            events.BlobsFailed: lambda event: self._fetch_ended(event.fetch, event.reason),
            events.JobSubmitted: self._intake.on_submitted,
            events.CancelAsked: self._queries.on_cancel_asked,
            events.StatusAsked: self._queries.on_status_asked,
            events.PointersAsked: self._lookups.ask,
            events.PointerPublished: self._pointer_published,
            events.ProposalAsked: self._intake.propose,
            events.StorageLow: self._storage_low,
            events.LeaveAsked: self._leave,
        }

    def _started(self, event: events.Started) -> None:
        self._membership.start()
        self._probing.start()
        self._visibility.start()
        self._worker.start()
        self._keeper.start()
        self._upkeep.start()
        self._pointers.start()

    def _clock_observed(self, event: events.ClockObserved) -> None:
        jump_ms = event.wall - self._context.wall
        self._context.observe_wall(event.wall)
        self._leadership.on_clock_set(jump_ms)
        if abs(jump_ms) > self._context.limits.clock_skew_ms:
            self._clocks.observed_anew()
            self._context.notice("warning", f"the wall clock jumped by {jump_ms / 1000:.1f} s")

    def _message_received(self, event: events.MessageReceived) -> None:
        admitted = self._context.profile.admitted
        if admitted and event.sender not in admitted:
            self._context.send(
                event.sender,
                JoinRefused(reason="not admitted to this private mesh", wall_ms=self._context.wall),
            )
            self._context.emit(CloseLink(event.sender))
        elif not self.is_banned(event.sender):
            self._deliver(event.sender, event.message)

    def _peer_lost(self, event: events.PeerLost) -> None:
        self._probing.on_peer_lost(event.peer)
        self._worker.on_peer_lost(event.peer)
        self._intake.on_peer_lost(event.peer)
        self._queries.on_peer_lost(event.peer)

    def _fetch_ended(self, fetch: int, failure: str | None) -> None:
        roles = (self._intake, self._holding, self._steward.copies, self._upkeep)
        for role in roles:
            if role.on_fetched(fetch, failure):
                return

    def _pointer_published(self, event: events.PointerPublished) -> None:
        context = self._context
        try:
            opened = self._pointers.open(event.pointer)
            if not isinstance(opened.record, ModelPointer):
                raise RemoteProtocolError("it points to a job")
        except RemoteProtocolError as error:
            refusal = JoinRefused(reason=clipped(f"not a model pointer: {error}"), wall_ms=context.wall)
            context.emit(Reply(event.request, refusal))
            return
        self._pointers.place(opened)
        context.emit(Reply(event.request, PointerStored(pointer=opened.digest)))

    def _storage_low(self, event: events.StorageLow) -> None:
        self._context.storage_low = None if event.reason is None else clipped(event.reason)

    def _leave(self, event: events.LeaveAsked) -> None:
        self._worker.give_back_all("the node is leaving")
        self._membership.leave()

    # -- misbehaviour

    def _misbehaved(self, sender: PeerId, reason: str) -> None:
        """Count it; too much of it within a while, and the peer is left alone for a while."""
        limits, now = self._context.limits, self._context.now
        count, until = self._garbage.pop(sender, (0, now))
        count = count + 1 if now < until else 1
        self._garbage[sender] = (count, after_ms(now, limits.banned_ms))
        if len(self._garbage) > limits.departed_max:
            self._garbage.popitem(last=False)
        self._context.notice("debug", f"not understood: {reason}", peer=sender)
        if count == limits.garbage_max and sender != self._context.me:
            self._context.notice("warning", f"ignored for a while: {reason}", peer=sender)
            self._views.depart(sender)
            self._context.emit(CloseLink(sender))
