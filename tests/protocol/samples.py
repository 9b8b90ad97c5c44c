"""One example of everything that goes on the wire: every field set, always the same bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from protocol import facts, messages, records
from protocol.decrees import Certificate, Entry, Final, FinalBody, Next
from protocol.decrees import digest_of as decree_digest
from protocol.identity import Ed25519Signer
from protocol.messages import Message
from protocol.records import Record
from protocol.rendezvous import job_key
from protocol.signing import Opened, Signed, sign
from protocol.wire import Ballot, Holder, Link, Needs, Output, Placement, Range, Role, Task
from tests.protocol.mesh import START_WALL, signer

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def nonce_of(text: str) -> bytes:
    return digest_of(text)[:16]


def link_of(text: str, size: int = 1000) -> Link:
    return Link(cid=f"bafkrei{digest_of(text).hex()[:52]}", size=size)


def output_of(text: str, size: int = 100) -> Output:
    return Output(cid=link_of(text).cid, size=size, sha256=digest_of(text))


def holder(name: str) -> Holder:
    return Holder(peer=signer(name).peer_id, store=nonce_of(f"store of {name}"))


# -- records by name of their signer; any field can be given --------------------------------------------------


def capability(name: str, **fields: Any) -> Opened[records.Capability]:
    key = fields.pop("key", None) or signer(name)
    defaults: dict[str, Any] = {
        "peer": key.peer_id,
        "mesh": "test",
        "incarnation": 1,
        "revision": 1,
        "store": nonce_of(f"store of {name}"),
        "addresses": (f"/ip4/192.0.2.1/tcp/4001/p2p/{key.peer_id}",),
        "cpu_milli": 1000,
        "memory_bytes": 1 << 30,
        "isolation": ("namespace",),
        "labels": {"region": "eu"},
        "price": 2_000,
        "version": "0.1.0",
        "issued_at": START_WALL,
        "not_after": START_WALL + 75_000,
    }
    return sign(records.Capability(**(defaults | fields)), key)


def stage(**fields: Any) -> records.StageSpec:
    defaults: dict[str, Any] = {
        "name": "features",
        "model": "features-v1",
        "manifest": link_of("manifest"),
        "needs": Needs(cpu_milli=500, memory_bytes=1 << 29, isolation="namespace", image=""),
        "split": "tile",
        "merge": "concat-json",
        "settings": b'{"params":{"threshold":0.1}}',
        "shard_count": 4,
        "max_shards": 16,
        "timeout_ms": 30_000,
        "attempts": 3,
        "max_lost": 8,
        "allow_failures": 1,
    }
    return records.StageSpec(**(defaults | fields))


def spec(steward: str = "ann", *, submitter: str = "submitter", **fields: Any) -> Opened[records.JobSpec]:
    key = signer(submitter)
    defaults: dict[str, Any] = {
        "mesh": "test",
        "submitter": key.peer_id,
        "alias": "stars",
        "nonce": nonce_of("job"),
        "issued_at": START_WALL,
        "not_after": START_WALL + HOUR_MS,
        "deadline_ms": 10 * MINUTE_MS,
        "priority": 6,
        "durability": 1,
        "holders": (holder(steward), holder("bob"), holder("cat")),
        "steward": signer(steward).peer_id,
        "input": link_of("input"),
        "blobs": (link_of("input"), link_of("manifest")),
        "stages": (stage(),),
    }
    return sign(records.JobSpec(**(defaults | fields)), key)


def announcement(steward: str = "ann", **fields: Any) -> Opened[records.Announcement]:
    key = signer(steward)
    defaults: dict[str, Any] = {
        "job": digest_of("job"),
        "stage": 0,
        "round": 1,
        "steward": key.peer_id,
        "ballot": Ballot(peer=key.peer_id),
        "needs": Needs(cpu_milli=500, memory_bytes=1 << 29),
        "tasks": 4,
        "task_timeout_ms": 30_000,
        "inputs": (link_of("input").cid,),
        "submitter": signer("submitter").peer_id,
        "model": "features-v1",
        "bid_threshold": (1 << 63) - 1,
        "refusal_threshold": (1 << 63) - 1,
        "issued_at": START_WALL,
        "not_after": START_WALL + 20_000,
    }
    return sign(records.Announcement(**(defaults | fields)), key)


def award(
    job: Opened[records.JobSpec] | None = None, *, steward: str = "ann", worker: str = "bob", **fields: Any
) -> Opened[records.Award]:
    key, job = signer(steward), job or spec(steward)
    defaults: dict[str, Any] = {
        "job": job.digest,
        "holders": job.record.holders,
        "steward": key.peer_id,
        "ballot": Ballot(peer=key.peer_id),
        "worker": signer(worker).peer_id,
        "stage": 0,
        "role": Role.SHARD,
        "ranges": (Range(start=0, stop=1), Range(start=2, stop=4)),
        "attempt": 1,
        "shards": 4,
        "split": output_of("split"),
        "split_receipt": digest_of("receipt of the split"),
        "lease_ms": MINUTE_MS,
        "nonce": 7,
        "issued_at": START_WALL,
        "not_after": START_WALL + MINUTE_MS,
    }
    return sign(records.Award(**(defaults | fields)), key)


def split_award(job: Opened[records.JobSpec] | None = None, **fields: Any) -> Opened[records.Award]:
    """An award of the split: one task, nothing before it."""
    whole: dict[str, Any] = {"role": Role.SPLIT, "ranges": (Range(start=0, stop=1),), "shards": 0, "split": None}
    return award(job, **(whole | {"split_receipt": None} | fields))


def receipt(
    given: Opened[records.Award] | None = None, *, worker: str = "bob", **fields: Any
) -> Opened[records.Receipt]:
    key, given = signer(worker), given or award()
    defaults: dict[str, Any] = {
        "job": given.record.job,
        "task": Task(role=given.record.role, index=given.record.ranges[0].start),
        "award": given.digest,
        "attempt": given.record.attempt,
        "worker": key.peer_id,
        "success": True,
        "output": output_of("shard 0"),
        "shards": 4 if given.record.role is Role.SPLIT else 0,
        "input_hash": digest_of("input of shard 0"),
        "upstream": (given.record.split_receipt,) if given.record.split_receipt else (),
        "error": "",
        "image": "",
        "runtime": "sandbox/namespace",
        "queued_ms": 3,
        "pull_ms": 0,
        "transfer_ms": 11,
        "run_ms": 268,
        "latency_ms": 282,
        "started_at": START_WALL + 100,
        "issued_at": START_WALL + 400,
    }
    return sign(records.Receipt(**(defaults | fields)), key)


def failed_receipt(given: Opened[records.Award], error: str, **fields: Any) -> Opened[records.Receipt]:
    return receipt(given, **({"success": False, "output": None, "shards": 0, "error": error} | fields))


def cancel(job: Opened[records.JobSpec] | None = None, *, submitter: str = "submitter") -> Opened[records.Cancel]:
    key = signer(submitter)
    return sign(records.Cancel(job=(job or spec()).digest, submitter=key.peer_id, issued_at=START_WALL), key)


def held(job: Opened[records.JobSpec] | None = None, *, by: str = "bob", **fields: Any) -> Opened[records.Held]:
    key, job = signer(by), job or spec()
    defaults: dict[str, Any] = {
        "job": job.digest,
        "peer": key.peer_id,
        "store": nonce_of(f"store of {by}"),
        "until": job.record.not_after,
        "issued_at": START_WALL,
    }
    return sign(records.Held(**(defaults | fields)), key)


def job_pointer(
    job: Opened[records.JobSpec] | None = None, *, steward: str = "ann", **fields: Any
) -> Opened[records.JobPointer]:
    key, job = signer(steward), job or spec(steward)
    defaults: dict[str, Any] = {
        "job": job.digest,
        "submitter": job.record.submitter,
        "alias": job.record.alias,
        "holders": job.record.holders,
        "steward": key.peer_id,
        "issued_at": START_WALL,
        "not_after": job.record.not_after,
    }
    return sign(records.JobPointer(**(defaults | fields)), key)


def model_pointer(publisher: str = "publisher", **fields: Any) -> Opened[records.ModelPointer]:
    key = signer(publisher)
    defaults: dict[str, Any] = {
        "publisher": key.peer_id,
        "model": "features-v1",
        "manifest": link_of("manifest"),
        "files": (link_of("detect.py"),),
        "keepers": (signer("ann").peer_id,),
        "withdrawn": False,
        "issued_at": START_WALL,
        "not_after": START_WALL + HOUR_MS,
    }
    return sign(records.ModelPointer(**(defaults | fields)), key)


def vote(job: Opened[records.JobSpec], decree: Final | Next, *, by: str = "ann", **fields: Any) -> Opened[records.Vote]:
    key = signer(by)
    defaults: dict[str, Any] = {
        "job": job.digest,
        "ballot": Ballot(peer=job.record.steward),
        "decree": decree_digest(decree),
        "peer": key.peer_id,
        "store": nonce_of(f"store of {by}"),
    }
    return sign(records.Vote(**(defaults | fields)), key)


def certificate(
    job: Opened[records.JobSpec], decree: Final | Next, *, by: tuple[str, ...] = ("ann", "bob"), **fields: Any
) -> Certificate:
    ballot = fields.setdefault("ballot", Ballot(peer=job.record.steward))
    votes = tuple(vote(job, decree, by=name, **fields).signed for name in by)
    return Certificate(ballot=ballot, decree=decree, votes=votes)


def body(job: Opened[records.JobSpec] | None = None, **fields: Any) -> FinalBody:
    defaults: dict[str, Any] = {
        "job": (job or spec()).digest,
        "status": "success",
        "error": "",
        "entries": (Entry(task=Task(role=Role.MERGE), receipt=digest_of("receipt of the merge")),),
        "total_shards": 4,
        "succeeded": 3,
        "failed": 1,
        "output": output_of("merged"),
        "keepers": (signer("ann").peer_id, signer("bob").peer_id),
        "completed_at": START_WALL + 5000,
        "clock": START_WALL + 5001,
    }
    return FinalBody(**(defaults | fields))


def every_fact() -> tuple[facts.AnyFact, ...]:
    job, given = spec(), award()
    done = receipt(given)
    return (
        facts.Accepted(copies=2, pointers=3, notes=("1 of 2 copies of the files could be made",)),
        facts.Kept(held=held(job).signed),
        facts.Gave(award=given.signed),
        facts.Ended(award=given.digest, outcome="lost", reason="nothing heard of it", counts=True),
        facts.Counted(receipt=done.signed),
        facts.Pinned(task=done.record.task, receipt=done.digest, ballot=Ballot(peer=job.record.steward), number=1),
        facts.Copied(receipt=done.digest, peer=signer("cat").peer_id),
        facts.Cancelled(cancel=cancel(job).signed),
    )


CHOOSY = Needs(
    cpu_milli=500,
    memory_bytes=1 << 29,
    max_price=5_000,
    placement=Placement(
        labels={"region": "eu"}, only=("gpu=a100", "rack=8"), avoid=("rack=7",), near_input=True, spread="peers"
    ),
)
"""Needs in which nothing is left at its default but the image and the isolation."""


def every_record() -> dict[str, Opened[Any]]:
    """By kind."""
    opened: tuple[Opened[Any], ...] = (
        capability("ann"),
        spec(),
        announcement(needs=CHOOSY, priority=7),
        award(price=2_000, why="spread: 3 of at most 4 tasks"),
        receipt(),
        vote(spec(), Final(body=decree_digest(body()))),
        cancel(),
        held(),
        job_pointer(),
        model_pointer(),
    )
    return {kind_of(one.record): one for one in opened}


def kind_of(value: Record | Message) -> str:
    return str(value.__struct_config__.tag)


# -- messages -------------------------------------------------------------------------------------------------


def message_fields() -> dict[type[Message], dict[str, Any]]:
    ann, bob, cat = (signer(name).peer_id for name in ("ann", "bob", "cat"))
    own, others = capability("bob").signed, (capability("cat").signed, capability("dan").signed)
    job, given = spec(), award()
    done = receipt(given)
    digest = digest_of("announcement")
    one_try = messages.TryView(worker=bob, attempt=1, award=given.digest, outcome="lost", reason="nothing heard of it")
    view = messages.JobView(
        job=job.digest,
        alias="stars",
        submitter=job.record.submitter,
        steward=ann,
        model="features-v1",
        status="success",
        merge_status="success",
        total_shards=4,
        succeeded=3,
        failed=1,
        running=0,
        output=output_of("merged"),
        error="",
        issued_at=START_WALL,
        completed_at=START_WALL + 5000,
        waiting="",
        provisional="success",
        provisional_output=output_of("merged"),
        refusals=(messages.RefusalView(peer=cat, reason="memory 1 < 2 GiB"),),
        keepers=(ann, bob),
        records=(own,),
    )
    task = messages.TaskView(task=done.record.task, status="success", tries=(one_try,), receipt=done.signed)
    final = Final(body=decree_digest(body(job)))
    chain = (
        certificate(job, Next(holders=(holder("ann"), holder("cat"), holder("dan")), steward=ann)),
        certificate(job, final, by=("ann", "cat"), ballot=Ballot(config=1, epoch=0, peer=ann)),
    )
    ballot = Ballot(config=1, epoch=2, peer=cat)
    sketch = {"epoch": 6_000_000, "sketch": (5, 17, 1 << 40)}
    return {
        messages.Join: {"capability": own, "wall_ms": START_WALL},
        messages.JoinRefused: {"reason": "not admitted to this private mesh", "wall_ms": START_WALL},
        messages.ForwardJoin: {"capability": own, "hops": 5},
        messages.Neighbour: {"capability": own, "urgent": True, "wall_ms": START_WALL},
        messages.NeighbourReply: {"accepted": True, "capability": own, "wall_ms": START_WALL},
        messages.Disconnect: {"leaving": True},
        messages.Shuffle: {"origin": own, "records": others, "hops": 3, **sketch},
        messages.ShuffleReply: {"records": others, **sketch},
        messages.Ping: {"number": 9, "capability": own, "wall_ms": START_WALL},
        messages.Ack: {"number": 9, "wall_ms": START_WALL},
        messages.ProbeRequest: {"number": 9, "target": others[0]},
        messages.ProbeResult: {"number": 9, "alive": True},
        messages.SeeMe: {"number": 10},
        messages.Seen: {"number": 10, "seen": True},
        messages.Announce: {
            "announcement": announcement().signed,
            "steward": capability("ann").signed,
            "hops": 2,
        },
        messages.Bid: {
            "announcement": digest,
            "job": job.digest,
            "stage": 0,
            "slots": 4,
            "start_in_ms": 20,
            "task_ms": 300,
            "warm": True,
            "has_inputs": True,
            "price": 1,
            "capability": own,
        },
        messages.Refusal: {"announcement": digest, "job": job.digest, "stage": 0, "reason": "memory 1 < 2 GiB"},
        messages.Offer: {
            "award": given.signed,
            "spec": job.signed,
            "chain": chain[:1],
            "sources": (ann,),
            "records": (own,),
        },
        messages.OfferAccepted: {"award": given.digest},
        messages.OfferDeclined: {"award": given.digest, "reason": "the job has ended"},
        messages.Progress: {"award": given.digest, "running": (0, 2), "left": 3, "signed": given.signed},
        messages.Receipts: {
            "job": job.digest,
            "receipts": (done.signed,),
            "awards": (given.signed,),
            "contents": (b"few",),
        },
        messages.ReceiptsAck: {"receipts": (done.digest,)},
        messages.Returned: {"award": given.digest, "reason": "the node is leaving"},
        messages.Revoke: {"award": given.digest, "reason": "the lease ran out"},
        messages.Create: {"spec": job.signed, "chain": chain},
        messages.Created: {"job": job.digest, "store": nonce_of("store of bob"), "reason": "the job has expired"},
        messages.Prepare: {"job": job.digest, "ballot": ballot, "known": (b"8 bytes.",)},
        messages.Promise: {
            "job": job.digest,
            "ballot": ballot,
            "store": nonce_of("store of bob"),
            "voted_in": Ballot(peer=ann),
            "voted_for": final,
            "body": body(job),
            "facts": every_fact(),
            "more": True,
            "lacks": (b"8 bytes.",),
            "wall_ms": START_WALL,
        },
        messages.Nack: {"job": job.digest, "ballot": ballot},
        messages.UnknownJob: {"job": job.digest},
        messages.Accept: {"job": job.digest, "ballot": ballot, "decree": final, "body": body(job)},
        messages.AcceptedVote: {"vote": vote(job, final).signed},
        messages.Decided: {"job": job.digest, "chain": chain, "body": body(job)},
        messages.Renew: {
            "renewals": (
                messages.Renewal(job=job.digest, ballot=ballot, progress=7, idle=True, facts=every_fact()[:2]),
            )
        },
        messages.Renewed: {
            "jobs": (messages.RenewedJob(job=job.digest, ballot=ballot, got=(b"8 bytes.",), mark=b"a mark.."),),
            "store": nonce_of("store of bob"),
            "wall_ms": START_WALL,
        },
        messages.WhoLeads: {"job": job.digest},
        messages.Leads: {"job": job.digest, "ballot": ballot, "chain": chain[:1], "awards": (given.digest,)},
        messages.CopyRequest: {"job": job.digest, "receipt": done.digest, "output": output_of("shard 0")},
        messages.CopyAnswer: {"job": job.digest, "receipt": done.digest, "kept": True},
        messages.HoldRequest: {"spec": job.signed, "sources": (ann,), "records": (own,)},
        messages.HoldAnswer: {"job": job.digest, "held": held().signed, "reason": "copied"},
        messages.StorePointer: {
            "pointer": job_pointer().signed,
            "keys": (job_key(job_pointer().record.job),),
            "hops": 3,
        },
        messages.PointerStored: {"pointer": job_pointer().digest},
        messages.Lookup: {"number": 1 << 47, "origin": own, "what": "job", "text": "bd92-e3f1", "hops": 3},
        messages.LookupReply: {"number": 1 << 47, "pointers": (job_pointer().signed,)},
        messages.Submit: {"number": 12, "spec": job.signed, "sources": (bob,), "records": (own,)},
        messages.SubmitReply: {
            "number": 12,
            "accepted": True,
            "reason": "again",
            "again": True,
            "copies": 2,
            "pointers": 3,
            "notes": ("1 of 2 copies of the files could be made",),
        },
        messages.CancelRequest: {"number": 13, "cancel": cancel().signed},
        messages.CancelReply: {"number": 13, "status": "cancelled", "elsewhere": cat},
        messages.StatusRequest: {"number": 14, "job": job.digest, "start": 1},
        messages.StatusReply: {
            "number": 14,
            "view": view,
            "spec": job.signed,
            "tasks": (task,),
            "awards": (given.signed,),
            "next": 2,
            "chain": chain,
            "body": body(job),
            "elsewhere": cat,
        },
    }


def every_message() -> dict[str, Message]:
    """By kind."""
    return {str(kind.__struct_config__.tag): kind(**fields) for kind, fields in message_fields().items()}


# -- keys that cost nothing -----------------------------------------------------------------------------------


class QuickSigner:
    """A keyed hash in the place of Ed25519, for tests that need thousands of signatures of thousands of peers."""

    def __init__(self, name: str) -> None:
        self.peer_id = Ed25519Signer(digest_of(name)).peer_id

    def sign(self, message: bytes) -> bytes:
        return hashlib.blake2b(message, key=self.peer_id.encode()[:64]).digest()


class QuickVerifier:
    def verify(self, signer: str, message: bytes, signature: bytes) -> bool:
        return signature == hashlib.blake2b(message, key=signer.encode()[:64]).digest()


def forged(signed: Signed) -> Signed:
    """The same record with a signature that is not its signer's."""
    return msgspec.structs.replace(signed, signature=bytes(64))
