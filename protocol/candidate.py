"""A peer that has bid for a job, what its bid turned out to be worth, and what bids of it were worth before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from protocol.clock import Instant
from protocol.identity import PeerId
from protocol.messages import Bid

_EXACT = 1_000
_RATIO_MIN, _RATIO_MAX = _EXACT // 8, _EXACT * 8


class Candidate:
    """One bidder of one job."""

    __slots__ = ("bid", "expected_ms", "heard_at", "labels", "paused_until", "peer", "run_ms")

    def __init__(self, peer: PeerId, bid: Bid, now: Instant) -> None:
        self.peer = peer
        self.bid = bid
        #: Duration of one task as bid, corrected by experience; 0 if it did not say.
        self.expected_ms = bid.task_ms
        #: As its capability record has them.
        self.labels: Mapping[str, str] = {}
        self.heard_at = now
        self.paused_until = now
        #: Duration of one task as measured (moving average); 0 until a receipt came.
        self.run_ms = 0

    def measured(self, run_ms: int) -> None:
        self.run_ms = max(1, run_ms if self.run_ms == 0 else (3 * self.run_ms + run_ms) // 4)


class Experience:
    """How long tasks took, compared with what their workers had bid: one steward's, over all of its jobs."""

    def __init__(self, size: int) -> None:
        self._size = size
        #: Thousandths, moving average; the peer heard of longest ago goes first.
        self._ratios: OrderedDict[PeerId, int] = OrderedDict()

    def learn(self, peer: PeerId, bid_ms: int, took_ms: int) -> None:
        """A task took so long; ``bid_ms`` 0 is no bid."""
        if bid_ms == 0:
            return
        ratio = min(max(took_ms * _EXACT // bid_ms, _RATIO_MIN), _RATIO_MAX)
        known = self._ratios.pop(peer, None)
        self._ratios[peer] = ratio if known is None else (3 * known + ratio) // 4
        if len(self._ratios) > self._size:
            self._ratios.popitem(last=False)

    def corrected(self, peer: PeerId, bid_ms: int) -> int:
        """What a bid of so long means, by a factor of 8 more or less at the most."""
        return bid_ms * self._ratios.get(peer, _EXACT) // _EXACT
