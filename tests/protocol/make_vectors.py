"""Writes the test vectors: ``python -m tests.protocol.make_vectors``. Commit only what was meant to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol import auction, rendezvous
from protocol.codec import encode
from protocol.decrees import Certificate, Final, Next
from protocol.decrees import digest_of as decree_digest
from protocol.facts import key_of
from protocol.identity import Ed25519Signer, PeerId, public_key_of
from protocol.limits import FACT_KEY_BYTES, SKETCH_VALUES_MAX
from protocol.mesh_size import MeshSize, sketch_value
from protocol.messages import encode_message
from protocol.signing import signing_input
from protocol.wire import Ballot
from tests.protocol.mesh import signer
from tests.protocol.samples import (
    body,
    certificate,
    digest_of,
    every_fact,
    every_message,
    every_record,
    forged,
    holder,
    kind_of,
    nonce_of,
    spec,
    vote,
)

FOLDER = Path(__file__).parent / "vectors"
NAMES = ("ann", "bob", "cat", "dan", "eve", "submitter", "publisher")
EPOCH = 6_000_000
#: Tasks, and of each bidder when its slots are free, what a task takes, what it has to fetch first.
SCHEDULES: tuple[tuple[int, tuple[tuple[tuple[int, ...], int, int], ...]], ...] = (
    (16, (((0,), 1000, 0),) * 4),
    (9, (((0,), 1000, 0), ((0,), 8000, 0))),
    (8, (((0,), 1000, 0), ((0,), 8000, 0))),
    (10, (((0, 0), 1000, 500), ((300,), 500, 0))),
    (5, (((0,), 1000, 0), ((0,), 1000, 5000))),
)


def vectors() -> dict[str, Any]:
    """File name to content."""
    return {
        "identity.json": _identity(),
        "records.json": _records(),
        "frames.json": {kind: encode_message(message).hex() for kind, message in every_message().items()},
        "auction.json": _auction(),
        "mesh-size.json": _mesh_size(),
        "rendezvous.json": _rendezvous(),
        "record.json": _record(),
    }


def _identity() -> list[dict[str, str]]:
    """Seeds are SHA-256 of the names."""
    found = []
    for name in NAMES:
        seed = digest_of(name)
        key = Ed25519Signer(seed)
        found.append(
            {
                "name": name,
                "seed": seed.hex(),
                "public_key": public_key_of(key.peer_id).hex(),
                "peer_id": key.peer_id,
                "message": name.encode().hex(),
                "signature": key.sign(name.encode()).hex(),
            }
        )
    return found


def _records() -> dict[str, dict[str, str]]:
    return {
        kind: {
            "signer": opened.record.signer,
            "payload": opened.signed.payload.hex(),
            "signing_input": signing_input(kind_of(opened.record), opened.signed.payload).hex(),
            "signature": opened.signed.signature.hex(),
            "digest": opened.digest.hex(),
        }
        for kind, opened in every_record().items()
    }


def _peers() -> list[PeerId]:
    return [signer(name).peer_id for name in NAMES]


def _auction() -> dict[str, Any]:
    announcement = digest_of("announcement")
    return {
        "announcement": announcement.hex(),
        "lots": [
            {"peer": peer, "purpose": purpose, "lot": auction.draw(announcement, peer, purpose)}
            for peer in _peers()
            for purpose in ("bid", "refusal")
        ],
        "thresholds": [
            {"wanted": wanted, "candidates": count, "threshold": auction.threshold(wanted, count)}
            for wanted, count in ((16, 10), (16, 16), (16, 17), (16, 1_000), (32, 100_000))
        ],
        "ties": [{"peer": peer, "tie": auction.tie_break(announcement, peer).hex()} for peer in _peers()],
        "shares": [
            {
                "tasks": tasks,
                "turns": [{"free_ms": free, "task_ms": task, "fetch_ms": fetch} for free, task, fetch in turns],
                "shares": auction.shares(
                    tasks,
                    [
                        auction.Turn(tuple(free), task, fetch, (0, bytes([number])))
                        for number, (free, task, fetch) in enumerate(turns)
                    ],
                ),
            }
            for tasks, turns in SCHEDULES
        ],
        "capacities": [
            {"slots": slots, "task_ms": task, "ahead_ms": ahead, "capacity": auction.capacity(slots, task, ahead)}
            for slots, task, ahead in ((1, 100, 1000), (2, 300, 1000), (4, 5000, 1000))
        ],
        "award_sizes": [
            {
                "share": share,
                "held": held,
                "slots": slots,
                "limit": limit,
                "size": auction.award_size(share, held, slots, limit),
            }
            for share, held, slots, limit in (
                (16, 0, 1, 11),
                (16, 0, 4, 4),
                (100, 6, 1, 11),
                (100, 7, 1, 11),
                (3, 1, 1, 11),
                (0, 0, 1, 1),
            )
        ],
    }


def _mesh_size() -> dict[str, Any]:
    sketches = []
    for peers in (1, 31, 32, 33, 1_000):
        size = MeshSize(PeerId("peer-0"), EPOCH)
        for number in range(peers):
            size.add(PeerId(f"peer-{number}"))
        sketches.append({"peers": peers, "values": list(size.values), "estimate": size.estimate(size.epoch)})
    return {
        "epoch": EPOCH,
        "k": SKETCH_VALUES_MAX,
        "values": [{"peer": peer, "epoch": EPOCH, "value": sketch_value(peer, EPOCH)} for peer in _peers()],
        "sketches_of_peer_0_to_n": sketches,
    }


def _rendezvous() -> dict[str, Any]:
    job = spec()
    submitter = signer("submitter").peer_id
    keys = {
        "job": rendezvous.job_key(job.digest),
        "alias": rendezvous.alias_key(submitter, "stars"),
        "model": rendezvous.model_key("features-v1"),
    }
    return {
        "job": job.digest.hex(),
        "submitter": submitter,
        "alias": "stars",
        "model": "features-v1",
        "keys": {name: key.hex() for name, key in keys.items()},
        "nearest_first": {name: rendezvous.nearest(key, _peers(), len(NAMES)) for name, key in keys.items()},
    }


def _record() -> dict[str, Any]:
    """Facts, decrees, and a chain of a change of holders and an end; then certificates that are none."""
    job, end = spec(), body()
    change, final = _next("ann", "cat", "dan"), Final(body=decree_digest(end))
    first = certificate(job, change)
    last = certificate(job, final, by=("ann", "dan"), ballot=Ballot(config=1, peer=change.steward))
    facts = every_fact()
    keys = [key_of(fact) for fact in facts]
    mark = 0
    for key in keys:
        mark ^= int.from_bytes(key, "big")
    return {
        "facts": [
            {"kind": str(fact.__struct_config__.tag), "bytes": encode(fact).hex(), "key": key.hex()}
            for fact, key in zip(facts, keys, strict=True)
        ],
        "mark": mark.to_bytes(FACT_KEY_BYTES, "big").hex(),
        "next": {"bytes": encode(change).hex(), "digest": decree_digest(change).hex()},
        "final": {"bytes": encode(final).hex(), "digest": decree_digest(final).hex()},
        "body": {"bytes": encode(end).hex(), "digest": decree_digest(end).hex()},
        "spec": {"payload": job.signed.payload.hex(), "signature": job.signed.signature.hex()},
        "chain": [encode(one).hex() for one in (first, last)],
        "configurations": [
            {
                "holders": [{"peer": one.peer, "store": one.store.hex()} for one in named.holders],
                "steward": named.steward,
            }
            for named in (job.record, change)
        ],
        "invalid": [
            {"why": why, "after": after, "certificate": encode(wrong).hex()} for why, after, wrong in _invalid(final)
        ],
        "not_next": [
            {"why": "of a configuration that is not known yet", "after": 0, "certificate": encode(last).hex()},
            {"why": "of a configuration that has decided", "after": 1, "certificate": encode(first).hex()},
            {"why": "the job has ended", "after": 2, "certificate": encode(last).hex()},
        ],
    }


def _next(*names: str, steward: str = "ann") -> Next:
    return Next(holders=tuple(holder(name) for name in names), steward=signer(steward).peer_id)


def _invalid(final: Final) -> list[tuple[str, int, Certificate]]:
    """Why, how many certificates of the chain come before it, and the certificate."""
    job, other, second = spec(), spec(nonce=nonce_of("other")), Ballot(config=1, peer=signer("ann").peer_id)
    good, later = certificate(job, final), Ballot(epoch=1, peer=signer("bob").peer_id)

    def of(*votes: Any) -> Certificate:
        return Certificate(ballot=good.ballot, decree=final, votes=tuple(one.signed for one in votes))

    ann, bob = vote(job, final, by="ann"), vote(job, final, by="bob")
    return [
        ("one vote of three", 0, certificate(job, final, by=("ann",))),
        ("one voter twice", 0, of(ann, ann)),
        ("a voter that is no holder", 0, certificate(job, final, by=("ann", "dan"))),
        ("a voter that is no holder any more", 1, certificate(job, final, by=("ann", "bob"), ballot=second)),
        ("a holder with another store", 0, of(ann, vote(job, final, by="bob", store=nonce_of("a new disk")))),
        ("a vote for another decree", 0, of(ann, vote(job, _next("ann", "cat", "dan"), by="bob"))),
        ("a vote in another ballot", 0, of(ann, vote(job, final, by="bob", ballot=later))),
        ("a vote for another job", 0, of(ann, vote(other, final, by="bob"))),
        (
            "a third vote that is forged",
            0,
            Certificate(
                ballot=good.ballot,
                decree=final,
                votes=(ann.signed, bob.signed, forged(vote(job, final, by="cat").signed)),
            ),
        ),
        ("a steward that is none of the next holders", 0, certificate(job, _next("bob", "cat", "dan"))),
        ("a peer twice among the next holders", 0, certificate(job, _next("ann", "cat", "cat"))),
    ]


def text_of(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_text(text_of(content))


if __name__ == "__main__":
    main()
