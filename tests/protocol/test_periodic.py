"""What is done again and again stops while there is nothing to do, and comes sooner when it is urgent."""

from __future__ import annotations

from protocol.clock import NS_PER_MS
from protocol.periodic import Periodic
from tests.protocol.lone import context_of, pass_time

LATEST_MS = 1_250
"""A second with all of its jitter."""


class Chore:
    def __init__(self) -> None:
        self.context = context_of()
        self.pace: int | None = None
        self.ran_at: list[int] = []
        self.periodic = Periodic(self.context, self._run, lambda: self.pace)

    def _run(self) -> None:
        self.ran_at.append(self.context.now // NS_PER_MS)

    def wait(self, milliseconds: int) -> int:
        """How often it ran meanwhile."""
        before, end = len(self.ran_at), self.context.now + milliseconds * NS_PER_MS
        while (due := self.context.timers.next_due()) is not None and due <= end:
            self.context.advance(due)
            self.context.timers.fire_due(due)
        pass_time(self.context, (end - self.context.now) // NS_PER_MS)
        return len(self.ran_at) - before


def test_with_nothing_to_do_it_is_never_due() -> None:
    chore = Chore()
    chore.periodic.wake()
    assert chore.context.timers.next_due() is None


def test_it_runs_while_there_is_something_to_do_and_again_after_a_wake() -> None:
    chore = Chore()
    chore.pace = 1_000
    chore.periodic.wake()
    assert chore.wait(10 * LATEST_MS) >= 10
    chore.pace = None
    assert chore.wait(LATEST_MS) == 1, "what was planned still runs"
    assert chore.wait(100 * LATEST_MS) == 0
    assert chore.context.timers.next_due() is None
    chore.pace = 1_000
    chore.periodic.wake()
    assert chore.wait(LATEST_MS) >= 1


def test_waking_what_is_awake_changes_nothing() -> None:
    chore = Chore()
    chore.pace = 1_000
    chore.periodic.wake()
    due = chore.context.timers.next_due()
    for _ in range(5):
        chore.periodic.wake()
    assert chore.context.timers.next_due() == due
    chore.pace = 5_000
    chore.periodic.wake()
    assert chore.context.timers.next_due() == due, "a slower pace does not put off what is planned"


def test_what_has_become_urgent_comes_sooner_and_once() -> None:
    chore = Chore()
    chore.pace = 60_000
    chore.periodic.wake()
    chore.pace = 1_000
    chore.periodic.wake()
    assert chore.wait(LATEST_MS) >= 1
    chore.pace = None
    assert chore.wait(100_000) <= 1, "the slower one was taken back"
