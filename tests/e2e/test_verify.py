"""What a job's details say can be checked offline, and nothing of it can be changed unnoticed."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshnode.devmesh import DevMesh
from tests.e2e.conftest import Workshop, details_of, ended, infra


@pytest.fixture(scope="module")
def details(mesh: DevMesh, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    workshop = Workshop(tmp_path_factory.mktemp("verify"))
    workshop.model()
    job = workshop.submit(mesh.nodes[0], workshop.job(2))
    assert ended(mesh.nodes[1], job).status == "success"
    return details_of(mesh.nodes[2], job)


def flipped(text: str, at: int) -> str:
    data = bytearray(base64.b64decode(text))
    data[at % len(data)] ^= 1
    return base64.b64encode(data).decode()


def flip_vote(document: dict[str, Any], index: int) -> None:
    vote = document["record"]["chain"][0]["votes"][index]
    vote["signed"] = flipped(vote["signed"], 10)


def verify(tmp_path: Path, document: object) -> tuple[int, dict[str, Any]]:
    path = tmp_path / "details.json"
    path.write_text(json.dumps(document))
    done = infra("verify", path, "--json")
    return done.code, json.loads(done.out)


def test_what_the_mesh_says_holds(details: dict[str, Any], tmp_path: Path) -> None:
    code, found = verify(tmp_path, details)
    assert (code, found["ok"], found["receipts"]) == (0, True, 4), found


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("receipts[0]", lambda d: d["receipts"][0].update(signed=flipped(d["receipts"][0]["signed"], 3))),
    ("receipts[1]", lambda d: d["receipts"][1].update(signed=flipped(d["receipts"][1]["signed"], 200))),
    ("awards[0]", lambda d: d["awards"][0].update(signed=flipped(d["awards"][0]["signed"], -1))),
    ("spec", lambda d: d["spec"].update(signed=flipped(d["spec"]["signed"], 100))),
    ("receipts[0]", lambda d: d["receipts"][0].update(run_ms=d["receipts"][0]["run_ms"] + 1)),
    ("receipts[1]", lambda d: d["receipts"][1].update(output_hash="0x" + "0" * 64)),
    ("receipts[0]", lambda d: d["receipts"][0].update(node_id=d["spec"]["submitter"])),
    ("output_hash", lambda d: d.update(output_hash="0x" + "0" * 64)),
    ("record.chain[0].votes[1]", lambda d: flip_vote(d, 1)),
    ("status", lambda d: d["record"]["chain"].clear()),
    ("record.chain[0]", lambda d: d["record"]["chain"][0]["votes"].pop()),
    ("record.final", lambda d: d["record"]["final"].update(encoded=flipped(d["record"]["final"]["encoded"], 50))),
    ("completed_at", lambda d: d.update(completed_at=d["issued_at"])),
]


@pytest.mark.parametrize(("place", "change"), CHANGES)
def test_a_change_is_found_and_named(
    details: dict[str, Any], tmp_path: Path, place: str, change: Callable[[dict[str, Any]], object]
) -> None:
    document = copy.deepcopy(details)
    change(document)
    code, found = verify(tmp_path, document)
    assert code == 1
    assert any(problem["place"].startswith(place) for problem in found["problems"]), found["problems"]
