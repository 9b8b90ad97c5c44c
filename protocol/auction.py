"""The formulas of an auction: who may answer, which bid is best, how much one award holds. Pure functions.

The draw keeps the number of bids independent of the mesh's size: a peer answers only if a hash of the announcement and
its own id falls under a threshold that the steward chose (sortition). Bids are then about Poisson distributed: with 16
wanted, none at all comes with probability 1e-7, more than 32 with 1e-4.
"""

from __future__ import annotations

import hashlib

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


def expected_completion_ms(start_in_ms: int, task_ms: int, tasks: int, slots: int, fetch_ms: int) -> int:
    """When a bidder would be through with ``tasks``, counted from now."""
    rounds = -(-tasks // slots)
    return start_in_ms + fetch_ms + task_ms * rounds


def tie_break(announcement: bytes, peer: PeerId) -> bytes:
    """A total order among equal bids that no bidder can choose, and that everybody can recompute."""
    return hashlib.sha256(b"/".join((b"tie", announcement, peer.encode()))).digest()


def award_size(ready: int, total_slots: int, slots: int, task_ms: int, target_ms: int) -> int:
    """How many of ``ready`` tasks the next award of a worker with ``slots`` holds; at least 1.

    Guided self-scheduling (Polychronopoulos, Kuck 1987): half of the worker's fair share of what is left, so that
    early awards are large and the tail is even; and no more than ``target_ms`` of work once ``task_ms``, the measured
    duration of a task, is known (else 0).
    """
    share = -(-ready * slots // (2 * max(total_slots, slots)))
    if task_ms > 0:
        share = min(share, max(target_ms * slots // task_ms, slots))
    return max(1, min(share, ready))
