"""What holders know of a job's work: facts that only grow, and may be lost at the price of work, never of correctness.

Here are their kinds; ``known_facts`` is what one holder knows. ``docs/specs/record.md``, "Facts".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta

from protocol import codec, limits
from protocol.limits import FACT_KEY_BYTES
from protocol.signing import Signed
from protocol.wire import Ballot, Count, Digest, FactKey, Name, Peer, Task, Text, Wire


class Fact(Wire, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all facts."""


class Accepted(Fact, frozen=True, kw_only=True, tag="accepted"):
    """What the submitter was told when the job was taken in."""

    copies: Count = 0
    pointers: Count = 0
    notes: Annotated[tuple[Text, ...], Meta(max_length=8)] = ()


class Kept(Fact, frozen=True, kw_only=True, tag="kept"):
    """A peer signed that it keeps the job's model and inputs."""

    held: Signed


class Gave(Fact, frozen=True, kw_only=True, tag="gave"):
    award: Signed


class Ended(Fact, frozen=True, kw_only=True, tag="ended"):
    """An award ended with tasks left over, as its steward saw it."""

    award: Digest
    outcome: Name
    reason: Text
    counts: bool


class Counted(Fact, frozen=True, kw_only=True, tag="counted"):
    receipt: Signed


class Pinned(Fact, frozen=True, kw_only=True, tag="pinned"):
    """The receipt that counts for a task, by the steward of a ballot; its later pins have higher numbers."""

    task: Task
    receipt: Digest
    ballot: Ballot
    number: Count


class Copied(Fact, frozen=True, kw_only=True, tag="copied"):
    """A peer has the output that a receipt names."""

    receipt: Digest
    peer: Peer


class Cancelled(Fact, frozen=True, kw_only=True, tag="cancelled"):
    """The submitter's word: a cancel, or the spec of the job that is to take this one's place."""

    cancel: Signed


AnyFact = Accepted | Kept | Gave | Ended | Counted | Pinned | Copied | Cancelled

FACT_KINDS: dict[str, type[Fact]] = {str(kind.__struct_config__.tag): kind for kind in Fact.__subclasses__()}


def key_of(fact: AnyFact) -> FactKey:
    """What tells a fact from the others of its job."""
    match fact:
        case Gave(award=signed) | Counted(receipt=signed) | Kept(held=signed) | Cancelled(cancel=signed):
            return signed.digest[:FACT_KEY_BYTES]
        case _:
            return hashlib.sha256(codec.encode(fact)).digest()[:FACT_KEY_BYTES]


def size_of(fact: AnyFact) -> int:
    """About the bytes of a fact in a message."""
    match fact:
        case Gave(award=signed) | Counted(receipt=signed) | Kept(held=signed) | Cancelled(cancel=signed):
            return len(signed.payload) + 96
        case Accepted(notes=notes):
            return 64 + sum(4 * len(note) for note in notes)
        case Ended(reason=reason):
            return 128 + 4 * len(reason)
        case _:
            return 192


def in_portions(facts: Iterable[AnyFact]) -> Iterator[tuple[AnyFact, ...]]:
    """Facts in order, as many at a time as one message carries."""
    portion: list[AnyFact] = []
    size = 0
    for fact in facts:
        weight = size_of(fact)
        if portion and (size + weight > limits.FACTS_BYTES_MAX or len(portion) >= limits.FACTS_PER_MESSAGE_MAX):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(fact)
        size += weight
    if portion:
        yield tuple(portion)
