"""Where in the mesh something is to be found: at the peers whose hash with its key is smallest.

Rendezvous (highest random weight) hashing, Thaler and Ravishankar 1998: every peer ranks the peers it knows, and two
peers that know the same ones agree without talking.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from functools import lru_cache

from protocol.identity import PeerId

KEY_BYTES = 4
"""32 bits: as much of a job's id as its short form shows."""
_DISTANCES_REMEMBERED = 1 << 14
"""The same few keys are held against the same peers at each refresh; entries are about 200 bytes."""


def job_key(job: bytes) -> bytes:
    """The key of a job: the start of its id, so that the short form is enough to find it."""
    return job[:KEY_BYTES]


def alias_key(submitter: PeerId, alias: str) -> bytes:
    return hashlib.sha256(f"alias/{submitter}/{alias}".encode()).digest()[:KEY_BYTES]


def model_key(model: str) -> bytes:
    return hashlib.sha256(f"model/{model}".encode()).digest()[:KEY_BYTES]


@lru_cache(maxsize=_DISTANCES_REMEMBERED)
def distance(key: bytes, peer: PeerId) -> bytes:
    """Compares as smaller the more a peer is responsible for ``key``."""
    return hashlib.sha256(key + peer.encode()).digest()


def nearest(key: bytes, peers: Iterable[PeerId], count: int) -> list[PeerId]:
    """The ``count`` peers that are responsible for ``key``, nearest first."""
    return heapq.nsmallest(count, peers, key=lambda peer: distance(key, peer))


def nearer(key: bytes, me: PeerId, peers: Iterable[PeerId], count: int) -> list[PeerId]:
    """As ``nearest``, of those that are nearer than ``me``: the next hop of a greedy walk to ``key``.

    Over random views of v peers a walk comes v times nearer with each hop, so it ends after log_v(mesh size).
    """
    mine = distance(key, me)
    return nearest(key, (peer for peer in peers if distance(key, peer) < mine), count)
