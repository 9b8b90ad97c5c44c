"""Bounds that do not fit together are refused when they are made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol import limits
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import Offer, Receipts, encode_message
from protocol.records import Part
from protocol.signing import Signed
from protocol.wire import Output, Range, Role, Task
from tests.protocol.samples import award, capability, failed_receipt, output_of, receipt

#: Each breaks one relation between two bounds.
BROKEN = [
    {"probe_timeout_ms": 1_001},
    {"capability_refresh_ms": 37_500},
    {"visibility_timeout_ms": 3_000},
    {"visibility_interval_ms": 5_000},
    {"progress_interval_ms": 2_001},
    {"idle_winner_ms": 6_000},
    {"bid_window_ms": 1_000},
    {"reannounce_first_ms": 8_001},
    {"reannounce_max_ms": 20_000},
    {"shuffle_records": 0},
    {"shuffle_records": limits.RECORDS_PER_MESSAGE_MAX + 1},
    {"active_view_max": 64},
    {"active_view_enough": 6},
    {"awards_per_job_max": limits.TASKS_MAX},
]


@pytest.mark.parametrize("values", BROKEN, ids=lambda values: next(iter(values)))
def test_bounds_that_contradict_each_other_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        Limits(**values)


def test_the_defaults_hold_together() -> None:
    assert Limits() == DEFAULT_LIMITS


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_every_bound_is_a_positive_number_whose_name_says_of_what(name: str) -> None:
    value = getattr(DEFAULT_LIMITS, name)
    assert type(value) is int
    assert value > 0


def test_bounds_do_not_change() -> None:
    with pytest.raises(AttributeError):
        DEFAULT_LIMITS.jobs_max = 1  # type: ignore[misc]
    assert msgspec.structs.replace(DEFAULT_LIMITS, jobs_max=1).jobs_max == 1


def test_a_record_fits_into_a_message_with_room_for_others() -> None:
    assert 2 * limits.RECORD_BYTES_MAX < limits.FRAME_BYTES_MAX
    assert limits.SETTINGS_BYTES_MAX < limits.RECORD_BYTES_MAX


def test_the_largest_merge_fits_whatever_its_workers_call_their_outputs() -> None:
    output = Output(cid="x" * limits.CID_CHARS_MAX, size=(1 << 53) - 1, sha256=bytes(32))
    shards = tuple(Part(index=index, output=output, receipt=bytes(32)) for index in range(limits.TASKS_MAX))
    merge: dict[str, Any] = {"role": Role.MERGE, "ranges": (Range(start=0, stop=1),), "shards": limits.TASKS_MAX}
    assert len(award(parts=shards, **merge).signed.payload) <= limits.RECORD_BYTES_MAX


def parts(count: int) -> tuple[Part, ...]:
    return tuple(Part(index=index, output=output_of(f"{index}", 1 << 30), receipt=bytes(32)) for index in range(count))


def test_the_records_of_the_largest_merge_fit() -> None:
    """A merge's award lists every shard, its receipt names all of theirs; the offer carries the spec as well."""
    merge: dict[str, Any] = {"role": Role.MERGE, "ranges": (Range(start=0, stop=1),), "shards": limits.TASKS_MAX}
    largest = award(parts=parts(limits.TASKS_MAX), **merge)
    assert len(largest.signed.payload) <= limits.RECORD_BYTES_MAX
    upstream = tuple(bytes(32) for _ in range(limits.TASKS_MAX))
    done = receipt(largest, task=Task(role=Role.MERGE), upstream=upstream)
    assert len(done.signed.payload) <= limits.RECORD_BYTES_MAX
    full = Signed(payload=bytes(limits.RECORD_BYTES_MAX), signature=bytes(64))
    offer = Offer(award=largest.signed, spec=full, sources=(), records=(capability("ann").signed,) * 16)
    assert len(encode_message(offer)) <= limits.FRAME_BYTES_MAX


def test_a_full_message_of_receipts_fits_into_a_frame() -> None:
    """Workers send as many at once; an ordinary receipt, with a long error, is far below the largest record."""
    failed = failed_receipt(award(), "e" * limits.TEXT_CHARS_MAX)
    batch = Receipts(job=bytes(32), receipts=(failed.signed,) * limits.RECEIPTS_PER_MESSAGE_MAX)
    assert len(encode_message(batch)) <= limits.FRAME_BYTES_MAX
