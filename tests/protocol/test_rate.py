"""A token bucket in the peer's own time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import NS_PER_S, Instant
from protocol.rate import TokenBucket


def taken(bucket: TokenBucket, at: int, wanted: int) -> int:
    return sum(bucket.take(Instant(at)) for _ in range(wanted))


def test_a_second_worth_is_saved_up_and_no_more() -> None:
    bucket = TokenBucket(5, Instant(0))
    assert taken(bucket, 0, 100) == 5
    assert taken(bucket, NS_PER_S - 1, 100) == 4
    assert taken(bucket, NS_PER_S, 100) == 1
    assert taken(bucket, 3600 * NS_PER_S, 100) == 5


@given(per_s=st.integers(1, 500), pauses=st.lists(st.integers(0, NS_PER_S), max_size=40))
def test_never_more_than_the_rate_over_any_time(per_s: int, pauses: list[int]) -> None:
    bucket, now, total = TokenBucket(per_s, Instant(0)), 0, 0
    for pause in pauses:
        now += pause
        total += taken(bucket, now, per_s + 1)
        assert total <= per_s + per_s * now // NS_PER_S
