"""How the record of a job is shown: what its holders decided, certificate by certificate, and how it ended.

Votes carry their signed bytes. Nobody signs the body of the end itself: its holders vote for the hash of its
``encoded`` bytes, which stand beside what was read from them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from protocol import codec
from protocol.decrees import Certificate, Decree, Entry, Final, FinalBody, Next
from protocol.errors import RemoteProtocolError
from protocol.records import Vote
from protocol.show import (
    read_base64,
    read_signed,
    show_ballot,
    show_hash,
    show_holder,
    show_output,
    show_signed,
    show_time,
)
from protocol.signing import Opened
from protocol.wire import Role

Json = dict[str, Any]

_BODY_BYTES_MAX = 256 * 1024
_DECREE_KINDS: dict[str, type[Decree]] = {"next": Next, "final": Final}


class ShownVotes(msgspec.Struct, frozen=True):
    """A certificate with its votes opened."""

    certificate: Certificate
    votes: Sequence[Opened[Vote]]


def show_record(certificates: Iterable[ShownVotes], body: FinalBody | None) -> Json:
    """``final`` is null as long as the job has not ended."""
    return {
        "chain": [show_certificate(one) for one in certificates],
        "final": show_body(body) if body is not None else None,
    }


def show_certificate(shown: ShownVotes) -> Json:
    certificate = shown.certificate
    return {
        "ballot": show_ballot(certificate.ballot),
        "decree": _decree(certificate.decree),
        "votes": [
            {"node_id": vote.record.peer, "store": vote.record.store.hex(), "signed": show_signed(vote.signed)}
            for vote in shown.votes
        ],
    }


def _decree(decree: Decree) -> Json:
    match decree:
        case Final(body=digest):
            return {"kind": "final", "body": show_hash(digest)}
        case Next(holders=holders, steward=steward):
            return {"kind": "next", "holders": [show_holder(holder) for holder in holders], "steward": steward}


def show_body(body: FinalBody) -> Json:
    return {
        "full_id": body.job.hex(),
        "status": body.status,
        "error": body.error,
        "entries": [_entry(entry) for entry in body.entries],
        "total_shards": body.total_shards,
        "succeeded": body.succeeded,
        "failed": body.failed,
        "output": show_output(body.output),
        "keepers": list(body.keepers),
        "completed_at": show_time(body.completed_at),
        "clock": show_time(body.clock),
        "encoded": base64.b64encode(codec.encode(body)).decode("ascii"),
    }


def _entry(entry: Entry) -> Json:
    return {
        "stage": entry.task.stage,
        "role": entry.task.role.value,
        "shard_index": entry.task.index if entry.task.role is Role.SHARD else None,
        "receipt": show_hash(entry.receipt) if entry.receipt is not None else None,
    }


# -- and back ------------------------------------------------------------------------------------------------


def read_certificate(shown: object) -> Certificate:
    """The certificate behind what is shown; its votes are not checked here. Raises RemoteProtocolError."""
    match shown:
        case {"ballot": dict() as ballot, "decree": dict() as decree, "votes": list() as votes}:
            value = {
                "ballot": {"config": ballot.get("config"), "epoch": ballot.get("epoch"), "peer": ballot.get("node_id")},
                "decree": _read_decree(decree),
                "votes": [read_signed(vote.get("signed") if isinstance(vote, dict) else None) for vote in votes],
            }
        case _:
            raise RemoteProtocolError("is no certificate: a ballot, a decree and votes were expected")
    try:
        return msgspec.convert(value, Certificate, builtin_types=(bytes,), from_attributes=True)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"is no certificate: {error}") from None


def _read_decree(shown: Json) -> Json:
    match shown:
        case {"kind": "final", "body": str(digest)}:
            return {"kind": "final", "body": _bytes(digest.removeprefix("0x"))}
        case {"kind": "next", "holders": list(holders), "steward": steward}:
            peers = [holder if isinstance(holder, dict) else {} for holder in holders]
            return {
                "kind": "next",
                "holders": [{"peer": one.get("node_id"), "store": _bytes(one.get("store"))} for one in peers],
                "steward": steward,
            }
    raise RemoteProtocolError("its decree is neither next holders nor an end")


def _bytes(text: object) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError:
        raise RemoteProtocolError("its decree has something else where hex digits were expected") from None


def read_body(shown: object) -> FinalBody:
    """The body behind what is shown, by its ``encoded`` bytes. Raises RemoteProtocolError."""
    encoded = read_base64(shown.get("encoded") if isinstance(shown, dict) else None)
    return codec.decode_as(encoded, FinalBody, max_bytes=_BODY_BYTES_MAX)
