"""For whom a worker works: of each job that it has leases or receipts of, the holders, and who of them is steward.

A worker takes a holder's word for who is steward, if the chain says that it is a holder, and its proof for how the job
ended. One that has heard nothing of its steward for a while asks the others, and hands everything to whoever it is.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from protocol.chain import Chain
from protocol.clock import Instant, after_ms
from protocol.context import Context
from protocol.decrees import Certificate, Final
from protocol.durable import Table, WorkRow
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.messages import Decided, Leads, WhoLeads
from protocol.records import JobSpec, Vote
from protocol.signing import Opened
from protocol.wire import Ballot

_LONG_AGO = Instant(-(1 << 62))


class Employer:
    """One job that this worker works for."""

    __slots__ = ("asked", "ballot", "chain", "heard_at", "spec")

    def __init__(self, spec: Opened[JobSpec], chain: Chain, now: Instant) -> None:
        self.spec = spec
        self.chain = chain
        self.ballot = chain.current.first_ballot
        self.heard_at = now
        #: Whom to ask next.
        self.asked = 0

    @property
    def steward(self) -> PeerId:
        return self.ballot.peer

    def is_newer(self, ballot: Ballot) -> bool:
        """Whether the steward of ``ballot`` comes after the one that is known, and can be one."""
        current = self.chain.current
        return ballot.config == current.number and ballot > self.ballot and ballot.peer in current.peers


class Employers:
    """All of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all: OrderedDict[bytes, Employer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def find(self, job: bytes) -> Employer | None:
        return self._all.get(job)

    @property
    def oldest(self) -> bytes:
        return next(iter(self._all))

    def judge(self, spec: Opened[JobSpec], certificates: tuple[Certificate, ...], steward: PeerId) -> Chain:
        """The job's chain as far as it is known. RemoteProtocolError if ``steward`` does not hold the job."""
        known = self._all.get(spec.digest)
        chain = known.chain if known is not None else self._chain(spec)
        if chain.extend(certificates) and known is not None:
            self._keep(known)
        if not chain.has_held(steward):
            raise RemoteProtocolError("an award by a peer that does not hold the job")
        return chain

    def add(self, spec: Opened[JobSpec], chain: Chain, ballot: Ballot) -> None:
        """This peer has something of the job: an award under ``ballot``."""
        employer = self._all.get(spec.digest)
        if employer is None:
            employer = self._all[spec.digest] = Employer(spec, chain, self._context.now)
            self._keep(employer)
        if employer.is_newer(ballot):
            employer.ballot = ballot
        if employer.steward == ballot.peer:
            employer.heard_at = self._context.now

    def restore(self, row: WorkRow) -> None:
        spec = self._context.open(row.spec, JobSpec)
        chain = self._chain(spec)
        chain.extend(row.chain)
        self._all[spec.digest] = Employer(spec, chain, self._context.now)

    def remove(self, job: bytes) -> None:
        if self._all.pop(job, None) is not None:
            self._context.record(Table.WORK, job, None)

    def heard(self, job: bytes, sender: PeerId) -> None:
        """The job's steward lives."""
        employer = self._all.get(job)
        if employer is not None and employer.steward == sender:
            employer.heard_at = self._context.now

    def on_leads(self, sender: PeerId, message: Leads) -> bool:
        """A holder says who is steward; whether that is news."""
        employer = self._all.get(message.job)
        if employer is None:
            return False
        self._extend(employer, message.chain)
        if not employer.chain.has_held(sender):
            raise RemoteProtocolError("a steward named by a peer that does not hold the job")
        if message.ballot is None:
            if sender == employer.steward:
                employer.heard_at = _LONG_AGO  # it is none, and knows of no other: who does is asked at once
            return False
        is_news = employer.is_newer(message.ballot)
        if is_news:
            employer.ballot = message.ballot
        self.heard(message.job, sender)
        return is_news

    def on_decided(self, message: Decided) -> bool:
        """A proof of what was decided; whether the job has ended."""
        employer = self._all.get(message.job)
        if employer is None:
            return False
        self._extend(employer, message.chain)
        return employer.chain.final is not None

    def _extend(self, employer: Employer, certificates: tuple[Certificate, ...]) -> None:
        if employer.chain.extend(certificates):
            if employer.ballot.config < employer.chain.current.number:
                employer.ballot = employer.chain.current.first_ballot
            if not isinstance(certificates[-1].decree, Final):
                self._keep(employer)

    def lost(self, peer: PeerId) -> None:
        """The connection to a peer broke: the stewards among them are asked after at once."""
        for employer in self._all.values():
            if employer.steward == peer:
                employer.heard_at = _LONG_AGO

    def ask_around(self) -> list[bytes]:
        """Ask after stewards that were not heard of; the jobs whose time is over, which nobody asks about any more."""
        limits, now, over = self._context.limits, self._context.now, []
        for job, employer in self._all.items():
            if employer.spec.record.not_after + limits.clock_skew_ms < self._context.wall:
                over.append(job)
            elif after_ms(employer.heard_at, limits.worker_asks_ms) <= now:
                peers = employer.chain.current.peers
                self._context.send(peers[employer.asked % len(peers)], WhoLeads(job=job))
                employer.asked += 1
        return over

    def _chain(self, spec: Opened[JobSpec]) -> Chain:
        return Chain(spec, partial(self._context.open, kind=Vote))

    def _keep(self, employer: Employer) -> None:
        row = WorkRow(spec=employer.spec.signed, chain=tuple(employer.chain.certificates))
        self._context.record(Table.WORK, employer.spec.digest, row)
