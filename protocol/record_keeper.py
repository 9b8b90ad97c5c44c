"""A peer as holder of jobs' records: it keeps them, votes, and notices when a steward falls silent.

What it promises and votes is in the journal before it says so. It consults no clock to judge a decree. Who looks after
a job is ``leadership``'s concern; this role tells it what it hears.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from protocol.chain import can_hold
from protocol.clock import after_ms, elapsed_ms
from protocol.clock_check import ClockCheck
from protocol.context import Context, clipped
from protocol.decrees import Final, FinalBody, digest_of
from protocol.durable import Table, Tombstone
from protocol.ending import flaw_of
from protocol.errors import RemoteProtocolError
from protocol.facts import AnyFact, Counted, Gave, in_portions, key_of
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.limits import FACT_KEY_BYTES
from protocol.messages import (
    Accept,
    AcceptedVote,
    Create,
    Created,
    Decided,
    Leads,
    Nack,
    Prepare,
    Promise,
    Renew,
    Renewal,
    Renewed,
    RenewedJob,
    UnknownJob,
    WhoLeads,
)
from protocol.periodic import Periodic
from protocol.records import JobSpec
from protocol.signing import Opened, Signed
from protocol.wire import Ballot

_TOMBSTONES_AT_ONCE = 16
_BURIED_MS = 3_600_000
"""A tombstone stands so much longer than the job's time lasts."""


class RecordKeeper:
    """All records of this peer. The callbacks are told what happened to one."""

    def __init__(self, context: Context, clocks: ClockCheck) -> None:
        self._context = context
        self._clocks = clocks
        self._records: OrderedDict[bytes, JobRecord] = OrderedDict()
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._ended_bytes = 0
        self._tombstones: OrderedDict[bytes, int] = OrderedDict()
        self._watching = Periodic(context, self._watch, self._pace)
        #: Its steward has not been heard of for too long.
        self.on_silent: Callable[[JobRecord], None] = lambda record: None
        #: Another holder has a higher ballot.
        self.on_outranked: Callable[[JobRecord, Ballot], None] = lambda record, ballot: None
        #: The holders have decided something that was news here: other holders, or the end.
        self.on_decision: Callable[[JobRecord], None] = lambda record: None
        #: Whether this peer is its steward at present.
        self.is_leading: Callable[[bytes], bool] = lambda job: False
        #: Facts that this peer's own steward did not tell: say, of a holder who takes itself for the steward.
        self.on_merged: Callable[[JobRecord, PeerId, list[AnyFact]], None] = lambda record, sender, news: None
        #: There is no record of it here any more.
        self.on_forgotten: Callable[[JobRecord], None] = lambda record: None

    # -- reading

    def __len__(self) -> int:
        return len(self._records)

    def find(self, job: bytes) -> JobRecord | None:
        return self._records.get(job)

    @property
    def records(self) -> tuple[JobRecord, ...]:
        return tuple(self._records.values())

    def relied_on(self) -> Iterator[PeerId]:
        """The holders of jobs that run, and who has promised to keep their files."""
        for record in self._records.values():
            if record.final is None:
                yield from record.chain.current.peers
                yield from record.facts.held

    @property
    def tombstone_count(self) -> int:
        return len(self._tombstones)

    @property
    def ended_bytes(self) -> int:
        return self._ended_bytes

    # -- keeping

    def start(self) -> None:
        for record in self._records.values():
            record.heard_at = record.progress_at = self._context.now
        self._watching.wake()

    def restore(self, record: JobRecord) -> None:
        self._records[record.job] = record
        if record.final is not None:
            self._note_ended(record)

    def restore_tombstone(self, job: bytes, tombstone: Tombstone) -> None:
        self._tombstones[job] = tombstone.not_after

    def create(self, spec: Opened[JobSpec]) -> JobRecord:
        """This peer's own record of a job that it takes in."""
        record = JobRecord.create(self._context, spec)
        self._add(record)
        return record

    def _add(self, record: JobRecord) -> None:
        self._records[record.job] = record
        self._watching.wake()

    def abandon(self, record: JobRecord) -> None:
        """A job that was not taken in after all, and that nobody else has."""
        self._forget(record)

    def refuses(self, spec: Opened[JobSpec]) -> str | None:
        """Why no new record of this job is made here."""
        limits, wall, record = self._context.limits, self._context.wall, spec.record
        if record.mesh != self._context.profile.mesh:
            return f"the job is for mesh {record.mesh!r}, this is {self._context.profile.mesh!r}"
        if record.issued_at > wall + limits.clock_skew_ms:
            return f"the job is dated {(record.issued_at - wall) // 1000} s in the future: check the clocks"
        if record.not_after <= wall:
            return "the job has expired"
        if record.not_after > wall + limits.clock_skew_ms + 2 * limits.retention_ms:
            return f"the job would be kept for more than {2 * limits.retention_ms // 3_600_000} h"
        if len(record.holders) % 2 == 0:
            return "a job's record has one, three or five holders"
        if spec.digest in self._tombstones:
            return "the job has ended, and its record was forgotten"
        if (
            len(self._records) - len(self._ended) >= limits.records_max
            or len(self._tombstones) >= limits.tombstones_max
        ):
            return "this node keeps as many jobs as it can"
        return self._clocks.wrong() or self._context.profile.policy.refuses_job(record) or self._context.storage_low

    def on_create(self, sender: PeerId, message: Create) -> None:
        spec = self._context.open(message.spec, JobSpec)
        record = self._records.get(spec.digest)
        reason = None if record is not None else self.refuses(spec)
        if reason is None and record is not None:
            self.take_decisions(record, Decided(job=spec.digest, chain=message.chain))
        elif reason is None:
            record = JobRecord.create(self._context, spec, message.chain)
            if not record.chain.has_held(sender):
                record.forget()
                raise RemoteProtocolError("a record by somebody that does not hold the job")
            self._add(record)
        store = self._context.profile.store
        self._context.send(sender, Created(job=spec.digest, store=store, reason=clipped(reason or "")))

    def take_decisions(self, record: JobRecord, decided: Decided) -> bool:
        """Take in what the holders have decided; whether it was news. Raises RemoteProtocolError."""
        if not record.extend(decided.chain, decided.body):
            return False
        self.note_decision(record)
        return True

    def note_decision(self, record: JobRecord) -> None:
        record.leader = None
        record.heard_at = self._context.now
        if record.final is not None:
            self._note_ended(record)
        self.on_decision(record)

    def _note_ended(self, record: JobRecord) -> None:
        self._ended[record.job] = None
        self._ended_bytes += record.facts.bytes

    # -- the register

    def on_prepare(self, sender: PeerId, message: Prepare) -> None:
        record = self._addressed(sender, message.job)
        if record is None:
            return
        ballot = message.ballot
        if ballot.peer != sender:
            raise RemoteProtocolError("a ballot of somebody else")
        if record.final is not None or ballot.config < record.chain.current.number:
            self._tell_decisions(sender, record)
            if record.final is not None:
                self._tell_facts(sender, record, message.known)
            return
        before = record.promised
        if self._leader_lives(record, ballot) or not record.promise(ballot):
            self._context.send(sender, Nack(job=record.job, ballot=record.promised))
            return
        record.heard_at = self._context.now
        if ballot > before:
            self.on_outranked(record, ballot)
        self._context.send(sender, self._promise(record, message))

    def _leader_lives(self, record: JobRecord, ballot: Ballot) -> bool:
        """A steward that is heard of here needs no successor, whoever does not hear it. Refusing is always safe."""
        leader, limits = record.leader, self._context.limits
        if leader is None or leader.config != ballot.config or leader.peer == ballot.peer:
            return False
        silent_ms = elapsed_ms(record.heard_at, self._context.now)
        return silent_ms * 4 < limits.suspect_ms * 3 and not self._is_stuck(record)

    def _promise(self, record: JobRecord, message: Prepare) -> Promise:
        assert record.acceptor is not None
        voted = record.acceptor.voted
        known = dict.fromkeys(message.known)
        news = [fact for key in record.facts.keys if key not in known and (fact := record.facts.get(key)) is not None]
        portions = list(in_portions(news))
        return Promise(
            job=record.job,
            ballot=message.ballot,
            store=self._context.profile.store,
            voted_in=voted.ballot if voted is not None else None,
            voted_for=voted.decree if voted is not None else None,
            body=record.body if voted is not None and isinstance(voted.decree, Final) else None,
            facts=portions[0] if portions else (),
            more=len(portions) > 1,
            lacks=tuple(key for key in known if key not in record.facts),
            wall_ms=self._context.wall,
        )

    def on_accept(self, sender: PeerId, message: Accept) -> None:
        record = self._addressed(sender, message.job)
        if record is None:
            return
        ballot, decree, body = message.ballot, message.decree, message.body
        if ballot.peer != sender:
            raise RemoteProtocolError("a ballot of somebody else")
        if record.final is not None or ballot.config < record.chain.current.number:
            self._tell_decisions(sender, record)
            return
        if not isinstance(decree, Final):
            if not can_hold(decree):
                raise RemoteProtocolError("holders that cannot be")
        else:
            if body is None or digest_of(body) != decree.body:
                raise RemoteProtocolError("an end without its body")
            flaw = self.flaw_of(record, body)
            if flaw is not None:
                self._context.notice("debug", f"not voted for an end: {flaw}", peer=sender, job=record.job)
                self._send_renewed(sender, [self._renewed(record)])
                return
        before = record.promised
        vote = record.vote(ballot, decree, body)
        if vote is None:
            self._context.send(sender, Nack(job=record.job, ballot=record.promised))
            return
        record.leader, record.heard_at = ballot, self._context.now
        if ballot > before:
            self.on_outranked(record, ballot)
        self._context.send(sender, AcceptedVote(vote=vote.signed))

    def flaw_of(self, record: JobRecord, body: FinalBody) -> str | None:
        """Why this holder does not vote for such an end of the job; None if it may."""
        return flaw_of(body, record.spec, record.facts)

    def on_decided(self, sender: PeerId, message: Decided) -> None:
        record = self._records.get(message.job)
        if record is not None:
            self.take_decisions(record, message)
            if record.final is not None:
                self._send_renewed(sender, [self._renewed(record)])

    def _addressed(self, sender: PeerId, job: bytes) -> JobRecord | None:
        """The record that a holder's message is about; None, and it is told, if there is none here."""
        record = self._records.get(job)
        if record is None:
            self._context.send(sender, UnknownJob(job=job))
        elif not record.chain.has_held(sender):  # of other holders, perhaps, that this one has not heard of yet
            self._context.send(sender, Nack(job=record.job, ballot=record.promised))
            return None
        elif record.final is None and record.chain.current.store_of(sender) is None:
            self._tell_decisions(sender, record)  # it is no holder any more, and may not have heard
            return None
        return record

    def _tell_decisions(self, to: PeerId, record: JobRecord) -> None:
        chain = tuple(record.chain.certificates)
        self._context.send(to, Decided(job=record.job, chain=chain, body=record.final))

    def _tell_facts(self, to: PeerId, record: JobRecord, known: tuple[bytes, ...]) -> None:
        """What another holder of an ended job asks for, to show what counted."""
        asked = dict.fromkeys(known)
        for portion in in_portions([fact for key, fact in record.facts.items() if key not in asked]):
            renewal = Renewal(job=record.job, ballot=record.promised, progress=0, facts=portion)
            self._context.send(to, Renew(renewals=(renewal,)))

    # -- renewals

    def on_renew(self, sender: PeerId, message: Renew) -> None:
        answers = []
        for renewal in message.renewals:
            record = self._records.get(renewal.job)
            if record is None:
                self._context.send(sender, UnknownJob(job=renewal.job))
                continue
            if not record.chain.has_held(sender):  # as far as is known here: told how far that is, it says more
                answers.append(self._renewed(record))
                continue
            acts = self._acts(record, sender, renewal.ballot)
            news = self._merge(record, renewal.facts)
            if news and not acts:
                self.on_merged(record, sender, news)
            if record.final is not None:
                self._tell_decisions(sender, record)
            elif acts:
                self._note_alive(record, renewal)
            answers.append(self._renewed(record, got=tuple(key_of(fact) for fact in renewal.facts)))
        if answers:
            self._send_renewed(sender, answers)

    def _acts(self, record: JobRecord, sender: PeerId, ballot: Ballot) -> bool:
        """Whether a renewal is by the steward of the highest ballot that is known here."""
        return ballot.peer == sender and ballot.config == record.promised.config and ballot >= record.promised

    def _note_alive(self, record: JobRecord, renewal: Renewal) -> None:
        if record.leader is not None and renewal.ballot < record.leader:
            return
        record.leader, record.heard_at = renewal.ballot, self._context.now
        if renewal.progress != record.progress or not renewal.idle:
            record.progress, record.progress_at = renewal.progress, self._context.now

    def _merge(self, record: JobRecord, facts: tuple[AnyFact, ...]) -> list[AnyFact]:
        """Learn facts; those that were not known."""
        before = record.facts.bytes
        news = [fact for fact in facts if record.learn(fact)]
        if record.job in self._ended:
            self._ended_bytes += record.facts.bytes - before
        return news

    def _renewed(self, record: JobRecord, got: tuple[bytes, ...] = ()) -> RenewedJob:
        mark = record.facts.mark.to_bytes(FACT_KEY_BYTES, "big")
        return RenewedJob(job=record.job, ballot=record.promised, got=got, mark=mark)

    def _send_renewed(self, to: PeerId, answers: list[RenewedJob]) -> None:
        store, wall = self._context.profile.store, self._context.wall
        self._context.send(to, Renewed(jobs=tuple(answers), store=store, wall_ms=wall))

    def on_who_leads(self, sender: PeerId, message: WhoLeads) -> None:
        self.answer_worker(sender, message.job)

    def answer_worker(self, to: PeerId, job: bytes) -> None:
        """Whoever has something to deliver to a job's steward is told how it ended, or who that is.

        A ballot of this peer's own that it does not lead, as after a restart, names nobody: a worker that took it for a
        steward would wait for it, and ask no other holder.
        """
        record = self._records.get(job)
        if record is None:
            self._context.send(to, UnknownJob(job=job))
        elif record.final is not None:
            self._tell_decisions(to, record)
        else:
            ballot: Ballot | None = max(record.leader or record.promised, record.promised)
            if ballot is not None and ballot.peer == self._context.me and not self.is_leading(job):
                ballot = None
            self._context.send(to, Leads(job=record.job, ballot=ballot, chain=tuple(record.chain.certificates)))

    def learn_signed(self, record: JobRecord, awards: tuple[Signed, ...], receipts: tuple[Signed, ...]) -> None:
        """What a worker hands in to a holder that is not the steward; the worker is told who is, and goes there."""
        for award in awards:
            record.learn(Gave(award=award))
        for receipt in receipts:
            record.learn(Counted(receipt=receipt))

    # -- time

    def _watch(self) -> None:
        """Silent stewards, ended jobs past their time, and what an ended job still lacks."""
        for record in list(self._records.values()):
            if self._is_over(record):
                self._bury(record)
            elif record.final is None and record.acceptor is not None:
                if self._is_silent(record) or self._is_stuck(record):
                    self.on_silent(record)
            elif record.final is not None and not record.complete:
                self._ask_for_facts(record)
            elif record.final is None and self._is_stranger(record):
                self._forget(record)  # it has promised nothing
        self._make_room()

    def _pace(self) -> int | None:
        """Ended jobs are only kept until their time is over."""
        limits = self._context.limits
        if any(not self._is_settled(record) for record in self._records.values()):
            return limits.renew_interval_ms
        return limits.settled_watch_ms if self._records or self._tombstones else None

    def _is_settled(self, record: JobRecord) -> bool:
        return record.final is not None and record.over_since is None and record.complete

    def _is_silent(self, record: JobRecord) -> bool:
        limits, peers = self._context.limits, record.chain.current.peers
        wait_ms = limits.suspect_ms + limits.suspect_step_ms * peers.index(self._context.me)
        return after_ms(record.heard_at, wait_ms) <= self._context.now

    def _is_stuck(self, record: JobRecord) -> bool:
        return after_ms(record.progress_at, record.stuck_wait_ms) <= self._context.now

    def _is_over(self, record: JobRecord) -> bool:
        """Whether nobody may begin this job anew, so that what was promised about it can be forgotten.

        A clock that is wrong for a moment must not make it so: time has to have been up for a while.
        """
        limits, now = self._context.limits, self._context.now
        if record.spec.record.not_after + 2 * limits.clock_skew_ms >= self._context.wall or self._clocks.wrong():
            record.over_since = None
            return False
        if record.over_since is None:
            record.over_since = now
        return after_ms(record.over_since, limits.clock_skew_ms) <= now

    def _is_stranger(self, record: JobRecord) -> bool:
        """A record of a job whose holders took somebody else after all, or that this peer's new disk does not know."""
        return (
            not record.was_holder
            and after_ms(record.heard_at, 4 * self._context.limits.replace_ms) <= self._context.now
        )

    def _ask_for_facts(self, record: JobRecord) -> None:
        if record.others and elapsed_ms(record.heard_at, self._context.now) >= self._context.limits.suspect_ms:
            record.heard_at = self._context.now
            peer = self._context.rng.choice(record.others)
            ballot = Ballot(config=record.promised.config, epoch=record.promised.epoch, peer=self._context.me)
            self._context.send(peer, Prepare(job=record.job, ballot=ballot, known=record.facts.keys))

    def _make_room(self) -> None:
        """The oldest ended job is forgotten first, and leaves a tombstone: nobody shall begin it anew."""
        limits = self._context.limits
        while self._ended and (self._ended_bytes > limits.finished_bytes_max or len(self._ended) > limits.jobs_max):
            self._bury(self._records[next(iter(self._ended))])
        for job, not_after in list(self._tombstones.items())[:_TOMBSTONES_AT_ONCE]:
            if not_after < self._context.wall and self._clocks.wrong() is None:
                del self._tombstones[job]
                self._context.record(Table.TOMBSTONE, job, None)

    def _bury(self, record: JobRecord) -> None:
        """Forget a record, but not that there was one."""
        limits = self._context.limits
        not_after = record.spec.record.not_after + _BURIED_MS + 2 * limits.clock_skew_ms
        self._tombstones[record.job] = not_after
        self._context.record(Table.TOMBSTONE, record.job, Tombstone(not_after=not_after))
        self._forget(record)

    def _forget(self, record: JobRecord) -> None:
        if record.job in self._ended:
            del self._ended[record.job]
            self._ended_bytes -= record.facts.bytes
        del self._records[record.job]
        self.on_forgotten(record)
        record.forget()
