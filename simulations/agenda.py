"""What will happen in a world, soonest first; equal times keep the order in which they were planned."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[..., None]


class Agenda:
    """Virtual time and the actions ahead of it. Keyed (time, sequence), so no two entries ever compare equal."""

    __slots__ = ("_heap", "_sequence", "now")

    def __init__(self) -> None:
        self.now = 0
        """Integer nanoseconds since the world began."""
        self._heap: list[tuple[int, int, Action, tuple[Any, ...]]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: int, action: Action, *arguments: Any) -> None:
        """Plan ``action(*arguments)``; never for a time that has passed."""
        assert when >= self.now, "planned for the past"
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, action, arguments))

    def after(self, nanoseconds: int, action: Action, *arguments: Any) -> None:
        self.at(self.now + nanoseconds, action, *arguments)

    def run_until(self, end: int) -> None:
        """Do all that is planned up to and including ``end``; afterwards it is ``end``."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end:
            self.now, _, action, arguments = pop(heap)
            action(*arguments)
        self.now = end
