"""One job as its steward leads it: a ballot, and what the other holders have said to it."""

from __future__ import annotations

from protocol.clock import Instant, after_ms
from protocol.decrees import Decree, Final, FinalBody, digest_of, majority
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.limits import Limits
from protocol.register import Proposer
from protocol.wire import Ballot, FactKey


class Member:
    """Another holder of the job's current configuration."""

    __slots__ = ("asked_at", "closed", "confirmed_at", "forgetful", "heard_at", "offset_ms", "owed", "promised", "read")

    def __init__(self, now: Instant) -> None:
        #: Facts that it does not know yet, and when they were last sent.
        self.owed: dict[FactKey, Instant | None] = {}
        self.heard_at = now
        #: When it last had promised nothing higher than this ballot.
        self.confirmed_at: Instant | None = None
        self.asked_at: Instant | None = None
        #: Its wall clock against this peer's; None until it said so.
        self.offset_ms: int | None = None
        self.promised = False
        #: Whether everything that it knows is known here.
        self.read = False
        #: Whether it knows how the job ended, and all facts.
        self.closed = False
        #: It has another disk than the one by which it is a holder.
        self.forgetful = False


class Lead:
    """State only; what to do about it is ``Leadership``'s."""

    def __init__(self, record: JobRecord, ballot: Ballot, limits: Limits, now: Instant, *, owns: bool) -> None:
        self.record = record
        self._limits = limits
        self.began = now
        self.proposer = Proposer(ballot, record.chain.current.peers, owns=owns)
        self.members: dict[PeerId, Member] = {peer: Member(now) for peer in record.others}
        self._was_elected = False
        #: Whether the steward's work is done here: by a majority's leave, or provisionally without one.
        self.acting = False
        self.progress = 0
        self.idle = False
        #: How the job is to end, once that can be proposed.
        self.wish: FinalBody | None = None
        self.bodies: dict[bytes, FinalBody] = {}
        #: Peers that are to become holders, and their stores once they have the record.
        self.invited: dict[PeerId, bytes | None] = {}
        self.invited_at = now
        self.closing_since: Instant | None = None

    @property
    def ballot(self) -> Ballot:
        return self.proposer.ballot

    @property
    def needed(self) -> int:
        return majority(len(self.proposer.holders))

    @property
    def elected(self) -> bool:
        """A majority has promised, and what it knew then is known here."""
        if not self._was_elected:
            self._was_elected = self.proposer.owns or (self.proposer.elected and self.has_read_a_majority)
        return self._was_elected

    @property
    def has_read_a_majority(self) -> bool:
        return 1 + sum(member.read for member in self.members.values()) >= self.needed

    def is_confirmed(self, now: Instant) -> bool:
        """Whether a majority has lately had no higher ballot than this one."""
        lately = [
            member
            for member in self.members.values()
            if member.confirmed_at is not None and after_ms(member.confirmed_at, self._limits.deaf_ms) > now
        ]
        return 1 + len(lately) >= self.needed

    def is_deaf(self, now: Instant) -> bool:
        """Whether no majority has been heard for so long that another holder had better take over."""
        if after_ms(self.began, self._limits.deaf_ms) > now:
            return False
        heard = [one for one in self.members.values() if after_ms(one.heard_at, self._limits.deaf_ms) > now]
        return 1 + len(heard) < self.needed

    def silent(self, now: Instant) -> list[PeerId]:
        """Holders that are to be replaced: unheard of for too long, or without the disk that they had."""
        return [
            peer
            for peer, member in self.members.items()
            if member.forgetful or after_ms(member.heard_at, self._limits.replace_ms) <= now
        ]

    def median_offset_ms(self) -> int | None:
        """The median of a majority's wall clocks against this peer's, its own included; None without a majority.

        Of two in the middle the earlier one: a deadline is passed later rather than sooner.
        """
        offsets = [0, *(one.offset_ms for one in self.members.values() if one.offset_ms is not None)]
        return sorted(offsets)[(len(offsets) - 1) // 2] if len(offsets) >= self.needed else None

    def body_for(self, decree: Decree) -> FinalBody | None:
        """The body of an end: this ballot's own, or of another holder's vote."""
        if not isinstance(decree, Final):
            return None
        known = [one for one in (self.wish, self.record.body) if one is not None]
        return next((one for one in known if digest_of(one) == decree.body), self.bodies.get(decree.body))

    def owe(self, key: FactKey, besides: PeerId | None = None) -> None:
        """A fact is new here: the others are to hear of it."""
        for peer, member in self.members.items():
            if peer != besides:
                member.owed[key] = None
                member.read = member.read and self.record.final is None
