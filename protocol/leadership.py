"""Leading jobs: being elected, telling the other holders what is new, having them decide. ``docs/specs/record.md``.

A holder that leads a job's register is its steward. Whoever is elected takes the work up from the facts; whoever sees
a higher ballot gives it up. Only two things need a decree: that the job has ended, and that its holders are others.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.clock import after_ms, elapsed_ms
from protocol.context import Context
from protocol.decrees import Certificate, Decree, Final, FinalBody, digest_of
from protocol.errors import RemoteProtocolError
from protocol.facts import AnyFact, key_of
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.lead import Lead, Member
from protocol.limits import FACT_KEY_BYTES
from protocol.messages import (
    Accept,
    AcceptedVote,
    Decided,
    Leads,
    Nack,
    Prepare,
    Promise,
    Renewed,
    RenewedJob,
    UnknownJob,
    WhoLeads,
)
from protocol.periodic import Periodic
from protocol.record_keeper import RecordKeeper
from protocol.records import Vote
from protocol.register import Voted
from protocol.renewing import Renewing
from protocol.wire import Ballot


class Leadership:
    """All jobs that this peer leads, or tries to. The callbacks join it to the work."""

    def __init__(self, context: Context, keeper: RecordKeeper) -> None:
        self._context = context
        self._keeper = keeper
        self._leads: dict[bytes, Lead] = {}
        self._renewing = Renewing(context, self._leads)
        self._ticking = Periodic(context, self._tick, self._pace)
        #: This peer is to look after a job from now on, by a majority's leave or provisionally without.
        self.on_elected: Callable[[Lead], None] = lambda lead: None
        #: Somebody else does.
        self.on_deposed: Callable[[JobRecord], None] = lambda record: None
        #: Other holders knew of these facts about a job that this peer looks after.
        self.on_facts: Callable[[JobRecord, list[AnyFact]], None] = lambda record, facts: None
        #: A job has ended, whoever proposed that.
        self.on_end: Callable[[JobRecord], None] = lambda record: None
        #: It has other holders now.
        self.on_holders: Callable[[JobRecord], None] = lambda record: None
        #: A holder has no record of it.
        self.on_missing: Callable[[Lead, PeerId], None] = lambda lead, peer: None
        keeper.on_silent = self._on_silent
        keeper.on_outranked = self._outranked
        keeper.on_decision = self._on_decision
        keeper.on_merged = self._on_merged
        keeper.on_forgotten = self._on_forgotten
        keeper.is_leading = self._is_leading

    # -- reading

    def find(self, job: bytes) -> Lead | None:
        return self._leads.get(job)

    @property
    def leads(self) -> tuple[Lead, ...]:
        return tuple(self._leads.values())

    def _is_leading(self, job: bytes) -> bool:
        lead = self._leads.get(job)
        return lead is not None and (lead.acting or lead.proposer.owns)

    # -- becoming steward

    def begin(self, record: JobRecord) -> Lead:
        """Epoch 0: this peer is the steward that the configuration names, and has never led it before."""
        current = record.chain.current
        assert current.steward == self._context.me
        lead = Lead(record, current.first_ballot, self._context.limits, self._context.now, owns=True)
        self._add(lead)
        for key in record.facts.keys:
            lead.owe(key)
        record.leader, record.heard_at = lead.ballot, self._context.now
        return lead

    def _add(self, lead: Lead) -> None:
        self._leads[lead.record.job] = lead
        self._ticking.wake()

    def campaign(self, record: JobRecord) -> None:
        """Ask the holders for a higher ballot; a lead that this peer has already goes on meanwhile."""
        highest = max(record.promised, record.leader or record.promised)
        number = record.chain.current.number
        ballot = Ballot(config=number, epoch=highest.epoch + 1, peer=self._context.me)
        if not record.promise(ballot):
            return
        assert record.acceptor is not None
        lead, now = Lead(record, ballot, self._context.limits, self._context.now, owns=False), self._context.now
        before = self._leads.get(record.job)
        if before is not None:
            lead.acting, lead.progress, lead.idle = before.acting, before.progress, before.idle
            lead.wish, lead.bodies = before.wish, before.bodies
            for peer, member in before.members.items():
                if peer in lead.members:
                    lead.members[peer].owed = member.owed
                    lead.members[peer].heard_at = member.heard_at
                    lead.members[peer].offset_ms = member.offset_ms
        self._add(lead)
        record.heard_at = now
        lead.proposer.take_promise(self._context.me, record.acceptor.voted)
        for peer in lead.members:
            self._prepare(lead, peer)
        self._check_elected(lead)

    def _prepare(self, lead: Lead, peer: PeerId) -> None:
        lead.members[peer].asked_at = self._context.now
        record = lead.record
        self._context.send(peer, Prepare(job=record.job, ballot=lead.ballot, known=record.facts.keys))

    def _on_silent(self, record: JobRecord) -> None:
        lead = self._leads.get(record.job)
        if lead is None:
            if record.leader is not None and elapsed_ms(record.heard_at, self._context.now) < 1_000:
                record.progress_at = self._context.now  # heard of, but stuck: not again so soon
                record.stuck_wait_ms *= 2
            self.campaign(record)

    def on_promise(self, sender: PeerId, message: Promise) -> None:
        lead, member = self._member(sender, message.job)
        if lead is None or member is None or message.ballot != lead.ballot:
            return
        if message.store != lead.record.chain.current.store_of(sender):
            member.forgetful = True
            return
        self._heard(member, message.wall_ms, confirmed=True)
        member.promised = True
        for key in message.lacks:
            if key in lead.record.facts:
                member.owed.setdefault(key, None)
        if message.body is not None:
            lead.bodies[digest_of(message.body)] = message.body
        voted = None
        if message.voted_in is not None and message.voted_for is not None:
            voted = Voted(message.voted_in, message.voted_for)
        lead.proposer.take_promise(sender, voted)
        self._learn_from(lead, sender, message.facts)
        member.read = not message.more
        if message.more:
            self._prepare(lead, sender)
        self._check_elected(lead)
        self._renewing.soon()

    def _learn_from(self, lead: Lead, sender: PeerId, facts: tuple[AnyFact, ...]) -> None:
        news = [fact for fact in facts if lead.record.learn(fact)]
        if news:
            self._on_merged(lead.record, sender, news)

    def _on_merged(self, record: JobRecord, sender: PeerId, news: list[AnyFact]) -> None:
        """Another holder knew more: also one that takes itself for the steward still."""
        lead = self._leads.get(record.job)
        if lead is None:
            return
        for fact in news:
            lead.owe(key_of(fact), besides=sender)
        if lead.acting:
            self.on_facts(record, news)

    def _check_elected(self, lead: Lead) -> None:
        if not lead.elected:
            return
        record = lead.record
        record.leader, record.heard_at = lead.ballot, self._context.now
        if lead.proposer.proposal is None and (forced := lead.proposer.forced) is not None:
            self._propose(lead, forced)
        if self._leads.get(record.job) is lead and record.final is None:
            if lead.acting:
                self._push(lead)
            else:
                self._act(lead)

    def _act(self, lead: Lead) -> None:
        lead.acting = True
        self.on_elected(lead)

    # -- giving up

    def on_nack(self, sender: PeerId, message: Nack) -> None:
        lead, member = self._member(sender, message.job)
        if lead is None or member is None or lead.record.final is not None:
            return
        member.heard_at = self._context.now
        if message.ballot.config < lead.ballot.config:
            self._tell_decisions(sender, lead.record)
        elif message.ballot > lead.ballot:
            self._outranked(lead.record, message.ballot)
        elif not lead.elected and message.ballot.peer != self._context.me:
            self._depose(lead)  # there is a steward, which that holder hears, and this peer does not

    def _outranked(self, record: JobRecord, ballot: Ballot) -> None:
        """A holder has promised a higher ballot. Whoever still has a majority takes an even higher one."""
        lead = self._leads.get(record.job)
        if lead is None or record.final is not None or ballot.config != lead.ballot.config or ballot <= lead.ballot:
            return
        if lead.elected and lead.is_confirmed(self._context.now) and record.promised <= lead.ballot:
            record.leader = max(record.leader or ballot, ballot)
            self.campaign(record)
        else:
            self._depose(lead)

    def _depose(self, lead: Lead) -> None:
        record = lead.record
        del self._leads[record.job]
        record.leader, record.heard_at = None, self._context.now
        record.progress_at = self._context.now
        if lead.acting:
            self.on_deposed(record)

    def _on_forgotten(self, record: JobRecord) -> None:
        lead = self._leads.pop(record.job, None)
        if lead is not None and lead.acting:
            self.on_deposed(record)

    def on_leads(self, sender: PeerId, message: Leads) -> None:
        """An answer to a steward that had heard nothing for a while."""
        lead, member = self._member(sender, message.job)
        if lead is not None and member is not None and lead.record.final is None:
            member.heard_at = self._context.now
            if message.ballot is None or message.ballot.config > lead.ballot.config:
                self._keeper.take_decisions(lead.record, Decided(job=message.job, chain=message.chain))
            elif message.ballot > lead.ballot:
                self._outranked(lead.record, message.ballot)

    def on_unknown(self, sender: PeerId, message: UnknownJob) -> None:
        """A holder that has no record of the job never got it, or has lost it with its disk."""
        lead, member = self._member(sender, message.job)
        if lead is not None and member is not None:
            member.heard_at = self._context.now
            self.on_missing(lead, sender)

    def abandon(self, lead: Lead) -> None:
        """Nobody else has the record of this job: it is as if it had never been handed in."""
        del self._leads[lead.record.job]
        self._keeper.abandon(lead.record)

    # -- facts

    def learn(self, lead: Lead, fact: AnyFact) -> None:
        """Something that this steward did, or took notice of: kept, and soon known to the other holders."""
        if lead.record.learn(fact):
            lead.progress += 1
            lead.owe(key_of(fact))
            self._renewing.soon()

    def on_renewed(self, sender: PeerId, message: Renewed) -> None:
        for answer in message.jobs:
            lead, member = self._member(sender, answer.job)
            if lead is not None and member is not None:
                self._take_renewed(lead, sender, member, answer, message)

    def _take_renewed(self, lead: Lead, sender: PeerId, member: Member, answer: RenewedJob, message: Renewed) -> None:
        record = lead.record
        if message.store != record.chain.current.store_of(sender):
            member.forgetful = True
            return
        self._heard(member, message.wall_ms, confirmed=answer.ballot <= lead.ballot)
        for key in answer.got:
            member.owed.pop(key, None)
        same = not member.owed and answer.mark == record.facts.mark.to_bytes(FACT_KEY_BYTES, "big")
        if record.final is not None:
            member.closed = member.closed or same
        elif answer.ballot.config < lead.ballot.config:
            self._tell_decisions(sender, record)
        elif answer.ballot > lead.ballot:
            self._outranked(record, answer.ballot)
        elif same:
            member.read = True
        elif not member.owed:
            member.read = False
            limit = self._context.limits.suspect_ms
            if member.asked_at is None or after_ms(member.asked_at, limit) <= self._context.now:
                self._prepare(lead, sender)  # it knows something, from elsewhere

    def _heard(self, member: Member, wall_ms: int, *, confirmed: bool) -> None:
        member.heard_at = self._context.now
        member.offset_ms = wall_ms - self._context.wall
        if confirmed:
            member.confirmed_at = self._context.now

    def _member(self, sender: PeerId, job: bytes) -> tuple[Lead | None, Member | None]:
        lead = self._leads.get(job)
        return lead, lead.members.get(sender) if lead is not None else None

    # -- deciding

    def wall(self, lead: Lead) -> int | None:
        """The median of a majority's clocks now; None if no majority has said what it is."""
        offset = lead.median_offset_ms()
        return None if offset is None else max(0, self._context.wall + offset)

    def on_clock_set(self, jump_ms: int) -> None:
        """This peer's clock was set: what the others' are off by is told from where it was."""
        for lead in self._leads.values():
            for member in lead.members.values():
                if member.offset_ms is not None:
                    member.offset_ms -= jump_ms

    def propose_end(self, lead: Lead, body: FinalBody) -> None:
        """Have the holders decide that the job has ended so, as soon as they can; the first wish of a steward stays.

        They are asked now, and again at each renewal: not whenever a connection to one of them is refused.
        """
        if lead.wish is None:
            lead.wish = body
            self._push(lead)

    def propose_next(self, lead: Lead, decree: Decree) -> None:
        """Have the holders decide who is to hold the record; not while the job's end is being decided."""
        if lead.elected and lead.proposer.proposal is None and lead.wish is None:
            self._propose(lead, decree)

    def _push(self, lead: Lead) -> None:
        """Go on with what is being decided."""
        if not lead.elected or lead.record.final is not None:
            return
        if lead.proposer.proposal is not None:
            self._propose(lead, lead.proposer.proposal)
        elif lead.wish is not None:
            self._propose(lead, Final(body=digest_of(lead.wish)))

    def _propose(self, lead: Lead, wished: Decree) -> None:
        """Vote for this ballot's value, then ask the others to; its own vote is on disk before anybody is asked."""
        record = lead.record
        decree = lead.proposer.propose(wished)
        body = lead.body_for(decree)
        if self._context.me not in lead.proposer.votes:
            if isinstance(decree, Final) and (body is None or self._keeper.flaw_of(record, body) is not None):
                return  # what it rests on is still to be read from whoever voted for it
            vote = record.vote(lead.ballot, decree, body)
            if vote is None:
                self._depose(lead)
                return
            if lead.proposer.take_vote(self._context.me, vote.signed):
                self._decide(lead, decree)
                return
        self._renewing.send([lead])  # what the decree rests on goes first
        for peer in lead.members:
            if peer not in lead.proposer.votes:
                self._context.send(peer, Accept(job=record.job, ballot=lead.ballot, decree=decree, body=body))

    def on_accepted(self, sender: PeerId, message: AcceptedVote) -> None:
        vote = self._context.open(message.vote, Vote).record
        lead, member = self._member(sender, vote.job)
        if lead is None or member is None or lead.record.final is not None or vote.ballot != lead.ballot:
            return
        decree = lead.proposer.proposal
        if decree is None or vote.peer != sender or vote.decree != digest_of(decree):
            raise RemoteProtocolError("a vote that is not the sender's, or for what nobody proposed")
        if vote.store != lead.record.chain.current.store_of(sender):
            member.forgetful = True
        elif lead.proposer.take_vote(sender, message.vote):
            self._decide(lead, decree)

    def _decide(self, lead: Lead, decree: Decree) -> None:
        votes = tuple(lead.proposer.votes.values())
        certificate = Certificate(ballot=lead.ballot, decree=decree, votes=votes)
        grew = lead.record.extend((certificate,), lead.body_for(decree))
        assert grew, "a majority's votes are a certificate"
        self._keeper.note_decision(lead.record)

    def _on_decision(self, record: JobRecord) -> None:
        """The holders have decided. Whoever led the vote tells everybody."""
        lead = self._leads.get(record.job)
        current = record.chain.current
        if record.final is not None:
            if lead is not None:
                lead.closing_since = self._context.now
                ever = [peer for one in record.chain.configurations for peer in one.peers]
                for peer in dict.fromkeys(ever):
                    if peer != self._context.me:
                        self._tell_decisions(peer, record)
            self.on_end(record)
        elif lead is not None:
            decided_here = lead.ballot.config == current.number - 1 and len(lead.proposer.votes) >= lead.needed
            if decided_here and current.steward == self._context.me and record.acceptor is not None:
                self._lead_on(lead)
            else:
                self._depose(lead)
                if decided_here:  # others lead from now on, and have to know
                    for peer in dict.fromkeys([*lead.members, *record.others]):
                        self._tell_decisions(peer, record)

    def _lead_on(self, before: Lead) -> None:
        """The same steward, with other holders."""
        record, told = before.record, list(before.members)
        lead = self.begin(record)
        lead.acting, lead.progress, lead.idle = before.acting, before.progress, before.idle
        for peer, member in before.members.items():
            if peer in lead.members:
                lead.members[peer] = member
                member.read = False
        for peer in dict.fromkeys([*told, *lead.members]):
            self._tell_decisions(peer, record)
        self._context.notice("info", "the job's record has other holders now", job=record.job)
        self.on_holders(record)
        self._renewing.soon()

    def _tell_decisions(self, to: PeerId, record: JobRecord) -> None:
        chain = tuple(record.chain.certificates)
        self._context.send(to, Decided(job=record.job, chain=chain, body=record.final))

    # -- time

    def _pace(self) -> int | None:
        return self._context.limits.renew_interval_ms if self._leads else None

    def _tick(self) -> None:
        """Renew, and repeat what was not answered."""
        now, renewed = self._context.now, []
        for lead in list(self._leads.values()):
            if lead.closing_since is not None:
                self._close(lead)
                renewed.append(lead)
            elif not lead.elected:
                self._go_on_campaigning(lead)
            elif lead.is_deaf(now):
                for peer in lead.members:
                    self._context.send(peer, WhoLeads(job=lead.record.job))
            else:
                lead.record.leader, lead.record.heard_at = lead.ballot, now
                lead.record.progress_at = now
                if not lead.proposer.owns:
                    self._ask_again(lead)
                self._push(lead)
                renewed.append(lead)
        self._renewing.send([lead for lead in renewed if self._leads.get(lead.record.job) is lead])

    def _close(self, lead: Lead) -> None:
        """The job has ended; the other holders are told until they know it, or are away for too long."""
        assert lead.closing_since is not None
        waiting = [peer for peer, member in lead.members.items() if not member.closed]
        if not waiting or after_ms(lead.closing_since, 2 * self._context.limits.replace_ms) <= self._context.now:
            del self._leads[lead.record.job]
            return
        for peer in waiting:
            self._tell_decisions(peer, lead.record)

    def _go_on_campaigning(self, lead: Lead) -> None:
        lead.record.heard_at = self._context.now
        self._ask_again(lead)
        if not lead.acting and after_ms(lead.began, self._context.limits.campaign_timeout_ms) <= self._context.now:
            why = "no majority of the job's holders answers: going on provisionally"
            self._context.notice("info", why, job=lead.record.job)
            self._act(lead)

    def _ask_again(self, lead: Lead) -> None:
        for peer, member in lead.members.items():
            if not member.promised and not member.forgetful:
                self._prepare(lead, peer)
