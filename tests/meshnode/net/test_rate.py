"""The token bucket lets bursts pass and holds the long-run rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.net.rate import TokenBucket


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    bucket = TokenBucket(rate=10, burst=5, now=100.0)
    assert [bucket.spend(1, now=100.0) for _ in range(7)] == [0, 0, 0, 0, 0, 0.1, 0.2]
    assert bucket.spend(1, now=100.2) == pytest.approx(0.1)
    assert bucket.spend(5, now=1000.0) == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 3)), max_size=60))
def test_who_waits_as_told_never_exceeds_rate_and_burst(steps: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate=4, burst=10, now=0.0)
    now = spent = 0.0
    for tokens, idle in steps:
        now += idle
        now += bucket.spend(tokens, now=now)
        spent += tokens
        assert spent <= 10 + 4 * now + 1e-6
