"""Bugs in what a steward does with a job: taking it in, giving its tasks out, counting, copying, calling it off."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from protocol.awarding import Awarding
from protocol.copies import Copies
from protocol.intake import Intake
from protocol.known_facts import KnownFacts
from protocol.plan import Plan
from protocol.steward import Steward
from protocol.upkeep import Upkeep
from tests.simulations.planted.registry import bug, does_nothing, replaced, together


@bug
def accepted_before_others_have_the_record() -> AbstractContextManager[None]:
    """A job is accepted once its steward alone has it."""

    def record(self: Intake, submission: Any) -> None:
        right(self, submission)
        submission.created.update(dict.fromkeys(holder.peer for holder in submission.spec.record.holders))

    right = Intake._record
    return replaced(Intake, "_record", record)


@bug
def cancels_are_put_off() -> AbstractContextManager[None]:
    """The tasks of a job that its submitter has cancelled are given out all the same."""

    def advance(self: Steward, job: Any) -> None:
        facts = job.kept.facts
        was_cancelled, facts.cancelled = facts.cancelled, False
        right(self, job)
        facts.cancelled = was_cancelled

    right = Steward.advance
    return replaced(Steward, "advance", advance)


@bug
def overdue_awards_are_kept() -> AbstractContextManager[None]:
    """A steward waits for ever for a worker that is connected, and silent."""
    return replaced(Awarding, "end_overdue", does_nothing)


@bug
def one_failure_is_enough() -> AbstractContextManager[None]:
    """A task that fails once is not tried again."""
    return replaced(Plan, "fail_try", lambda self, state, reason: self._fail(state, reason))


@bug
def losses_count_as_failures() -> AbstractContextManager[None]:
    """A task that is lost is one attempt nearer to its failure."""

    def lose_try(self: Plan, state: Any, reason: str, *, counts: bool) -> None:
        self.fail_try(state, reason)

    return replaced(Plan, "lose_try", lose_try)


@bug
def lost_outputs_are_not_made_again() -> AbstractContextManager[None]:
    """An output that nobody has any more counts as before."""
    return replaced(Plan, "lose_output", does_nothing)


@bug
def failed_copies_count() -> AbstractContextManager[None]:
    """A steward takes a copy that could not be fetched for one that it has."""

    def on_fetched(self: Copies, fetch: int, failure: str | None) -> bool:
        return right(self, fetch, None)

    right = Copies.on_fetched
    return replaced(Copies, "on_fetched", on_fetched)


@bug
def outputs_are_not_copied() -> AbstractContextManager[None]:
    """Only the worker that made it has an output, also that of a job that has ended."""
    return together(replaced(Copies, "make", does_nothing), replaced(Upkeep, "_look_after_output", does_nothing))


@bug
def successors_start_anew() -> AbstractContextManager[None]:
    """Whoever takes a job up does not look at what has been done of it."""

    def take_up(self: Steward, lead: Any) -> None:
        record = lead.record
        facts, record.facts = record.facts, KnownFacts(self._context, record.spec, record.chain)
        right(self, lead)
        record.facts = facts

    right = Steward.take_up
    return replaced(Steward, "take_up", take_up)
