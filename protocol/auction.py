"""The formulas of an auction: who may answer, which bid is best, how much one award holds. Pure functions.

The draw keeps the number of bids independent of the mesh's size: a peer answers only if a hash of the announcement and
its own id falls under a threshold that the steward chose (sortition). Bids are then about Poisson distributed: with 16
wanted, none at all comes with probability 1e-7, more than 32 with 1e-4.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from protocol.identity import PeerId

CERTAIN = (1 << 63) - 1
"""The threshold at which everybody answers."""


def draw(announcement: bytes, peer: PeerId, purpose: str) -> int:
    """The lot of ``peer`` for an announcement, uniform in [0, 2**63); ``purpose`` is ``bid`` or ``refusal``."""
    lot = hashlib.sha256(b"/".join((purpose.encode(), announcement, peer.encode()))).digest()
    return int.from_bytes(lot[:8], "big") >> 1


def threshold(wanted: int, candidates: int) -> int:
    """The threshold that lets about ``wanted`` of ``candidates`` peers answer."""
    return CERTAIN if candidates <= wanted else CERTAIN * wanted // candidates


def is_drawn(announcement: bytes, peer: PeerId, purpose: str, limit: int) -> bool:
    return limit == CERTAIN or draw(announcement, peer, purpose) <= limit


def tie_break(announcement: bytes, peer: PeerId) -> bytes:
    """A total order among equal bids that no bidder can choose, and that everybody can recompute."""
    return hashlib.sha256(b"/".join((b"tie", announcement, peer.encode()))).digest()


class Turn(NamedTuple):
    """When a bidder could begin with further tasks, and how long it takes for one."""

    free_ms: tuple[int, ...]
    """Of each of its slots, from now."""
    task_ms: int
    fetch_ms: int = 0
    """Added to each completion: it has to fetch what others have."""
    order: tuple[int, bytes] = (0, b"")
    """Price and tie, among those that would be through at the same time."""
    group: str = ""
    """Bidders of one group share its room."""


def shares(tasks: int, turns: Sequence[Turn], room: Mapping[str, int] | None = None) -> list[int]:
    """How many of ``tasks`` each bidder gets if each task goes to whoever would be through with it first.

    List scheduling (Graham 1966) by earliest completion: a slow peer gets nothing that others, who are busy now, would
    have done before it. ``room``: at most so many for each group, if that is bounded; what fits nowhere is left over.
    """
    slots = [sorted(turn.free_ms) for turn in turns]
    left = dict(room) if room is not None else None
    counts = [0] * len(turns)
    queue = [(_completion(turn, slots[one]), turn.order, one) for one, turn in enumerate(turns)]
    heapq.heapify(queue)
    while tasks and queue:
        completion, order, one = heapq.heappop(queue)
        turn = turns[one]
        if left is not None:
            if left[turn.group] <= 0:
                continue
            left[turn.group] -= 1
        counts[one] += 1
        tasks -= 1
        heapq.heapreplace(slots[one], completion - turn.fetch_ms)
        heapq.heappush(queue, (_completion(turn, slots[one]), order, one))
    return counts


def _completion(turn: Turn, slots: list[int]) -> int:
    return slots[0] + turn.task_ms + turn.fetch_ms


def capacity(slots: int, task_ms: int, ahead_ms: int) -> int:
    """How many tasks a worker of known speed may have: one per slot, and ``ahead_ms`` of work waiting."""
    return slots + slots * ahead_ms // max(task_ms, 1)


def award_size(share: int, held: int, slots: int, limit: int) -> int:
    """How many tasks of its ``share`` a worker is given that has ``held``, and may have ``limit``.

    Its free slots are filled. Of the rest it gets half (guided self-scheduling: Polychronopoulos, Kuck 1987), so that
    early awards are large and the tail stays open to whoever is free then; and nothing while half of what may wait
    does, so that messages go with workers rather than with tasks.
    """
    free = max(slots - held, 0)
    if not free and 2 * (held - slots) > limit - slots:
        return 0
    return max(0, min(share, limit - held, max(free, -(-share // 2))))
