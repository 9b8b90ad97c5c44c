"""The formulas of an auction."""

from __future__ import annotations

import hashlib
from statistics import mean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import auction
from protocol.identity import PeerId

peers = [PeerId(f"peer-{number}") for number in range(100_000)]
ANNOUNCEMENT = hashlib.sha256(b"announcement").digest()
counts = st.integers(0, 100_000)


def bids(mesh_size: int, number: int, wanted: int = 16) -> int:
    announcement = hashlib.sha256(b"round %d" % number).digest()
    limit = auction.threshold(wanted, mesh_size)
    return sum(auction.is_drawn(announcement, peer, "bid", limit) for peer in peers[:mesh_size])


@pytest.mark.parametrize(("mesh_size", "auctions"), [(100, 200), (1_000, 40), (10_000, 6), (100_000, 1)])
def test_about_sixteen_bid_in_a_mesh_of_any_size(mesh_size: int, auctions: int) -> None:
    answers = [bids(mesh_size, number) for number in range(auctions)]
    assert all(2 <= answer <= 40 for answer in answers)
    assert abs(mean(answers) - 16) < 4 * 4 / auctions**0.5, "the mean of n Poisson(16) draws, four standard errors"


def test_lots_are_uniform() -> None:
    lots = [auction.draw(ANNOUNCEMENT, peer, "bid") / 2**63 for peer in peers[:10_000]]
    assert abs(mean(lots) - 1 / 2) < 0.01
    assert abs(pvariance(lots) - 1 / 12) < 0.003
    tenths = [sum(tenth / 10 <= lot < (tenth + 1) / 10 for lot in lots) for tenth in range(10)]
    assert all(870 < count < 1130 for count in tenths)


def test_a_lot_changes_with_peer_announcement_and_purpose() -> None:
    other = hashlib.sha256(b"other").digest()
    lots = {
        auction.draw(announcement, peer, purpose)
        for announcement in (ANNOUNCEMENT, other)
        for peer in peers[:2]
        for purpose in ("bid", "refusal")
    }
    assert len(lots) == 8


@given(wanted=st.integers(1, 64), mesh_size=counts)
def test_a_threshold_is_certain_or_a_share(wanted: int, mesh_size: int) -> None:
    limit = auction.threshold(wanted, mesh_size)
    if mesh_size <= wanted:
        assert limit == auction.CERTAIN
    else:
        assert limit == pytest.approx(auction.CERTAIN * wanted / mesh_size, rel=1e-9)
        assert limit >= auction.threshold(wanted, mesh_size + 1)


def test_everybody_answers_under_the_certain_threshold_and_nobody_under_zero() -> None:
    assert all(auction.is_drawn(ANNOUNCEMENT, peer, "bid", auction.CERTAIN) for peer in peers[:100])
    assert not any(auction.is_drawn(ANNOUNCEMENT, peer, "bid", 0) for peer in peers[:100])


# -- completion and ties --------------------------------------------------------------------------------------


def test_expected_completion_counts_rounds_of_slots() -> None:
    assert auction.expected_completion_ms(start_in_ms=50, task_ms=100, tasks=5, slots=2, fetch_ms=7) == 50 + 7 + 300


@given(
    start=counts, task_ms=counts, tasks=st.integers(1, 2048), slots=st.integers(1, 1024), fetch_ms=st.integers(0, 600)
)
def test_completion_never_improves_with_more_work(
    start: int, task_ms: int, tasks: int, slots: int, fetch_ms: int
) -> None:
    now = auction.expected_completion_ms(start, task_ms, tasks, slots, fetch_ms)
    assert now >= start + fetch_ms + task_ms
    assert auction.expected_completion_ms(start, task_ms, tasks + 1, slots, fetch_ms) >= now
    assert auction.expected_completion_ms(start, task_ms, tasks, slots + 1, fetch_ms) <= now


def test_ties_are_a_total_order_that_changes_with_the_announcement() -> None:
    order = sorted(peers[:500], key=lambda peer: auction.tie_break(ANNOUNCEMENT, peer))
    assert len({auction.tie_break(ANNOUNCEMENT, peer) for peer in peers[:500]}) == 500
    other = hashlib.sha256(b"other").digest()
    assert order != sorted(peers[:500], key=lambda peer: auction.tie_break(other, peer))
    assert order == sorted(peers[499::-1], key=lambda peer: auction.tie_break(ANNOUNCEMENT, peer))


# -- award sizes ----------------------------------------------------------------------------------------------


@given(
    ready=st.integers(1, 2048),
    slots=st.integers(1, 1024),
    others=st.integers(0, 4096),
    task_ms=counts,
    target_ms=st.integers(1, 60_000),
)
def test_an_award_is_between_one_task_and_all_that_is_ready(
    ready: int, slots: int, others: int, task_ms: int, target_ms: int
) -> None:
    size = auction.award_size(ready, slots + others, slots, task_ms, target_ms)
    assert 1 <= size <= ready
    unmeasured = auction.award_size(ready, slots + others, slots, 0, target_ms)
    assert size <= unmeasured, "knowing the speed never makes an award larger"
    assert unmeasured <= -(-ready * slots // (slots + others)), "nobody gets more than a fair share"
    if task_ms:
        assert size <= slots or size * task_ms <= target_ms * slots


@pytest.mark.parametrize(
    ("ready", "total_slots", "slots", "task_ms", "size"),
    [
        (16, 4, 1, 0, 2),
        (16, 16, 4, 0, 2),
        (1, 100, 1, 0, 1),
        (1_000, 4, 1, 0, 125),
        (1_000, 4, 1, 100, 20),
        (1_000, 4, 1, 5_000, 1),
        (1_000, 4, 2, 5_000, 2),
        (10, 0, 1, 0, 5),
    ],
)
def test_award_sizes(ready: int, total_slots: int, slots: int, task_ms: int, size: int) -> None:
    assert auction.award_size(ready, total_slots, slots, task_ms, target_ms=2_000) == size


@given(ready=st.integers(1, 2048), workers=st.integers(1, 64))
def test_awards_shrink_towards_the_tail_and_are_few(ready: int, workers: int) -> None:
    """Messages go with workers times a logarithm, not with tasks."""
    sizes = []
    while ready:
        sizes.append(auction.award_size(ready, workers, 1, 0, 2_000))
        ready -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= 2 * workers * 12
