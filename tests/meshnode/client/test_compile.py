"""What a job file, a model and a proposal become, and what no spec can hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshnode.client.compile import compile_spec
from meshnode.client.results import Holder, Proposal
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.jobfile import parse_job
from meshnode.jobs.modelfile import parse_model
from meshnode.jobs.settings import effective
from protocol.identity import Ed25519Signer
from protocol.records import JobSpec
from protocol.wire import Link, Needs, Placement

SUBMITTER = Ed25519Signer(b"s" * 32)
STEWARD = Ed25519Signer(b"t" * 32).peer_id
NOW_MS = 1_790_000_000_000
TILES = {"split_mode": "tile", "tile_size": 256, "overlap": 32, "max_shards": 32}


def compiled(job: dict[str, Any], model: dict[str, Any] | None = None, blobs: int = 2) -> JobSpec:
    job_file = parse_job({"model": "m", **job}, "job.yaml", Path())
    model_file = parse_model({"model_id": "features-v1", "command": ["true"], **(model or {})})
    proposal = Proposal(
        mesh="mesh",
        node_id=STEWARD,
        steward=STEWARD,
        holders=(Holder(node_id=STEWARD, store="ab" * 16),),
        wall_ms=NOW_MS,
    )
    return compile_spec(
        job_file,
        model_file,
        effective(model_file.layer, job_file.layer, file=job_file.file),
        proposal,
        manifest=Link(cid="manifest", size=1),
        job_input=Link(cid="input", size=2),
        blobs=[Link(cid=f"file-{index}".ljust(59, "x"), size=3) for index in range(blobs)] * 2,
        submitter=SUBMITTER.peer_id,
        nonce=b"n" * 16,
    )


def test_a_tile_job() -> None:
    spec = compiled(
        {"job_id": "bd92-e3f1", "shard_count": 16, "params": {"threshold": 0.5}, "deadline_s": 60, "priority": 9},
        {"multi_node": {**TILES, "merge_strategy": "concat-json"}, "params": {"threshold": 0.1, "scale": 2}},
    )
    assert (spec.alias, spec.priority, spec.deadline_ms, spec.issued_at) == ("bd92-e3f1", 9, 60_000, NOW_MS)
    assert spec.not_after == NOW_MS + 60_000 + 24 * 3_600_000
    assert [link.cid.rstrip("x") for link in spec.blobs] == ["input", "manifest", "file-0", "file-1"]
    assert spec.holders[0].store == bytes.fromhex("ab" * 16)
    (stage,) = spec.stages
    assert (stage.split, stage.merge, stage.shard_count, stage.max_shards) == ("tile", "concat-json", 16, 32)
    assert stage.needs == Needs(cpu_milli=1000, memory_bytes=2**30)
    assert json.loads(stage.settings) == {
        "params": {"threshold": 0.5, "scale": 2},
        "split": {"mode": "tile", "key": None, "tile_size": 256, "overlap": 32},
        "merge": {"strategy": "concat-json"},
    }


def test_a_job_with_plugins_is_placed_where_they_are() -> None:
    job = {"multi_node": {"split_mode": "acme.frames", "merge_strategy": "sum"}, "placement": {"region": "eu"}}
    (stage,) = compiled(job).stages
    assert (stage.split, stage.merge) == ("acme.frames", "sum")
    assert stage.needs.placement.labels == {"splits/acme.frames": "plug-in", "region": "eu"}


def test_what_merges_and_splits_need_to_know_is_in_the_settings() -> None:
    job = {
        "shard_count": 3,
        "multi_node": {"split_mode": "candidates", "seed": 5, "merge_strategy": "best", "prefer": "smallest"},
    }
    (stage,) = compiled(job).stages
    assert json.loads(stage.settings) == {
        "params": {},
        "split": {"mode": "candidates", "key": None, "seed": 5},
        "merge": {"strategy": "best", "prefer": "smallest"},
    }


def test_a_job_without_a_split_has_neither_split_nor_merge() -> None:
    (stage,) = compiled({}).stages
    assert (stage.split, stage.merge, stage.shard_count) == ("", "", 0)


def test_needs_come_from_model_and_job() -> None:
    image = "registry/name@sha256:" + "0" * 64
    model = {"image": image, "resources": {"cpu": 2, "memory": "4GiB"}, "timeout_s": 1.5}
    (stage,) = compiled({"resources": {"cpu": 0.25}, "isolation": "container"}, model).stages
    assert stage.needs == Needs(cpu_milli=250, memory_bytes=4 << 30, isolation="container", image=image)
    assert stage.timeout_ms == 1500


def test_placement_and_price_are_needs_of_every_task() -> None:
    placement = {"region": "eu", "near": "input", "spread": True, "avoid": ["rack=7"]}
    (stage,) = compiled({"placement": placement, "max_price": 0.5, "attempts": 2, "allow_failures": 1}).stages
    wanted = Placement(labels={"region": "eu"}, near_input=True, spread="peers", avoid=("rack=7",))
    assert stage.needs == Needs(cpu_milli=1000, memory_bytes=2**30, max_price=500_000, placement=wanted)
    assert (stage.attempts, stage.allow_failures) == (2, 1)


@pytest.mark.parametrize(
    ("job", "blobs", "sentence"),
    [
        ({"deadline_s": 100_000}, 2, "job.yaml: deadline_s: must be at most 86400, got 100000"),
        ({"max_lost": 0}, 2, "job.yaml: max_lost: must be from 1 to 100, got 0"),
        ({"params": {"text": "x" * 40_000}}, 2, "job.yaml: params: are too large: 400"),
        ({}, 600, "job.yaml: brings along 602 files with its model, more than 512"),
        ({"params": {"text": "x" * 32_000}}, 500, "job.yaml: is too large: signed, it has"),
    ],
)
def test_what_no_spec_can_hold_is_refused_with_its_place(job: dict[str, Any], blobs: int, sentence: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        compiled(job, blobs=blobs)
    assert str(caught.value).startswith(sentence)
