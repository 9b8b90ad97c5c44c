"""Bounded field types that records and messages share: every text, list and number has a stated size."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol import limits
from protocol.identity import SIGNATURE_BYTES, PeerId

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""SHA-256."""
FactKey = Annotated[bytes, Meta(min_length=limits.FACT_KEY_BYTES, max_length=limits.FACT_KEY_BYTES)]
"""The start of a fact's digest."""
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]
SignatureBytes = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Payload = Annotated[bytes, Meta(max_length=limits.RECORD_BYTES_MAX)]
Settings = Annotated[bytes, Meta(max_length=limits.SETTINGS_BYTES_MAX)]
"""JSON in RFC 8785 form; opaque to the core."""
Peer = Annotated[PeerId, Meta(min_length=1, max_length=limits.PEER_ID_CHARS_MAX)]
Cid = Annotated[str, Meta(min_length=1, max_length=limits.CID_CHARS_MAX, pattern=r"^[ -~]*\Z")]
"""Printable ASCII: a merge's award lists many, so each character must be one byte."""
Name = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
Address = Annotated[str, Meta(max_length=limits.ADDRESS_CHARS_MAX)]
Count = Annotated[int, Meta(ge=0, lt=1 << 31)]
Size = Annotated[int, Meta(ge=0, lt=1 << 53)]
"""Bytes, milliseconds, or a wall-clock time in milliseconds."""
Index = Annotated[int, Meta(ge=0, lt=limits.TASKS_MAX)]
Place = Annotated[str, Meta(min_length=1, max_length=limits.PLACE_CHARS_MAX)]
"""A peer id, or a label as ``key=value``."""
Content = Annotated[bytes, Meta(max_length=limits.CONTENT_BYTES_MAX)]
"""The bytes of a small output."""
U63 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Signed 64-bit integers hold it everywhere."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all that is sent: a CBOR map of the fields that differ from their default."""


class Role(StrEnum):
    """What a task does within its stage."""

    SPLIT = "split"
    SHARD = "shard"
    MERGE = "merge"


class Link(Wire, frozen=True, kw_only=True):
    """A blob by name and size."""

    cid: Cid
    size: Size


class Output(Wire, frozen=True, kw_only=True):
    """What a task made: a blob, and the SHA-256 of its plain bytes, which is what ``sha256sum`` prints."""

    cid: Cid
    size: Size
    sha256: Digest


class Placement(Wire, frozen=True, kw_only=True):
    """On which peers a stage's tasks may run, and on which of these rather."""

    labels: Annotated[dict[Name, Name], Meta(max_length=limits.LABELS_MAX)] = msgspec.field(default_factory=dict)
    """All of these must be a peer's own; a region is the label ``region``."""
    only: Annotated[tuple[Place, ...], Meta(max_length=limits.PLACES_MAX)] = ()
    """If any are named: peers that are one of them, or have one of these labels."""
    avoid: Annotated[tuple[Place, ...], Meta(max_length=limits.PLACES_MAX)] = ()
    """Peers that are none of them, and have none of these labels."""
    near_input: bool = False
    """Rather where the inputs are already."""
    spread: Name = ""
    """``peers``, or the key of a label: evenly over peers, or over the values of that label; "" does not care."""


class Needs(Wire, frozen=True, kw_only=True):
    """What one task needs of a machine."""

    cpu_milli: Count = 1000
    memory_bytes: Size = 0
    isolation: Name = ""
    """A level that must be met exactly; "" takes any."""
    image: Text = ""
    """A container image; "" runs on the node's own Python in the sandbox."""
    max_price: Size | None = None
    """The most that is paid, in millionths of the mesh's unit for one CPU and second; none pays any price."""
    placement: Placement = Placement()


class Task(Wire, order=True, frozen=True, kw_only=True):
    """One task of a job: a stage, a role in it, and the shard if the role is shard (else 0)."""

    stage: Annotated[int, Meta(ge=0, lt=limits.STAGES_MAX)] = 0
    role: Role = Role.SHARD
    index: Index = 0


class Range(Wire, frozen=True, kw_only=True):
    """Shards from ``start`` up to, not including, ``stop``."""

    start: Count
    stop: Count


class Ballot(Wire, order=True, frozen=True, kw_only=True):
    """Under which a steward acts: configuration, epoch, peer; compared within one configuration only."""

    config: Count = 0
    epoch: Count = 0
    peer: Peer


class Holder(Wire, frozen=True, kw_only=True):
    """A peer that keeps a job's record, together with the store it keeps it in: a new disk is a new holder."""

    peer: Peer
    store: Nonce
