"""The figures of a run: for people, and for the log of every continuous-integration run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.clock import NS_PER_S
from protocol.messages import Announce, Bid
from protocol.wire import Role

if TYPE_CHECKING:
    from simulations.simulation import Result
    from simulations.world import World


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds; simulated unless named real."""

    peers: int
    jobs_accepted: int
    jobs_done: int
    jobs_orphaned: int
    """Accepted, but their steward crashed: this version has one fixed steward."""
    shards_done: int
    makespan_s: float
    """From the first submission to the end of the last job."""
    job_s: float
    """Mean time from a job's submission to its end."""
    messages: int
    messages_per_peer_s: float
    bytes_per_peer_s: float
    """Estimated from the messages that went through the codec, one in a hundred."""
    bids_per_auction: float
    lost_tries: int
    """Tries that were lost, expired or given back."""
    crashes: int
    events: int
    simulated_s: float
    real_s: float

    @property
    def events_per_s(self) -> float:
        return self.events / self.real_s if self.real_s else 0.0

    @property
    def acceleration(self) -> float:
        """Simulated over real time."""
        return self.simulated_s / self.real_s if self.real_s else 0.0


def figures_of(world: World, real_s: float) -> Figures:
    raise NotImplementedError
