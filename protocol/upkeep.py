"""The standing duty of a steward: that a job keeps its holders, and its files their copies. ``docs/specs/record.md``.

Two copies once are not two copies: whoever leaves is replaced, as long as the job runs. Of an ended job its holders
keep the output between them, without a word: the first of those that are there.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.clock import after_ms
from protocol.context import Context
from protocol.decrees import Next
from protocol.effects import FetchBlobs
from protocol.errors import RemoteProtocolError
from protocol.holding import promise_to_keep
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.lead import Lead
from protocol.leadership import Leadership
from protocol.membership import Membership
from protocol.messages import Create, Created, HoldAnswer, HoldRequest
from protocol.record_keeper import RecordKeeper
from protocol.records import Held
from protocol.steward import Steward
from protocol.views import Views
from protocol.wire import Holder, Link

_OUTPUT_COPIES = 2


class Upkeep:
    """Looks after all jobs that this peer leads, and after the outputs of those that have ended."""

    def __init__(
        self,
        context: Context,
        views: Views,
        membership: Membership,
        keeper: RecordKeeper,
        leadership: Leadership,
        steward: Steward,
    ) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._keeper = keeper
        self._leadership = leadership
        self._steward = steward
        self._fetching: dict[int, JobRecord] = {}
        #: Ended jobs to which this peer has pointed, because whoever ended them is gone.
        self._pointed: dict[bytes, None] = {}
        #: Has it known that this peer has a job's record.
        self.on_unfindable: Callable[[JobRecord], None] = lambda record: None
        #: Outputs of ended jobs that are on this disk, or on their way to it.
        self._outputs: dict[bytes, None] = {}

    def start(self) -> None:
        self._context.after_jittered(self._context.limits.repair_ms, self._look_around)

    def has_output(self, job: bytes) -> bool:
        return job in self._outputs

    def _look_around(self) -> None:
        for lead in self._leadership.leads:
            if lead.elected and lead.acting and lead.record.final is None:
                self._look_after_holders(lead)
                self._look_after_files(lead)
        for record in self._keeper.records:
            if record.final is not None:
                self._look_after_output(record)
                self._look_after_pointer(record)
        for jobs in (self._outputs, self._pointed):
            for job in [job for job in jobs if self._keeper.find(job) is None]:
                del jobs[job]
        self._context.after_jittered(self._context.limits.repair_ms, self._look_around)

    # -- holders

    def on_missing(self, lead: Lead, peer: PeerId) -> None:
        """A holder never got the record, or has lost it with its disk: which, its answer tells."""
        self._create_at(lead, peer)

    def _create_at(self, lead: Lead, peer: PeerId) -> None:
        record = lead.record
        self._context.send(peer, Create(spec=record.spec.signed, chain=tuple(record.chain.certificates)))

    def on_created(self, sender: PeerId, message: Created) -> None:
        lead = self._leadership.find(message.job)
        if lead is None or lead.record.final is not None:
            return
        member = lead.members.get(sender)
        if member is not None:
            member.heard_at = self._context.now
            member.forgetful = message.store != lead.record.chain.current.store_of(sender)
        if sender in lead.invited and not message.reason:
            lead.invited[sender] = message.store
            self._propose_invited(lead)

    def _look_after_holders(self, lead: Lead) -> None:
        """Replace who is gone; more holders for a job that began in a mesh too small for them."""
        record, now = lead.record, self._context.now
        silent, holders = lead.silent(now), record.chain.current.holders
        size = self._wanted_size(record)
        if record.chain.full or (not silent and size == len(holders)) or lead.proposer.proposal is not None:
            lead.invited = {}
            return
        if lead.invited and after_ms(lead.invited_at, 2 * self._context.limits.repair_ms) > now:
            return
        missing = size - (len(holders) - len(silent))
        known = [opened.record.peer for opened in self._views.known()]
        staying = [holder.peer for holder in holders if holder.peer not in silent]
        fresh = [peer for peer in known if peer not in staying]
        fresh.sort(key=lambda peer: not self._views.is_active(peer))
        lead.invited = dict.fromkeys(fresh[:missing])
        lead.invited_at = now
        for peer in lead.invited:
            self._create_at(lead, peer)

    def _wanted_size(self, record: JobRecord) -> int:
        """One, three or five: as many as the spec wants, if the mesh has them."""
        wanted = 3 if record.spec.record.durability == 1 else 5
        while wanted > len(self._views) + 1:
            wanted -= 2
        return max(wanted, len(record.chain.current.holders))

    def _propose_invited(self, lead: Lead) -> None:
        """Once all who were asked have the record; who is silent stays a holder if nobody can take its place."""
        if None in lead.invited.values():
            return
        now, current = self._context.now, lead.record.chain.current
        silent = lead.silent(now)
        staying = [
            holder for holder in current.holders if holder.peer not in silent and holder.peer not in lead.invited
        ]
        new = [Holder(peer=peer, store=store) for peer, store in lead.invited.items() if store is not None]
        left = [holder for holder in current.holders if holder.peer in silent and holder.peer not in lead.invited]
        size = self._wanted_size(lead.record)
        holders = (*staying, *new, *left)[:size]
        lead.invited = {}
        if len(holders) % 2 == 1 and holders != current.holders:
            self._leadership.propose_next(lead, Next(holders=holders, steward=self._context.me))

    # -- files

    def _look_after_files(self, lead: Lead) -> None:
        record, me = lead.record, self._context.me
        spec = record.spec.record
        if sum(link.size for link in spec.blobs) > self._context.limits.copy_bytes_max:
            return
        keeping = [peer for peer in record.facts.held if peer == me or peer in self._views]
        if me not in keeping:
            self._fetch_files(record, tuple(dict.fromkeys([*record.facts.held, *record.others])))
        elif len(keeping) < 1 + spec.durability:
            known = [opened.record.peer for opened in self._views.known()]
            others = [peer for peer in dict.fromkeys([*record.others, *known]) if peer in self._views]
            fresh = [peer for peer in others if peer not in keeping]
            if fresh:
                request = HoldRequest(spec=record.spec.signed, sources=(me,), records=(self._membership.own.signed,))
                self._context.send(self._context.rng.choice(fresh), request)

    def _fetch_files(self, record: JobRecord, sources: tuple[PeerId, ...]) -> None:
        if record not in self._fetching.values():
            number = self._context.new_id()
            self._fetching[number] = record
            spec = record.spec.record
            self._context.emit(FetchBlobs(number, spec.blobs, sources[:16], spec.not_after))

    def on_fetched(self, fetch: int, failure: str | None) -> bool:
        """A fetch ended; False if it was not this role's."""
        record = self._fetching.pop(fetch, None)
        if record is None:
            return False
        if record.final is not None:
            if failure is not None:
                self._outputs.pop(record.job, None)
            return True
        lead = self._leadership.find(record.job)
        if failure is None and lead is not None:
            self._steward.note_kept(lead, promise_to_keep(self._context, record.spec))
        return True

    def on_hold_answer(self, sender: PeerId, message: HoldAnswer) -> None:
        lead = self._leadership.find(message.job)
        if lead is None or message.held is None or lead.record.final is not None:
            return
        held = self._context.open(message.held, Held).record
        if held.job != message.job or held.peer != sender:
            raise RemoteProtocolError("a promise that is not the sender's, or not for this job")
        self._steward.note_kept(lead, message.held)

    # -- what has ended

    def _look_after_pointer(self, record: JobRecord) -> None:
        """Whoever ended the job has pointed to it; should that peer, or its disk, be gone, the next holder does."""
        me = self._context.me
        if record.job in self._pointed or record.acceptor is None:
            return
        if record.spec.record.not_after <= self._context.wall:
            return  # a pointer would be out of its time
        ended_by = record.chain.certificates[-1].ballot.peer
        holders = sorted(record.chain.current.holders, key=lambda holder: holder.peer != ended_by)
        there = [holder.peer for holder in holders if holder.peer == me or self._is_there(holder)]
        if there[0] == me:
            self._pointed[record.job] = None
            self.on_unfindable(record)

    def _is_there(self, holder: Holder) -> bool:
        known = self._views.record_of(holder.peer)
        return known is not None and known.record.store == holder.store

    def _look_after_output(self, record: JobRecord) -> None:
        body, me = record.final, self._context.me
        if body is None or body.output is None or record.job in self._outputs:
            return
        here = [peer for peer in record.chain.current.peers if peer == me or peer in self._views]
        if me not in here[:_OUTPUT_COPIES] or body.output.size > self._context.limits.keep_output_bytes_max:
            return
        number, link = self._context.new_id(), Link(cid=body.output.cid, size=body.output.size)
        sources = tuple(peer for peer in dict.fromkeys([*body.keepers, *record.others]) if peer != me)
        self._outputs[record.job] = None
        self._fetching[number] = record
        self._context.emit(FetchBlobs(number, (link,), sources[:16], record.spec.record.not_after, deep=True))
