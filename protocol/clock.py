"""The two clocks: a monotonic one for deadlines inside a peer, a wall clock for signed records.

The monotonic clock never goes on the wire. Wall time enters as ``ClockObserved`` events and moves on with the
monotonic clock in between, so that a replayed trace sees the very same times.
"""

from typing import NewType

Instant = NewType("Instant", int)
"""A point of the node's own monotonic clock, in nanoseconds."""

WallMs = NewType("WallMs", int)
"""Milliseconds since the Unix epoch, as this node's wall clock has them."""

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def after_ms(now: Instant, milliseconds: int) -> Instant:
    """The instant ``milliseconds`` after ``now``."""
    return Instant(now + milliseconds * NS_PER_MS)


def elapsed_ms(since: Instant, now: Instant) -> int:
    """Whole milliseconds from ``since`` to ``now``."""
    return (now - since) // NS_PER_MS
