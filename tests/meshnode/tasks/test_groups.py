import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.tasks.splitmerge.contract import BadInput
from meshnode.tasks.splitmerge.groups import SHARDS_MAX, blocks, bounds, count_shards
from meshnode.tasks.splitmerge.tiles import Grid
from protocol import limits


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


def test_the_largest_number_of_shards_is_the_protocols():
    assert limits.SHARDS_MAX == SHARDS_MAX


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 900))
def test_blocks_cover_every_tile_once_in_sizes_that_differ_by_at_most_one(columns, rows, wanted):
    shards = min(wanted, columns * rows)
    pieces = blocks(Grid(columns, rows, 1, 0), shards)
    tiles = [tile for piece in pieces for tile in piece]
    assert len(pieces) == shards
    assert sorted(tiles) == [(column, row) for column in range(columns) for row in range(rows)]
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    in_rows = [[(row, column) for column, row in piece] for piece in pieces]
    assert in_rows == sorted(sorted(piece) for piece in in_rows)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 900))
def test_blocks_part_no_more_neighbours_than_rows_would(columns, rows, wanted):
    shards = min(wanted, columns * rows)
    places = [(column, row) for row in range(rows) for column in range(columns)]
    in_rows = [places[low:high] for low, high in bounds(len(places), shards)]
    assert parted(blocks(Grid(columns, rows, 1, 0), shards)) <= parted(in_rows)


def parted(pieces):
    """How many pairs of neighbours are in different pieces."""
    piece_of = {place: index for index, piece in enumerate(pieces) for place in piece}
    pairs = [((x, y), near) for x, y in piece_of for near in ((x + 1, y), (x, y + 1)) if near in piece_of]
    return sum(piece_of[one] != piece_of[other] for one, other in pairs)


def test_1600_tiles_in_16_shards_are_squares():
    for piece in blocks(Grid(20_000, 20_000, 512, 0), 16):
        xs, ys = {x for x, _ in piece}, {y for _, y in piece}
        assert (len(xs), len(ys), len(piece)) == (10, 10, 100)


def test_no_job_gets_more_shards_than_a_program_can_hold():
    with pytest.raises(BadInput, match=r"would make 10000000 shards, more than the largest number of shards, 1000000"):
        count_shards(10 * SHARDS_MAX, "numbers", None, None)
