"""What is planned runs once, in order, and not before its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import Instant
from protocol.timers import Timers


@given(plan=st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30), now=st.integers(0, 20))
def test_what_is_due_runs_in_order_of_time_then_of_setting(plan: list[tuple[int, bool]], now: int) -> None:
    timers, ran = Timers(), list[int]()
    for number, (at, cancelled) in enumerate(plan):
        timer = timers.at(Instant(at), lambda number=number: ran.append(number))  # type: ignore[misc]
        if cancelled:
            timer.cancel()
    timers.fire_due(Instant(now))
    live = [(at, number) for number, (at, cancelled) in enumerate(plan) if not cancelled]
    assert ran == [number for at, number in sorted(live) if at <= now]
    assert timers.next_due() == min((at for at, _ in live if at > now), default=None)
    timers.fire_due(Instant(now))
    assert len(ran) == len(set(ran)), "nothing runs twice"


def test_an_action_may_plan_another_for_now() -> None:
    timers, ran = Timers(), list[str]()

    def first() -> None:
        timers.at(Instant(3), lambda: ran.append("second"))

    timers.at(Instant(5), first)
    timers.fire_due(Instant(5))
    assert ran == ["second"]
    assert timers.next_due() is None


def test_an_action_may_cancel_what_is_due_with_it() -> None:
    timers, ran = Timers(), list[str]()
    other = None

    def first() -> None:
        assert other is not None
        other.cancel()

    timers.at(Instant(1), first)
    other = timers.at(Instant(1), lambda: ran.append("other"))
    timers.fire_due(Instant(1))
    assert ran == []


def test_cancelling_twice_or_after_the_action_is_harmless() -> None:
    timers, ran = Timers(), list[int]()
    timer = timers.at(Instant(1), lambda: ran.append(1))
    assert timer.pending
    timers.fire_due(Instant(1))
    timer.cancel()
    timer.cancel()
    timer.fire()
    assert (ran, timer.pending) == ([1], False)
