"""Is this node's clock right? Judged by the median of what its neighbours' clocks say, never by one of them."""

from __future__ import annotations

from collections import OrderedDict

from protocol.context import Context
from protocol.identity import PeerId


class ClockCheck:
    """Offsets of other peers' wall clocks against this one's, the latest of each."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._offsets_ms: OrderedDict[PeerId, int] = OrderedDict()
        self._far = 0
        """How many of them are beyond the tolerance: while none is, no median can be."""
        self._said_wrong = False

    def sample(self, peer: PeerId, wall_ms: int) -> None:
        """``peer``, a member of this mesh or one that was asked to take this peer in, has ``wall_ms`` on its clock."""
        self.forget(peer)
        self._offsets_ms[peer] = offset = wall_ms - self._context.wall
        self._far += self._is_far(offset)
        if len(self._offsets_ms) > self._context.limits.clock_samples_max:
            self.forget(next(iter(self._offsets_ms)))
        if (self.wrong() is not None) != self._said_wrong:
            self._said_wrong = not self._said_wrong
            if reason := self.wrong():
                self._context.notice("warning", f"{reason}: not bidding, holding or taking jobs until it is right")
            else:
                self._context.notice("info", "this node's clock agrees with its neighbours' again")

    def forget(self, peer: PeerId) -> None:
        offset = self._offsets_ms.pop(peer, None)
        if offset is not None:
            self._far -= self._is_far(offset)

    def observed_anew(self) -> None:
        """This node's own clock was set: what was measured against the old one says nothing."""
        self._offsets_ms.clear()
        self._far = 0

    def offset_ms(self) -> int | None:
        """How far the others are ahead of this clock; None if fewer than two have said anything.

        The median, and of the two in the middle the one nearer to this clock: half of the others cannot convince it.
        """
        count = len(self._offsets_ms)
        if count < 2:
            return None
        ordered = sorted(self._offsets_ms.values())
        return min(ordered[(count - 1) // 2], ordered[count // 2], key=abs)

    def wrong(self) -> str | None:
        """A sentence if this clock is further off than the tolerance, else None."""
        offset = self.offset_ms() if self._far else None
        if offset is None or not self._is_far(offset):
            return None
        return f"this node's clock is {abs(offset) // 1000} s {'behind' if offset > 0 else 'ahead'}"

    def _is_far(self, offset_ms: int) -> bool:
        return abs(offset_ms) > self._context.limits.clock_skew_ms
