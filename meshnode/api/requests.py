"""The operations that are offered to strangers, and their arguments: bounded, and checked before anything is done."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol import limits

REQUEST_BYTES_MAX = 256 * 1024
"""One request without the blobs it is about."""

SIGNED_CHARS_MAX = (limits.RECORD_BYTES_MAX + 64) * 4 // 3 + 4
Signed = Annotated[str, Meta(max_length=SIGNED_CHARS_MAX)]
"""A signed record as ``protocol.show.show_signed`` has it."""
JobText = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
"""A job's full id, the start of it in any spelling, or its alias."""
PeerText = Annotated[str, Meta(max_length=limits.PEER_ID_CHARS_MAX)]
Peers = Annotated[tuple[PeerText, ...], Meta(max_length=15)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """Base of all requests."""


class Propose(Request, frozen=True, kw_only=True, tag="propose"):
    """Who could hold a job?"""

    durability: Annotated[int, Meta(ge=1, le=2)] = 1


class Resolve(Request, frozen=True, kw_only=True, tag="resolve"):
    """Which model is meant by this name, ``publisher/name`` or CID?"""

    model: Annotated[str, Meta(min_length=1, max_length=2 * limits.NAME_CHARS_MAX)]


class Submit(Request, frozen=True, kw_only=True, tag="submit"):
    """A signed job spec; ``sources`` are peers that have blobs of it, besides whoever hands it in."""

    signed: Signed
    sources: Peers = ()


class OfOneJob(Request, frozen=True, kw_only=True):
    """Base of requests about a job; ``submitter`` is whose aliases come first."""

    job: JobText
    submitter: PeerText = ""


class GetJob(OfOneJob, frozen=True, kw_only=True, tag="job"):
    """How is it doing?"""


class GetDetails(OfOneJob, frozen=True, kw_only=True, tag="details"):
    """With every task, receipt and award."""


class GetOutput(OfOneJob, frozen=True, kw_only=True, tag="output"):
    """Have the job's output at the node, ready to be fetched from there."""

    files: bool = False
    """With the files to which it links."""


class Cancel(Request, frozen=True, kw_only=True, tag="cancel"):
    """A cancel signed by the job's submitter."""

    signed: Signed


AnyRequest = Propose | Resolve | Submit | GetJob | GetDetails | GetOutput | Cancel
