"""The record of one job at one of its holders: spec, chain, its part in the register, facts. All of it is journalled.

Each change is written down as it is made, so that no answer leaves before what it rests on is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from protocol.chain import Chain
from protocol.clock import Instant
from protocol.context import Context
from protocol.decrees import Certificate, Decree, Final, FinalBody, digest_of
from protocol.durable import JobRow, RegisterRow, Table, fact_key
from protocol.facts import AnyFact, key_of
from protocol.identity import PeerId
from protocol.known_facts import KnownFacts
from protocol.records import JobSpec, Vote
from protocol.register import Acceptor, Voted
from protocol.signing import Opened
from protocol.wire import Ballot, FactKey


class JobRecord:
    """Made by ``create`` or ``restore``."""

    def __init__(self, context: Context, spec: Opened[JobSpec]) -> None:
        self._context = context
        self.spec = spec
        self.chain = Chain(spec, partial(context.open, kind=Vote))
        self.facts = KnownFacts(context, spec, self.chain)
        #: This holder's part in the current register; None if it is no holder now, or was one with another disk.
        self.acceptor: Acceptor | None = None
        #: How the job ended, or would by this holder's latest vote.
        self.body: FinalBody | None = None
        self._complete = False
        self._numbers: dict[FactKey, int] = {}
        self._next_number = 0
        # not kept: who is steward, as far as this holder has heard
        self.leader: Ballot | None = None
        self.heard_at = context.now
        self.progress = -1
        self.progress_at = context.now
        #: Since when its time has been over, by this node's clock.
        self.over_since: Instant | None = None
        self.stuck_wait_ms = context.limits.stuck_ms

    @classmethod
    def create(cls, context: Context, spec: Opened[JobSpec], chain: Iterable[Certificate] = ()) -> JobRecord:
        """A new record, in the journal. Raises RemoteProtocolError for a chain that does not hold."""
        record = cls(context, spec)
        record.chain.extend(one for one in chain if not isinstance(one.decree, Final))  # an end comes with its body
        record._join()
        context.record(Table.JOB, spec.digest, JobRow(spec=spec.signed))
        record._save()
        return record

    @classmethod
    def restore(
        cls, context: Context, row: JobRow, register: RegisterRow, facts: list[tuple[int, AnyFact]]
    ) -> JobRecord:
        record = cls(context, context.open(row.spec, JobSpec))
        record.chain.extend(register.chain)
        record.body = register.body
        record._join()
        if record.acceptor is not None and register.promised.config == record.acceptor.promised.config:
            record.acceptor.promised = register.promised
            if register.voted_in is not None and register.voted_for is not None:
                record.acceptor.voted = Voted(register.voted_in, register.voted_for)
        for number, fact in facts:
            record.facts.add(fact)
            record._numbers[key_of(fact)] = number
            record._next_number = number + 1
        return record

    @property
    def job(self) -> bytes:
        return self.spec.digest

    @property
    def me(self) -> PeerId:
        return self._context.me

    @property
    def others(self) -> tuple[PeerId, ...]:
        """The other holders of the current configuration."""
        return tuple(peer for peer in self.chain.current.peers if peer != self._context.me)

    @property
    def final(self) -> FinalBody | None:
        """How the job has ended; None if that is not decided, as far as this holder knows."""
        return self.body if self.chain.final is not None else None

    @property
    def complete(self) -> bool:
        """Whether this holder can show what counted in a job that has ended."""
        assert self.body is not None
        if not self._complete:
            known = self.facts.receipts
            has_all = all(entry.receipt is None or entry.receipt in known for entry in self.body.entries)
            self._complete = has_all and self.final is not None
            return has_all
        return True

    @property
    def was_holder(self) -> bool:
        """Whether this peer, with the disk that it has, is or was a holder: then it may have promised or voted."""
        me, store = self._context.me, self._context.profile.store
        return any(one.store_of(me) == store for one in self.chain.configurations)

    @property
    def promised(self) -> Ballot:
        """The highest ballot that this holder knows to matter in the current configuration."""
        return self.acceptor.promised if self.acceptor is not None else self.chain.current.first_ballot

    # -- what must not be forgotten

    def promise(self, ballot: Ballot) -> bool:
        """Take part in no lower ballot; False if a higher one was promised, or this is no holder."""
        if self.acceptor is None:
            return False
        before = self.acceptor.promised
        if not self.acceptor.promise(ballot):
            return False
        if ballot != before:
            self._save()
        return True

    def vote(self, ballot: Ballot, decree: Decree, body: FinalBody | None) -> Opened[Vote] | None:
        """Vote for a decree, for an end with its body; None if an earlier promise or vote forbids it."""
        acceptor = self.acceptor
        if acceptor is None or not acceptor.vote(ballot, decree):
            return None
        if isinstance(decree, Final):
            assert body is not None
            assert digest_of(body) == decree.body
            self.body = body
        self._save()
        return self._context.sign(
            Vote(
                job=self.job,
                ballot=ballot,
                decree=digest_of(decree),
                peer=self._context.me,
                store=self._context.profile.store,
            )
        )

    def extend(self, certificates: Iterable[Certificate], body: FinalBody | None = None) -> bool:
        """Take in decisions that are news here; whether there were any.

        The end of a job is taken in with its body only. Raises RemoteProtocolError for a certificate that is none.
        """
        usable = []
        for certificate in certificates:
            if isinstance(certificate.decree, Final):
                ours = next(
                    (one for one in (body, self.body) if one and digest_of(one) == certificate.decree.body), None
                )
                if ours is None:
                    break
                body = ours
            usable.append(certificate)
        if not self.chain.extend(usable):
            return False
        if self.chain.final is not None:
            self.body = body
        else:
            self._join()
        self._save()
        return True

    def learn(self, fact: AnyFact) -> bool:
        """Take in a fact; False if it is none that this holder needed to hear."""
        replaced = self.facts.add(fact)
        if replaced is None:
            return False
        key = key_of(fact)
        self._numbers[key] = self._next_number
        self._context.record(Table.FACT, fact_key(self.job, self._next_number), fact)
        self._next_number += 1
        for old in replaced:
            number = self._numbers.pop(key_of(old))
            self._context.record(Table.FACT, fact_key(self.job, number), None)
        return True

    def forget(self) -> None:
        """All of it, from the journal too."""
        self._context.record(Table.JOB, self.job, None)
        self._context.record(Table.REGISTER, self.job, None)
        for number in self._numbers.values():
            self._context.record(Table.FACT, fact_key(self.job, number), None)

    def _join(self) -> None:
        """Take part in the current register, if this peer is one of its holders with the disk that it has."""
        current = self.chain.current
        mine = current.store_of(self._context.me) == self._context.profile.store
        self.acceptor = Acceptor(current.first_ballot) if mine else None

    def _save(self) -> None:
        voted = self.acceptor.voted if self.acceptor is not None else None
        row = RegisterRow(
            promised=self.promised,
            voted_in=voted.ballot if voted is not None else None,
            voted_for=voted.decree if voted is not None else None,
            chain=tuple(self.chain.certificates),
            body=self.body,
        )
        self._context.record(Table.REGISTER, self.job, row)
