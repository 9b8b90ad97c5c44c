"""What a peer means to do later: a heap of instants, read by ``Peer.next_wakeup``."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from protocol.clock import Instant


class Timer:
    """One planned action; ``cancel`` is idempotent, and harmless after the action ran."""

    __slots__ = ("_action", "at")

    def __init__(self, at: Instant, action: Callable[[], None]) -> None:
        self.at = at
        self._action: Callable[[], None] | None = action

    @property
    def pending(self) -> bool:
        return self._action is not None

    def cancel(self) -> None:
        self._action = None

    def fire(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Timers:
    """All timers of one peer, due ones first; equal instants fire in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[Instant, int, Timer]] = []
        self._sequence = 0

    def at(self, when: Instant, action: Callable[[], None]) -> Timer:
        timer = Timer(when, action)
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, timer))
        return timer

    def next_due(self) -> Instant | None:
        heap = self._heap
        while heap:
            when, _, timer = heap[0]
            if timer._action is not None:
                return when
            heapq.heappop(heap)
        return None

    def fire_due(self, now: Instant) -> None:
        """Run what is due by ``now``; what those actions plan for ``now`` or earlier runs too."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            heapq.heappop(heap)[2].fire()
