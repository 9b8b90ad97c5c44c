import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.tasks.splitmerge.contract import BadInput
from meshnode.tasks.splitmerge.groups import SHARDS_MAX, bounds, count_shards


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_groups_are_neighbours_cover_everything_once_and_differ_by_at_most_one(parts, wanted):
    shards = count_shards(parts, "items", wanted, None)
    groups = list(bounds(parts, shards))
    assert [index for low, high in groups for index in range(low, high)] == list(range(parts))
    assert len(groups) == min(parts, wanted)
    sizes = [high - low for low, high in groups]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_without_a_shard_count_every_part_is_a_shard():
    assert count_shards(7, "items", None, 7) == 7


@pytest.mark.parametrize(
    ("shard_count", "max_shards", "sentence"),
    [
        (40, 32, "50 items would make 40 shards, more than max_shards, 32"),
        (
            None,
            32,
            "50 items would make 50 shards, more than max_shards, 32; give a shard_count to put several into one shard",
        ),
    ],
)
def test_too_many_shards_are_refused_not_cut_down(shard_count, max_shards, sentence):
    with pytest.raises(BadInput) as caught:
        count_shards(50, "items", shard_count, max_shards)
    assert str(caught.value) == sentence


def test_no_job_gets_more_shards_than_a_program_can_hold():
    with pytest.raises(BadInput, match=r"would make 1000000 shards, more than the largest number of shards, 100000"):
        count_shards(10 * SHARDS_MAX, "numbers", None, None)
