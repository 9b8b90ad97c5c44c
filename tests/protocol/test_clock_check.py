"""Whose clock is wrong: judged by the median of the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.clock_check import ClockCheck
from protocol.effects import Notice
from protocol.identity import PeerId
from protocol.limits import DEFAULT_LIMITS, Limits
from tests.protocol.lone import context_of
from tests.protocol.mesh import START_WALL

DAY_MS = 24 * 3_600_000


def check_of(*offsets_ms: int, limits: Limits = DEFAULT_LIMITS) -> ClockCheck:
    clocks = ClockCheck(context_of(limits=limits))
    for number, offset in enumerate(offsets_ms):
        clocks.sample(PeerId(f"peer-{number}"), START_WALL + offset)
    return clocks


def test_one_other_clock_says_nothing() -> None:
    assert check_of().wrong() is None
    assert check_of(DAY_MS).wrong() is None
    assert check_of(DAY_MS).offset_ms() is None


def test_two_that_agree_are_believed() -> None:
    assert check_of(DAY_MS, DAY_MS).wrong() == "this node's clock is 86400 s behind"
    assert check_of(-DAY_MS, -DAY_MS).wrong() == "this node's clock is 86400 s ahead"


def test_the_tolerance_itself_is_allowed() -> None:
    skew = DEFAULT_LIMITS.clock_skew_ms
    assert check_of(skew, skew).wrong() is None
    assert check_of(skew + 1, skew + 1).wrong() is not None


@given(honest=st.lists(st.integers(-50, 50), min_size=2, max_size=10), lie=st.integers(-DAY_MS, DAY_MS))
def test_liars_change_nothing_while_they_are_fewer_than_the_honest(honest: list[int], lie: int) -> None:
    liars = [lie] * (len(honest) // 2)
    clocks = check_of(*honest, *liars)
    offset = clocks.offset_ms()
    assert offset is not None
    assert -50 <= offset <= 50
    assert clocks.wrong() is None


def test_the_latest_sample_of_a_peer_counts_and_the_number_of_peers_is_bounded() -> None:
    clocks = check_of(0, 0)
    for _ in range(100):
        clocks.sample(PeerId("peer-0"), START_WALL + DAY_MS)
    assert clocks.wrong() is None, "one peer is one voice, however often it speaks"
    small = check_of(DAY_MS, DAY_MS, DAY_MS, 0, 0, limits=Limits(clock_samples_max=2))
    assert small.offset_ms() == 0, "the oldest voices went first"


def test_a_peer_that_is_gone_is_not_heard_any_more() -> None:
    clocks = check_of(DAY_MS, DAY_MS)
    clocks.forget(PeerId("peer-1"))
    assert clocks.wrong() is None
    clocks.forget(PeerId("nobody"))


def test_when_the_own_clock_was_set_old_samples_are_void() -> None:
    clocks = check_of(DAY_MS, DAY_MS)
    clocks.observed_anew()
    assert clocks.offset_ms() is None


def test_the_operator_is_told_once_and_once_more_when_it_is_right_again() -> None:
    context = context_of()
    clocks = ClockCheck(context)
    for wall in (DAY_MS, DAY_MS, DAY_MS, 0, 0, 0):
        for name in ("bob", "cat"):
            clocks.sample(PeerId(name), START_WALL + wall)
    assert context.take_effects() == (
        Notice(
            "warning",
            "this node's clock is 86400 s behind: not bidding, holding or taking jobs until it is right",
        ),
        Notice("info", "this node's clock agrees with its neighbours' again"),
    )
