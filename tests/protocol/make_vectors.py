"""Writes the test vectors: ``python -m tests.protocol.make_vectors``. Commit only what was meant to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protocol import auction, rendezvous
from protocol.identity import Ed25519Signer, PeerId, public_key_of
from protocol.limits import SKETCH_VALUES_MAX
from protocol.mesh_size import MeshSize, sketch_value
from protocol.messages import encode_message
from protocol.signing import signing_input
from tests.protocol.mesh import signer
from tests.protocol.samples import digest_of, every_message, every_record, kind_of, spec

FOLDER = Path(__file__).parent / "vectors"
NAMES = ("ann", "bob", "cat", "dan", "eve", "submitter", "publisher")
EPOCH = 6_000_000


def vectors() -> dict[str, Any]:
    """File name to content."""
    return {
        "identity.json": _identity(),
        "records.json": _records(),
        "frames.json": {kind: encode_message(message).hex() for kind, message in every_message().items()},
        "auction.json": _auction(),
        "mesh-size.json": _mesh_size(),
        "rendezvous.json": _rendezvous(),
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
        "completions": [
            {
                "start_in_ms": start,
                "task_ms": task,
                "tasks": tasks,
                "slots": slots,
                "fetch_ms": fetch,
                "completion_ms": auction.expected_completion_ms(start, task, tasks, slots, fetch),
            }
            for start, task, tasks, slots, fetch in ((0, 1000, 1, 1, 600), (50, 100, 5, 2, 0), (0, 300, 8, 8, 100))
        ],
        "award_sizes": [
            {
                "ready": ready,
                "total_slots": total,
                "slots": slots,
                "task_ms": task,
                "target_ms": target,
                "size": auction.award_size(ready, total, slots, task, target),
            }
            for ready, total, slots, task, target in (
                (16, 4, 1, 0, 2000),
                (16, 16, 4, 0, 2000),
                (1000, 4, 1, 100, 2000),
                (1000, 4, 2, 5000, 2000),
                (1, 100, 1, 0, 2000),
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


def text_of(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_text(text_of(content))


if __name__ == "__main__":
    main()
