"""What the holders of a job decide, and how it is proved. ``docs/specs/record.md``.

Each configuration of holders has one register, which decides once: who the next holders are, or how the job ended.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from protocol import limits
from protocol.codec import encode
from protocol.signing import Signed
from protocol.wire import Ballot, Digest, Holder, Name, Output, Peer, Size, Task, Text, Wire

_DIGESTS_REMEMBERED = 64
"""The end of a job is compared with what was voted for at each message about it, and is long to encode."""

Shards = Annotated[int, Meta(ge=0, le=limits.SHARDS_MAX)]


class Next(Wire, frozen=True, kw_only=True, tag="next", tag_field="kind"):
    """Other holders take over the record, and this one of them the job, under epoch 0 of their configuration."""

    holders: Annotated[tuple[Holder, ...], Meta(min_length=1, max_length=limits.HOLDERS_MAX)]
    steward: Peer


class Final(Wire, frozen=True, kw_only=True, tag="final", tag_field="kind"):
    """The job has ended as the body with this digest says."""

    body: Digest


Decree = Next | Final


class Entry(Wire, frozen=True, kw_only=True):
    """The one receipt that counts for a task; none if the task failed."""

    task: Task
    receipt: Digest | None = None


class FinalBody(Wire, frozen=True, kw_only=True, cache_hash=True):
    """How a job ended: one entry per task, closed under what each of them read."""

    job: Digest
    status: Name
    """``success``, ``failed`` or ``cancelled``."""
    error: Text = ""
    entries: Annotated[tuple[Entry, ...], Meta(max_length=limits.TASKS_MAX + 2)] = ()
    total_shards: Shards = 0
    succeeded: Shards = 0
    failed: Shards = 0
    output: Output | None = None
    keepers: Annotated[tuple[Peer, ...], Meta(max_length=8)] = ()
    """Who had the output then."""
    completed_at: Size
    clock: Size
    """The median of a majority's wall clocks then."""


class Certificate(Wire, frozen=True, kw_only=True):
    """A decree, and the votes of a majority for it in one ballot."""

    ballot: Ballot
    decree: Decree
    votes: Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=limits.HOLDERS_MAX)]


Chain = Annotated[tuple[Certificate, ...], Meta(max_length=limits.CONFIGURATIONS_MAX)]
"""The certificates of a job, from the configuration that its spec names on."""


@lru_cache(maxsize=_DIGESTS_REMEMBERED)
def digest_of(value: Decree | FinalBody) -> bytes:
    """SHA-256 of its bytes: what is voted for."""
    return hashlib.sha256(encode(value)).digest()


def majority(holders: int) -> int:
    return holders // 2 + 1
