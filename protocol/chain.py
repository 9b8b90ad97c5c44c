"""The chain of a job's certificates: who its holders were, one configuration after the other, and how it ended.

Anyone who has the signed spec can check it: the spec names the first holders, a majority of these the next ones, and
so on. ``infra verify`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from protocol.decrees import Certificate, Final, FinalBody, Next, digest_of, majority
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.limits import CONFIGURATIONS_MAX
from protocol.records import JobSpec, Vote
from protocol.signing import Opened, Signed
from protocol.wire import Ballot, Holder

OpenVote = Callable[[Signed], Opened[Vote]]
"""Checks a vote's signature; raises RemoteProtocolError."""


def can_hold(decree: Next) -> bool:
    """Whether such holders can be: one, three or five different peers, the steward among them."""
    peers = [holder.peer for holder in decree.holders]
    return len(set(peers)) == len(peers) and len(peers) % 2 == 1 and decree.steward in peers


class Configuration(NamedTuple):
    """One set of holders, with the one of them that owns epoch 0."""

    number: int
    holders: tuple[Holder, ...]
    steward: PeerId

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return tuple(holder.peer for holder in self.holders)

    @property
    def first_ballot(self) -> Ballot:
        return Ballot(config=self.number, epoch=0, peer=self.steward)

    def store_of(self, peer: PeerId) -> bytes | None:
        """The store by which ``peer`` is a holder; None if it is none."""
        return next((holder.store for holder in self.holders if holder.peer == peer), None)


class Chain:
    """The certificates of one job, each checked as it is added."""

    def __init__(self, spec: Opened[JobSpec], open_vote: OpenVote) -> None:
        self._job = spec.digest
        self._open_vote = open_vote
        self.certificates: list[Certificate] = []
        self.configurations = [Configuration(0, spec.record.holders, spec.record.steward)]

    @property
    def current(self) -> Configuration:
        """The latest configuration; of an ended job the one that ended it."""
        return self.configurations[-1]

    @property
    def final(self) -> Final | None:
        last = self.certificates[-1].decree if self.certificates else None
        return last if isinstance(last, Final) else None

    @property
    def full(self) -> bool:
        """Whether the holders can change no more."""
        return len(self.configurations) >= CONFIGURATIONS_MAX

    def has_held(self, peer: PeerId) -> bool:
        """Whether ``peer`` is a holder in some configuration: then what it awarded counts."""
        return any(configuration.store_of(peer) is not None for configuration in self.configurations)

    def extend(self, certificates: Iterable[Certificate]) -> bool:
        """Take in what follows on what is known; whether there was any.

        Raises RemoteProtocolError for one that does not hold; those before it are kept.
        """
        grew = False
        for certificate in certificates:
            if certificate.ballot.config == len(self.certificates) and self.final is None:
                self._check(certificate)
                self.certificates.append(certificate)
                grew = True
                if not isinstance(certificate.decree, Final):
                    decree = certificate.decree
                    number = len(self.configurations)
                    self.configurations.append(Configuration(number, decree.holders, decree.steward))
        return grew

    def _check(self, certificate: Certificate) -> None:
        current, digest = self.current, digest_of(certificate.decree)
        voters: dict[PeerId, None] = {}
        for signed in certificate.votes:
            vote = self._open_vote(signed).record
            if (vote.job, vote.ballot, vote.decree) != (self._job, certificate.ballot, digest):
                raise RemoteProtocolError("a certificate with a vote for something else")
            if current.store_of(vote.peer) != vote.store:
                raise RemoteProtocolError(f"a certificate with a vote of {vote.peer}, which is no holder")
            voters[vote.peer] = None
        if len(voters) < majority(len(current.holders)):
            raise RemoteProtocolError(f"a certificate with {len(voters)} of {len(current.holders)} holders' votes")
        decree = certificate.decree
        if not isinstance(decree, Final) and (self.full or not can_hold(decree)):
            raise RemoteProtocolError("a certificate for holders that cannot be")

    def certifies(self, body: FinalBody) -> bool:
        """Whether this is how the job ended."""
        return self.final is not None and self.final.body == digest_of(body)
