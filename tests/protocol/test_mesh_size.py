"""The mesh's size from 32 hashes: good enough to set a threshold, at any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.identity import PeerId
from protocol.limits import SKETCH_VALUES_MAX
from protocol.mesh_size import MeshSize, sketch_value

ME = PeerId("peer-0")
EPOCH = 6_000_000
sketches = st.lists(st.integers(0, (1 << 63) - 1), max_size=SKETCH_VALUES_MAX).map(tuple)


def size_of(peers: int, epoch: int) -> MeshSize:
    """As a peer of a mesh of ``peers`` ends up with it: the smallest values of all."""
    values = sorted(sketch_value(PeerId(f"peer-{number}"), epoch) for number in range(peers))
    size = MeshSize(ME, epoch)
    size.merge(epoch, tuple(values[:SKETCH_VALUES_MAX]))
    return size


@pytest.mark.parametrize("peers", [1, 2, 10, SKETCH_VALUES_MAX - 1])
def test_a_small_mesh_is_counted(peers: int) -> None:
    assert size_of(peers, EPOCH).estimate(EPOCH) == peers


@pytest.mark.parametrize(("peers", "epochs"), [(100, 40), (1_000, 40), (10_000, 8), (100_000, 2)])
def test_a_large_mesh_is_estimated_without_bias_and_within_bounds(peers: int, epochs: int) -> None:
    """The standard error of one estimate is 1 / sqrt(k - 2), 18 %; that of a mean of n is smaller by sqrt(n)."""
    estimates = [size_of(peers, EPOCH + epoch).estimate(EPOCH + epoch) / peers for epoch in range(epochs)]
    assert all(0.5 < estimate < 2 for estimate in estimates)
    assert abs(sum(estimates) / epochs - 1) < 3 * 0.18 / epochs**0.5


@given(one=sketches, other=sketches)
def test_merging_knows_no_order_and_no_repetition(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    left, right = MeshSize(ME, EPOCH), MeshSize(ME, EPOCH)
    for values in (one, other):
        left.merge(EPOCH, values)
    for values in (other, one, other):
        right.merge(EPOCH, values)
    assert left.values == right.values


@given(received=st.lists(sketches, max_size=5))
def test_a_sketch_is_bounded_ascending_and_holds_the_smallest(received: list[tuple[int, ...]]) -> None:
    size = MeshSize(ME, EPOCH)
    for values in received:
        size.merge(EPOCH, values)
    everything = {sketch_value(ME, EPOCH)}.union(*received)
    assert list(size.values) == sorted(everything)[:SKETCH_VALUES_MAX]
    assert size.estimate(size.epoch) >= 1


def test_a_sketch_of_another_epoch_says_nothing() -> None:
    size = MeshSize(ME, EPOCH)
    for epoch in (EPOCH - 1, EPOCH + 1):
        size.merge(epoch, (1, 2, 3))
    assert size.estimate(size.epoch) == 1


def test_the_last_epoch_bridges_the_start_of_a_new_one_and_those_who_left_drop_out() -> None:
    size = size_of(1_000, EPOCH)
    before = size.estimate(size.epoch)
    size.turn_to(EPOCH + 1)
    assert size.estimate(size.epoch) == before
    size.turn_to(EPOCH + 2)
    assert size.estimate(size.epoch) == 1


def test_an_epoch_that_was_missed_or_came_back_bridges_nothing() -> None:
    for epoch in (EPOCH + 2, EPOCH - 1):
        size = size_of(1_000, EPOCH)
        size.turn_to(epoch)
        assert (size.epoch, size.estimate(size.epoch)) == (epoch, 1)


def test_turning_to_the_same_epoch_keeps_everything() -> None:
    size = size_of(10, EPOCH)
    size.turn_to(EPOCH)
    assert size.estimate(size.epoch) == 10


def test_a_peer_hashes_anew_with_each_epoch() -> None:
    assert sketch_value(ME, EPOCH) != sketch_value(ME, EPOCH + 1)
    assert 0 <= sketch_value(ME, EPOCH) < 1 << 63
