"""The work of the comparison on this mesh: four peers of one slot, a warm model, every receipt signed and checked."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from measure import NOOPS, ROUND_TRIPS, ROUNDS, SHARD_S, SHARDS, WORKERS, cpu_s, median_s, report

from meshnode.client.client import Client
from meshnode.devmesh import DevMesh
from protocol.identity import Ed25519Verifier
from protocol.verify import verify

MODEL = """\
model_id: sleeper
command: [python3, sleeper.py]
serve: warm
"""
PROGRAM = """\
import time

from meshmodel import serve


def answer(given):
    time.sleep(given.get("sleep_s", 0))
    return given["range"]["start"] if "range" in given else None


serve(answer)
"""


class Jobs:
    """Jobs handed in one after the other, each followed to its end."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._path = folder / "job.json"
        self._number = 0
        self.last = ""

    def run(self, count: int, sleep_s: float = 0) -> None:
        self._number += 1  # no two jobs have the same input
        value: dict[str, Any] = {"number": self._number, "sleep_s": sleep_s}
        job: dict[str, Any] = {"model": "sleeper", "input": value}
        if count > 1:
            value["range"] = {"start": 0, "stop": count, "step": 1}
            job |= {"multi_node": {"split_mode": "range", "merge_strategy": "concat-json"}}
        self._path.write_text(json.dumps(job))
        self.last = self._client.submit(self._path).full_id
        ended = self._client.wait(self.last)
        assert (ended.status, ended.succeeded) == ("success", count), ended
        if count > 1:
            output = json.loads(b"".join(self._client.output(self.last)[1]))
            assert output == list(range(count))

    def check_last(self) -> None:
        """Every receipt, award and vote of the last job holds."""
        problems = verify(self._client.details(self.last), Ed25519Verifier())
        assert not problems, problems[:3]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mesh-comparison-") as name:
        folder = Path(name)
        (folder / "model").mkdir()
        (folder / "model" / "model.yaml").write_text(MODEL)
        (folder / "model" / "sleeper.py").write_text(PROGRAM)
        with DevMesh.run(folder / "mesh", WORKERS, slots=1) as mesh, mesh.nodes[0].client() as client:
            client.publish(folder / "model")
            jobs = Jobs(client, folder)
            jobs.run(20 * WORKERS)  # by now every peer has the model, and most of them run it
            before = cpu_s(os.getpid())
            noops_s = median_s(lambda: jobs.run(NOOPS), ROUNDS)
            cpu = cpu_s(os.getpid()) - before
            jobs.check_last()
            report(
                "mesh",
                version("meshnode"),
                noop_shards_per_s=NOOPS / noops_s,
                cpu_ms_per_shard=1000 * cpu / (ROUNDS * NOOPS),
                shards16_s=median_s(lambda: jobs.run(SHARDS, SHARD_S), ROUNDS),
                one_shard_s=median_s(lambda: jobs.run(1), ROUND_TRIPS),
            )


if __name__ == "__main__":
    main()
