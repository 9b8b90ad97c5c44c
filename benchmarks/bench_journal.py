"""What it costs a node to keep its promises on disk.

    python benchmarks/bench_journal.py [FOLDER]

FOLDER is on the disk to be measured, by default the current one. Prints one JSON object: how long a commit of one row
and of 64 takes, and how many events a whole node handles in a second when each of them writes a row: with the journal
for one client that waits for every answer and for 64 of them, and for 64 with a journal that keeps nothing.
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio

from meshnode.config import load_config
from meshnode.journal import Journal
from meshnode.node import Node
from protocol.effects import Record
from protocol.events import PointerPublished
from protocol.identity import Ed25519Signer
from protocol.messages import PointerStored
from protocol.records import ModelPointer
from protocol.signing import Signed, sign
from protocol.wire import Link

COMMITS = 300
ROWS = 64
ROW_BYTES = 600
EVENTS = 1_280
CLIENTS = 64


async def commit_ms(folder: Path, rows: int) -> dict[str, float]:
    """Time of one commit of ``rows`` rows, as the loop waits for it."""
    took = []
    async with Journal.open(folder / f"commits{rows}.sqlite3") as journal:
        for _ in range(COMMITS):
            batch = [Record("row", secrets.token_bytes(32), secrets.token_bytes(ROW_BYTES)) for _ in range(rows)]
            begin = time.perf_counter()
            await journal.commit(batch)
            took.append((time.perf_counter() - begin) * 1000)
    return {"p50": round(statistics.median(took), 2), "p99": round(statistics.quantiles(took, n=100)[-1], 2)}


async def events_per_s(node: Node, pointers: Sequence[Signed], clients: int) -> int:
    """Events that the node answers when ``clients`` of them hand in pointers, each one after the other."""

    async def client(share: Sequence[Signed]) -> None:
        for pointer in share:
            answer = await node.ask(lambda number, pointer=pointer: PointerPublished(number, pointer), 60)
            assert isinstance(answer, PointerStored), answer

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for first in range(clients):
            nursery.start_soon(client, pointers[first::clients])
    return round(len(pointers) / (time.perf_counter() - begin))


def signed_pointers(node: Node, count: int) -> list[Signed]:
    publisher, wall = Ed25519Signer(secrets.token_bytes(32)), node.wall()
    return [
        sign(
            ModelPointer(
                publisher=publisher.peer_id,
                model=f"model-{number}",
                manifest=Link(cid="bafkqaaa", size=0),
                files=(),
                keepers=(node.peer_id,),
                issued_at=wall,
                not_after=wall + 3_600_000,
            ),
            publisher,
        ).signed
        for number in range(count)
    ]


async def keep_nothing(journal: Journal, records: object) -> None:
    """A commit that costs nothing."""


async def measure(folder: Path) -> dict[str, object]:
    commits = {f"commit_{rows}_rows_ms": await commit_ms(folder, rows) for rows in (1, ROWS)}
    config = load_config(
        folder / "home", environment={}, flags={"listen": ["/ip4/127.0.0.1/tcp/0"], "runtime": "sandbox"}
    )
    async with Node.start(config) as node:
        one = await events_per_s(node, signed_pointers(node, EVENTS // 4), 1)
        many = await events_per_s(node, signed_pointers(node, EVENTS), CLIENTS)
        with patch.object(Journal, "commit", keep_nothing):
            unkept = await events_per_s(node, signed_pointers(node, EVENTS), CLIENTS)
    return {
        "benchmark": "journal",
        **commits,
        "row_bytes": ROW_BYTES,
        "events_per_s": {"one client": one, f"{CLIENTS} clients": many, f"{CLIENTS} clients, nothing kept": unkept},
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as temporary:
        Path(temporary).chmod(0o755)
        print(json.dumps(trio.run(measure, Path(temporary).resolve())), flush=True)
