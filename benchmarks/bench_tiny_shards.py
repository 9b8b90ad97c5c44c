"""One job of very many tiny shards on four peers: what the mesh spends on each.

    python benchmarks/bench_tiny_shards.py [SHARDS]

Prints one JSON object: how long 100,000 shards of a ``range`` take through a warm model, from hand-in to the merged
output, which is compared; control messages per shard, all that the four nodes told each other until the end, by their
traces; how much memory the steward had at most, and before; how many receipts there are, each of which is verified.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from meshnode.devmesh import DevMesh, DevNode
from meshnode.recorder import FILE_NAME
from protocol import trace
from protocol.events import MessageReceived
from protocol.identity import Ed25519Verifier
from protocol.verify import verify

SHARDS = 100_000
PEERS = 4
MODEL = "model_id: echo\ncommand: [python3, echo.py]\nserve: warm\n"
PROGRAM = "from meshmodel import serve\nserve(lambda given: given['range']['start'])\n"


def memory_mib(node: DevNode, field: str) -> float:
    text = (Path("/proc") / str(node.pid) / "status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def messages_heard(node: DevNode) -> int:
    """By its trace so far, whose last entry may be half written."""
    count = 0
    with (node.home / FILE_NAME).open("rb") as file, contextlib.suppress(trace.TraceDamaged):
        for entry in trace.Reader(file):
            count += isinstance(entry.event, MessageReceived)
    return count


def measure(shards: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="mesh-tiny-shards-") as name:
        folder = Path(name)
        (folder / "model").mkdir()
        (folder / "model" / "model.yaml").write_text(MODEL)
        (folder / "model" / "echo.py").write_text(PROGRAM)
        job = {
            "model": "echo",
            "input": {"range": {"start": 0, "stop": shards, "step": 1}},
            "multi_node": {"split_mode": "range", "merge_strategy": "concat-json"},
        }
        (folder / "job.json").write_text(json.dumps(job))
        mesh = DevMesh(folder / "mesh", mesh="bench", runtime="sandbox", slots=1)
        (folder / "mesh").mkdir()
        try:
            mesh.add(PEERS, environment={"MESHNODE_TRACE_BYTES": str(1 << 30)})
            return _run(mesh, folder, shards)
        finally:
            mesh.close()


def _run(mesh: DevMesh, folder: Path, shards: int) -> dict[str, object]:
    with mesh.nodes[0].client() as client:
        client.publish(folder / "model")
        steward_before = {node.node_id: memory_mib(node, "VmRSS") for node in mesh.nodes}
        heard_before = sum(messages_heard(node) for node in mesh.nodes)
        began = time.perf_counter()
        accepted = client.submit(folder / "job.json")
        ended = client.wait(accepted.full_id)
        took_s = time.perf_counter() - began
        assert (ended.status, ended.succeeded) == ("success", shards), ended
        heard = sum(messages_heard(node) for node in mesh.nodes) - heard_before
        assert json.loads(b"".join(client.output(accepted.full_id)[1])) == list(range(shards))
        details = client.details(accepted.full_id)
    problems = verify(details, Ed25519Verifier())
    assert not problems, problems[:3]
    steward = next(node for node in mesh.nodes if node.node_id == details["steward"])
    return {
        "benchmark": "tiny-shards",
        "shards": shards,
        "peers": PEERS,
        "seconds": round(took_s, 1),
        "shards_per_s": round(shards / took_s),
        "messages_per_shard": round(heard / shards, 4),
        "receipts": len(details["receipts"]),
        "steward_mib_before": round(steward_before[steward.node_id], 1),
        "steward_mib_at_most": round(memory_mib(steward, "VmHWM"), 1),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else SHARDS)), flush=True)
