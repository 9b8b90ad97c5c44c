"""Models that stay loaded, on a real mesh: many small shards, a killed process, and nothing left at the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

from meshnode.devmesh import DevMesh, wait_for
from tests.e2e.conftest import Workshop, details_of, ended, output_of, squares

PROGRAM = """
import os, time, uuid
from meshmodel import serve

loaded = uuid.uuid4().hex

def handler(input):
    time.sleep(input.get("seconds", 0))
    return [{"square": number * number, "loaded": loaded} for number in input["items"]]

serve(handler)
"""


def processes_of(mark: str) -> list[int]:
    """The processes of models whose command ends in ``mark``: Python itself, not what starts and confines it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes()
                if line.endswith(f"main.py\0{mark}\0".encode()) and line.count(b"\0") == 3:
                    found.append(int(folder.name))
    return found


def test_many_small_shards_are_answered_by_a_few_processes(mesh: DevMesh, workshop: Workshop) -> None:
    workshop.model(PROGRAM, serve="warm")
    done = ended(mesh.nodes[3], workshop.submit(mesh.nodes[0], workshop.job(600)))
    assert (done.status, done.succeeded, done.total_shards) == ("success", 600, 600)
    output = json.loads(output_of(mesh.nodes[1], done.full_id))
    assert [item["square"] for item in output] == squares(600)
    slots = 4 * len(os.sched_getaffinity(0))
    assert len({item["loaded"] for item in output}) <= slots, "at most one process for each slot of four nodes"


def test_a_kill_of_the_models_process_costs_one_attempt(own_mesh: Callable[..., DevMesh], workshop: Workshop) -> None:
    mark = uuid.uuid4().hex
    workshop.model(PROGRAM, serve="warm", command=["python3", "main.py", mark])
    mesh = own_mesh(2)
    job = workshop.submit(mesh.nodes[0], workshop.job(4, seconds=3))
    assert wait_for(lambda: bool(processes_of(mark)), 60)
    os.kill(processes_of(mark)[0], signal.SIGKILL)
    done = ended(mesh.nodes[1], job)
    assert (done.status, done.succeeded, done.failed) == ("success", 4, 0)
    assert [item["square"] for item in json.loads(output_of(mesh.nodes[1], job))] == squares(4)
    attempts = sorted(receipt["attempt"] for receipt in details_of(mesh.nodes[0], job)["receipts"])
    assert attempts[-2:] == [1, 2], "one task ran twice"
    assert processes_of(mark), "the models wait for more work"
    os.kill(mesh.nodes[0].pid, signal.SIGTERM)
    mesh.nodes[1].kill()
    assert wait_for(lambda: not processes_of(mark), 20), "a node has left a model's process behind"
