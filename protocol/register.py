"""One register: a set of holders decides one value, once. Single-decree Paxos (Lamport 2001), as two plain objects.

An *acceptor* is what one holder must not forget; it is written down before any answer leaves. A *proposer* is one
ballot at the holder that leads it, and need not be remembered: after a restart a holder leads a higher ballot.

Epoch 0 belongs to the steward that the configuration names and counts as promised by all, so the normal case has no
first phase. ``tests/protocol/test_register_model.py`` drives these objects through all interleavings.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.decrees import Decree, majority
from protocol.identity import PeerId
from protocol.limits import EPOCH_STEP_MAX
from protocol.signing import Signed
from protocol.wire import Ballot


class Voted(NamedTuple):
    """The latest vote of an acceptor."""

    ballot: Ballot
    decree: Decree


class Acceptor:
    """One holder's part in one register."""

    __slots__ = ("promised", "voted")

    def __init__(self, promised: Ballot, voted: Voted | None = None) -> None:
        self.promised = promised
        self.voted = voted

    def promise(self, ballot: Ballot) -> bool:
        """Take part in no lower ballot from now on; False, and nothing changes, if a higher one was promised.

        The same ballot comes from the same proposer, which asks again.
        """
        if not self._allows(ballot):
            return False
        self.promised = ballot
        return True

    def vote(self, ballot: Ballot, decree: Decree) -> bool:
        """Accept a decree; False, and nothing changes, if a promise or another vote of this ballot forbids it."""
        if not self._allows(ballot):
            return False
        if self.voted is not None and self.voted.ballot == ballot and self.voted.decree != decree:
            return False
        self.promised = ballot
        self.voted = Voted(ballot, decree)
        return True

    def _allows(self, ballot: Ballot) -> bool:
        promised = self.promised
        if ballot.config != promised.config or ballot.epoch > promised.epoch + EPOCH_STEP_MAX:
            return False
        return ballot >= promised


class Proposer:
    """One ballot of one register, at the holder that leads it. It proposes one value, ever."""

    def __init__(self, ballot: Ballot, holders: tuple[PeerId, ...], *, owns: bool = False) -> None:
        self.ballot = ballot
        self.holders = holders
        #: Whether this is epoch 0 of the steward that the configuration names: nobody has to promise.
        self.owns = owns
        self.promises: dict[PeerId, Voted | None] = {}
        self.proposal: Decree | None = None
        self.votes: dict[PeerId, Signed] = {}

    def take_promise(self, holder: PeerId, voted: Voted | None) -> None:
        if holder in self.holders:
            self.promises[holder] = voted

    @property
    def elected(self) -> bool:
        """Whether a majority will take part in no lower ballot."""
        return self.owns or len(self.promises) >= majority(len(self.holders))

    @property
    def forced(self) -> Decree | None:
        """What must be proposed because an earlier ballot may have decided it; None leaves the choice free."""
        votes = [voted for voted in self.promises.values() if voted is not None]
        return max(votes, key=lambda voted: voted.ballot).decree if votes else None

    def propose(self, decree: Decree) -> Decree:
        """Fix this ballot's value: the forced one, else ``decree``; the first call decides for good."""
        assert self.elected, "a proposal before a majority has promised"
        if self.proposal is None:
            self.proposal = self.forced or decree
        return self.proposal

    def take_vote(self, holder: PeerId, vote: Signed) -> bool:
        """Count a vote for the proposal; True when with it a majority has voted."""
        if holder not in self.holders:
            return False
        before = len(self.votes)
        self.votes.setdefault(holder, vote)
        needed = majority(len(self.holders))
        return before < needed <= len(self.votes)
