"""What each auction cost, read off the messages that cross peers' borders. No rule: figures that only traffic shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.effects import Send, StartRun
from protocol.records import Announcement
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World


class Auction:
    """One job's search for workers, over all of its rounds."""

    __slots__ = ("announces", "awarded_at", "bids", "last_round", "refusals", "rounds")

    def __init__(self) -> None:
        self.rounds: set[bytes] = set()
        """Announcements that its stewards signed."""
        self.last_round = 0
        self.announces = 0
        """Messages that carried one of these, on all of their hops."""
        self.bids = 0
        self.refusals = 0
        self.awarded_at: int | None = None
        """When its steward first gave an award, in nanoseconds."""

    @property
    def messages(self) -> int:
        """Of finding workers: what is said once there are awards is not in it."""
        return self.announces + self.bids + self.refusals


class Auctions:
    """All auctions of a world, by job."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.of: dict[bytes, Auction] = {}

    @property
    def count(self) -> int:
        return len(self.of)

    def announced(self, machine: Machine, effect: Send) -> None:
        opened = self._world.reader.open(effect.message.announcement, Announcement)  # type: ignore[attr-defined]
        auction = self.of.get(opened.record.job)
        if auction is None:
            auction = self.of[opened.record.job] = Auction()
        auction.announces += 1
        auction.last_round = max(auction.last_round, opened.record.round)
        if opened.record.steward == machine.peer_id:
            auction.rounds.add(opened.digest)

    def bid(self, machine: Machine, effect: Send) -> None:
        if (auction := self.of.get(effect.message.job)) is not None:  # type: ignore[attr-defined]
            auction.bids += 1

    def refused(self, machine: Machine, effect: Send) -> None:
        if (auction := self.of.get(effect.message.job)) is not None:  # type: ignore[attr-defined]
            auction.refusals += 1

    def offered(self, machine: Machine, effect: Send) -> None:
        self._awarded(effect.message.spec.digest)  # type: ignore[attr-defined]

    def began(self, machine: Machine, effect: StartRun) -> None:
        """A steward that gives work to itself sends nothing."""
        self._awarded(effect.job)

    def _awarded(self, job: bytes) -> None:
        auction = self.of.get(job)
        if auction is not None and auction.awarded_at is None:
            auction.awarded_at = self._world.agenda.now
