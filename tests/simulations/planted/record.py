"""Bugs in the record of a job: its registers, its facts, and who takes it over."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from msgspec.structs import replace

from protocol.decrees import Final, digest_of
from protocol.job_record import JobRecord
from protocol.lead import Lead
from protocol.leadership import Leadership
from protocol.record_keeper import RecordKeeper
from protocol.register import Acceptor, Proposer, Voted
from protocol.renewing import Renewing
from protocol.steward import Steward
from tests.simulations.planted.registry import bug, does_nothing, replaced, together


@bug
def nothing_is_adopted() -> AbstractContextManager[None]:
    """A new steward proposes what it likes, whatever was voted for before."""
    return replaced(Proposer, "forced", property(lambda self: None))


@bug
def nobody_has_to_promise() -> AbstractContextManager[None]:
    """Whoever stands for election is elected."""
    elected = property(lambda self: True)
    return together(replaced(Proposer, "elected", elected), replaced(Lead, "elected", elected))


@bug
def one_vote_decides() -> AbstractContextManager[None]:
    """The first vote is taken for a majority."""

    def take_vote(self: Proposer, holder: Any, vote: Any) -> bool:
        self.votes.setdefault(holder, vote)
        return len(self.votes) == 1

    return replaced(Proposer, "take_vote", take_vote)


@bug
def two_values_in_one_ballot() -> AbstractContextManager[None]:
    """A proposer changes its mind."""

    def propose(self: Proposer, decree: Any) -> Any:
        self.proposal = self.forced or decree
        return self.proposal

    def vote(self: Acceptor, ballot: Any, decree: Any) -> bool:
        if not self._allows(ballot):
            return False
        self.promised, self.voted = ballot, Voted(ballot, decree)
        return True

    def end(self: Steward, job: Any, lead: Any, status: Any, error: str) -> None:
        job.wish = None
        right(self, job, lead, status, error)

    def propose_end(self: Leadership, lead: Any, body: Any) -> None:
        is_first = lead.wish is None
        lead.wish = body
        if is_first:
            self._push(lead)

    def push(self: Leadership, lead: Any) -> None:
        if lead.elected and lead.record.final is None and lead.wish is not None:
            self._propose(lead, Final(body=digest_of(lead.wish)))

    right = Steward._end
    return together(
        replaced(Proposer, "propose", propose),
        replaced(Acceptor, "vote", vote),
        replaced(Steward, "_end", end),
        replaced(Leadership, "propose_end", propose_end),
        replaced(Leadership, "_push", push),
    )


@bug
def promises_are_not_kept() -> AbstractContextManager[None]:
    """An acceptor takes part in any ballot."""
    return replaced(Acceptor, "_allows", lambda self, ballot: ballot.config == self.promised.config)


@bug
def promises_are_not_written_down() -> AbstractContextManager[None]:
    """What a holder promises and votes is gone with its next crash."""

    def save(self: JobRecord) -> None:
        if self.acceptor is None or self.promised == self.chain.current.first_ballot:
            right(self)

    right = JobRecord._save
    return replaced(JobRecord, "_save", save)


@bug
def a_promise_hides_the_vote() -> AbstractContextManager[None]:
    """Who promises does not say what it has voted for."""

    def promise(self: RecordKeeper, record: Any, message: Any) -> Any:
        return replace(right(self, record, message), voted_in=None, voted_for=None, body=None)

    right = RecordKeeper._promise
    return replaced(RecordKeeper, "_promise", promise)


@bug
def facts_are_not_sent() -> AbstractContextManager[None]:
    """A steward keeps to itself what it learns."""
    return replaced(Renewing, "_next_owed", lambda self, lead, member, room, others: [])


@bug
def nobody_takes_over() -> AbstractContextManager[None]:
    """A witness waits for its steward for ever."""
    return replaced(Leadership, "_on_silent", does_nothing)


@bug
def nobody_is_told_of_the_end() -> AbstractContextManager[None]:
    """Who has the votes keeps the certificate to itself, and so does everybody who has it."""
    return together(
        replaced(Leadership, "_tell_decisions", does_nothing), replaced(RecordKeeper, "_tell_decisions", does_nothing)
    )


@bug
def any_disk_will_do() -> AbstractContextManager[None]:
    """A holder that has lost its disk goes on as if it were the one that promised."""

    def join(self: JobRecord) -> None:
        current = self.chain.current
        self.acceptor = Acceptor(current.first_ballot) if self._context.me in current.peers else None

    return replaced(JobRecord, "_join", join)


@bug
def an_end_without_its_receipts() -> AbstractContextManager[None]:
    """A holder that lacks what counted in an ended job never asks for it."""
    return replaced(RecordKeeper, "_ask_for_facts", does_nothing)


@bug
def ended_jobs_go_on() -> AbstractContextManager[None]:
    """A holder does not remember that a job has ended."""

    def extend(self: JobRecord, certificates: Any, body: Any = None) -> bool:
        grew = right(self, certificates, body)
        if self.chain.final is not None:
            self.chain.certificates.pop()
        return grew

    right = JobRecord.extend
    return replaced(JobRecord, "extend", extend)
