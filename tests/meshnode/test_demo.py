"""The demo's verdict: it must be able to say no."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from meshnode.cli.demo import Found, _check
from meshnode.client.results import Job

OUTPUT = b"[]"


def verdict(*, same: bool = True, fetched_from: str = "b", workers: int = 4, **job: Any) -> list[bool]:
    fields = {"total_shards": 16, "succeeded": 16, "merge_status": "success", **job}
    fields.setdefault("output_hash", f"0x{hashlib.sha256(OUTPUT).hexdigest()}")
    found = Found(
        peers=4,
        job=Job(job_id="x", full_id="x", status="success", **fields),
        per_node={str(number): {"shards": int(number < workers)} for number in range(4)},
        features=1,
        features_unsplit=1,
        submitted_to="a",
        fetched_from=fetched_from,
    )
    return [held for _, held in _check(found, {"receipts": []}, OUTPUT, same=same)]


def test_without_receipts_only_the_receipts_do_not_hold() -> None:
    assert verdict() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"succeeded": 15, "failed": 1}, 0),
        ({"merge_status": "failed"}, 0),
        ({"workers": 2}, 1),
        ({"output_hash": "0x00"}, 3),
        ({"fetched_from": "a"}, 3),
        ({"same": False}, 4),
    ],
)
def test_each_thing_that_does_not_hold_is_seen(changes: dict[str, Any], fails: int) -> None:
    assert not verdict(**changes)[fails]
