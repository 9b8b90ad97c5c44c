"""Where in the mesh something is to be found: at the peers that lie nearest to its key on a ring.

Consistent hashing (Karger et al. 1997): keys and peers have places on one ring, so that peers which are responsible for
the same keys are near each other, and can know each other, however large the mesh. A walk goes from peer to peer, each
time to the nearest one known: first over random acquaintances, then over those nearby, which each peer keeps (the leaf
set of Pastry, Rowstron and Druschel 2001).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from functools import lru_cache

from protocol.identity import PeerId

KEY_BYTES = 4
"""32 bits: as much of a job's id as its short form shows."""
_RING = 1 << 64
_PLACES_REMEMBERED = 1 << 14


def job_key(job: bytes) -> bytes:
    """The key of a job: the start of its id, so that the short form is enough to find it."""
    return job[:KEY_BYTES]


def alias_key(submitter: PeerId, alias: str) -> bytes:
    return hashlib.sha256(f"alias/{submitter}/{alias}".encode()).digest()[:KEY_BYTES]


def model_key(model: str) -> bytes:
    return hashlib.sha256(f"model/{model}".encode()).digest()[:KEY_BYTES]


@lru_cache(maxsize=_PLACES_REMEMBERED)
def place_of(peer: PeerId) -> int:
    """Where a peer lies on the ring of 2**64 places."""
    return _place(b"peer/" + peer.encode())


def _place(name: bytes) -> int:
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def gap(one: int, other: int) -> int:
    """How far two places are from each other, the shorter way round."""
    ahead = (one - other) % _RING
    return min(ahead, _RING - ahead)


def nearest(key: bytes, peers: Iterable[PeerId], count: int) -> list[PeerId]:
    """The ``count`` peers that are responsible for ``key``, nearest first."""
    return nearest_to(_place(b"key/" + key), peers, count)


def nearest_to(place: int, peers: Iterable[PeerId], count: int) -> list[PeerId]:
    return heapq.nsmallest(count, peers, key=lambda peer: gap(place, place_of(peer)))


def nearer(key: bytes, me: PeerId, peers: Iterable[PeerId], count: int) -> list[PeerId]:
    """As ``nearest``, of those that are nearer than ``me``: the next hop of a greedy walk to ``key``."""
    place = _place(b"key/" + key)
    mine = gap(place, place_of(me))
    return nearest_to(place, (peer for peer in peers if gap(place, place_of(peer)) < mine), count)
