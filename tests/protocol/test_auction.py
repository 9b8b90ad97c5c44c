"""The formulas of an auction."""

from __future__ import annotations

import hashlib
from statistics import mean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import auction
from protocol.candidate import Experience
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


# -- ties -----------------------------------------------------------------------------------------------------


def test_ties_are_a_total_order_that_changes_with_the_announcement() -> None:
    order = sorted(peers[:500], key=lambda peer: auction.tie_break(ANNOUNCEMENT, peer))
    assert len({auction.tie_break(ANNOUNCEMENT, peer) for peer in peers[:500]}) == 500
    other = hashlib.sha256(b"other").digest()
    assert order != sorted(peers[:500], key=lambda peer: auction.tie_break(other, peer))
    assert order == sorted(peers[499::-1], key=lambda peer: auction.tie_break(ANNOUNCEMENT, peer))


# -- who gets how many ----------------------------------------------------------------------------------------


def idle(task_ms: int, *, slots: int = 1, fetch_ms: int = 0, price: int = 0, group: str = "") -> auction.Turn:
    return auction.Turn((0,) * slots, task_ms, fetch_ms, (price, b""), group)


@pytest.mark.parametrize(
    ("tasks", "turns", "shares"),
    [
        (16, [idle(1000)] * 4, [4, 4, 4, 4]),
        (0, [idle(1000)], [0]),
        (5, [], []),
        (9, [idle(1000), idle(8000)], [8, 1]),
        (7, [idle(1000), idle(8000)], [7, 0]),
        (6, [idle(1000, slots=2), idle(1000)], [4, 2]),
        (3, [auction.Turn((5000,), 1000), idle(1000)], [0, 3]),
        (5, [idle(1000), idle(1000, fetch_ms=5000)], [5, 0]),
        (1, [idle(1000, price=2), idle(1000, price=1)], [0, 1]),
        (3, [idle(1000, price=2), idle(1500, price=1)], [2, 1]),
    ],
    ids=["equal", "nothing", "nobody", "slow", "tail", "slots", "busy", "far", "cheap", "cheap and slow"],
)
def test_tasks_go_to_whoever_would_be_through_first(tasks: int, turns: list[auction.Turn], shares: list[int]) -> None:
    assert auction.shares(tasks, turns) == shares


def test_groups_get_no_more_than_they_have_room_for() -> None:
    turns = [idle(100, group="eu"), idle(100, group="eu"), idle(9_000, group="us")]
    assert auction.shares(6, turns, {"eu": 3, "us": 3}) == [2, 1, 3]
    assert auction.shares(6, turns, {"eu": 1, "us": 2}) == [1, 0, 2], "what fits nowhere is left over"


@given(tasks=st.integers(0, 200), speeds=st.lists(st.tuples(st.integers(1, 9_000), st.integers(1, 4)), min_size=1))
def test_all_tasks_are_shared_and_nobody_is_late_for_want_of_sharing(tasks: int, speeds: list[tuple[int, int]]) -> None:
    """Moving a task to another bidder never ends the whole any sooner: the list schedule of equal tasks is the best."""
    turns = [idle(task_ms, slots=slots) for task_ms, slots in speeds]
    shares = auction.shares(tasks, turns)
    assert sum(shares) == tasks

    def ends(one: int, extra: int = 0) -> int:
        return turns[one].task_ms * -(-(shares[one] + extra) // len(turns[one].free_ms))

    last = max((ends(one) for one in range(len(turns)) if shares[one]), default=0)
    assert all(ends(one, 1) >= last for one in range(len(turns)))


@given(share=st.integers(0, 500), held=st.integers(0, 500), slots=st.integers(1, 64), task_ms=st.integers(0, 60_000))
def test_an_award_fills_free_slots_and_no_more_than_half_of_the_rest(
    share: int, held: int, slots: int, task_ms: int
) -> None:
    limit = auction.capacity(slots, task_ms, 1_000)
    size = auction.award_size(share, held, slots, limit)
    assert 0 <= size <= share
    assert held + size <= max(limit, held)
    assert size >= min(share, slots - held), "no slot is left free"
    assert size <= max(slots - held, (share + 1) // 2)


def test_awards_are_few_however_many_the_tasks() -> None:
    """One worker with short tasks: messages go with the seconds it works, not with tasks."""
    left, held, awards = 10_000, 0, 0
    limit = auction.capacity(1, 10, 1_000)
    while left or held:
        size = auction.award_size(left, held, 1, limit)
        awards, left, held = awards + (size > 0), left - size, held + size
        held -= 1
    assert awards < 10_000 // 40


# -- what bids were worth -------------------------------------------------------------------------------------


def test_a_bid_is_corrected_by_what_its_peers_bids_were_worth() -> None:
    experience = Experience(size=2)
    assert experience.corrected(peers[0], 300) == 300
    experience.learn(peers[0], 100, 250)
    assert experience.corrected(peers[0], 300) == 750
    experience.learn(peers[0], 100, 50)
    assert experience.corrected(peers[0], 1_000) == 2_000, "a quarter the newest"
    experience.learn(peers[0], 0, 9_999)
    assert experience.corrected(peers[0], 1_000) == 2_000, "who bid nothing was not wrong"


def test_no_experience_counts_for_more_than_a_factor_of_eight_and_few_are_remembered() -> None:
    experience = Experience(size=2)
    for number, took in enumerate((1_000_000, 0, 200)):
        experience.learn(peers[number], 100, took)
    assert [experience.corrected(peer, 800) for peer in peers[:3]] == [800, 100, 1_600]
    experience.learn(peers[3], 1, 1_000_000)
    assert experience.corrected(peers[3], 800) == 6_400
