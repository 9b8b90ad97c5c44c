"""Tasks as ranges, and which awards make sense."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.lease import WHOLE, covers, ranges_of, tasks_in, well_formed
from protocol.records import Award, Part
from protocol.wire import Range, Role, Task
from tests.protocol.samples import award, output_of, stage

indexes = st.lists(st.integers(0, 199), unique=True, min_size=1).map(sorted)


def spans(*pairs: tuple[int, int]) -> tuple[Range, ...]:
    return tuple(Range(start=start, stop=stop) for start, stop in pairs)


@given(indexes=indexes)
def test_ranges_name_exactly_the_tasks_they_were_made_from(indexes: list[int]) -> None:
    given_award = award(ranges=ranges_of(indexes), shards=200).record
    assert tasks_in(given_award) == [Task(index=index) for index in indexes]
    assert well_formed(given_award, stage(max_shards=200))
    for index in range(202):
        assert covers(given_award, Task(index=index)) == (index in indexes)


@given(indexes=indexes)
def test_ranges_are_as_few_as_can_be(indexes: list[int]) -> None:
    ranges = ranges_of(indexes)
    assert all(before.stop < after.start for before, after in pairwise(ranges))


def test_an_award_covers_its_own_stage_and_role_only() -> None:
    one = award(ranges=spans((0, 4))).record
    assert covers(one, Task(index=3))
    assert not covers(one, Task(stage=1, index=3))
    assert not covers(one, Task(role=Role.MERGE))


PARTS = tuple(Part(index=index, output=output_of(f"shard {index}")) for index in range(4))
MERGE: dict[str, Any] = {"role": Role.MERGE, "ranges": WHOLE, "split": None, "parts": PARTS}
SPLIT: dict[str, Any] = {"role": Role.SPLIT, "ranges": WHOLE, "split": None, "shards": 0}


@pytest.mark.parametrize("fields", [{}, MERGE, SPLIT, {"ranges": spans((0, 1), (1, 4))}])
def test_is_well_formed(fields: dict[str, Any]) -> None:
    assert well_formed(award(**fields).record, stage())


@pytest.mark.parametrize(
    "fields",
    [
        {"ranges": spans((1, 1))},
        {"ranges": spans((2, 1))},
        {"ranges": spans((2, 4), (0, 1))},
        {"ranges": spans((0, 2), (1, 3))},
        {"ranges": spans((0, 5))},
        {"ranges": spans((0, 17)), "shards": 17},
        {"split": None},
        SPLIT | {"ranges": spans((0, 2))},
        SPLIT | {"ranges": spans((1, 2))},
        MERGE | {"ranges": spans((0, 4))},
        MERGE | {"parts": PARTS[:3]},
        MERGE | {"parts": ()},
    ],
)
def test_is_not_well_formed(fields: dict[str, Any]) -> None:
    assert not well_formed(award(**fields).record, stage())


def test_a_stage_without_split_or_merge_has_no_such_tasks() -> None:
    plain = stage(split="", merge="")
    assert not well_formed(award(**SPLIT).record, plain)
    assert not well_formed(award(**MERGE).record, plain)
    assert not well_formed(award().record, plain), "its one shard has no split to read"
    only: Award = award(ranges=WHOLE, shards=1, split=None).record
    assert well_formed(only, plain)
