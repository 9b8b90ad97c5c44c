from __future__ import annotations

import pytest

from simulations.agenda import Agenda


def test_actions_run_in_order_of_time_and_then_of_planning() -> None:
    agenda, done = Agenda(), []
    for when, name in ((20, "c"), (10, "a"), (20, "d"), (10, "b")):
        agenda.at(when, done.append, name)
    agenda.run_until(20)
    assert done == ["a", "b", "c", "d"]
    assert agenda.now == 20


def test_an_action_sees_its_own_time_and_may_plan_more() -> None:
    agenda, seen = Agenda(), []

    def first() -> None:
        seen.append(agenda.now)
        agenda.after(5, lambda: seen.append(agenda.now))

    agenda.at(10, first)
    agenda.run_until(14)
    assert seen == [10]
    agenda.run_until(15)
    assert seen == [10, 15]


def test_nothing_is_planned_for_the_past() -> None:
    agenda = Agenda()
    agenda.run_until(10)
    with pytest.raises(AssertionError):
        agenda.at(9, print)
