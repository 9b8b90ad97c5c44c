"""Bugs in who knows whom: membership, views, probing, clocks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from protocol.clock import after_ms
from protocol.clock_check import ClockCheck
from protocol.membership import Membership
from protocol.probing import Probing
from protocol.views import Views, version_of
from tests.simulations.planted.registry import bug, does_nothing, replaced, together


@bug
def dead_neighbours_stay() -> AbstractContextManager[None]:
    """A peer that answers nobody stays a neighbour."""
    return replaced(Probing, "_conclude_gone", Probing._settle)


@bug
def records_never_expire() -> AbstractContextManager[None]:
    """Who is no neighbour is known for ever."""
    return replaced(Views, "expire", does_nothing)


@bug
def each_copy_renews_a_record() -> AbstractContextManager[None]:
    """A record is good for a lifetime from when any copy of it came, so the dead live on."""

    def take(self: Views, opened: Any, *, direct: bool) -> Any:
        known = right(self, opened, direct=direct)
        if known is not None and known.record.peer in self._expiry:
            self._expiry[known.record.peer] = after_ms(self._context.now, self._context.limits.capability_lifetime_ms)
        return known

    def expire(self: Views) -> None:
        for peer in [peer for peer in self._known if peer not in self._active]:
            if self._expiry[peer] <= self._context.now:
                self.depart(peer)

    right = Views.take
    return together(replaced(Views, "take", take), replaced(Views, "expire", expire))


@bug
def old_records_replace_new_ones() -> AbstractContextManager[None]:
    """The record that came last is the one that is kept, whatever its version."""

    def take(self: Views, opened: Any, *, direct: bool) -> Any:
        known = self._known.get(opened.record.peer)
        if known is not None and version_of(opened.record) < version_of(known.record):
            self._judge(opened)
            self._known[opened.record.peer] = opened
        return right(self, opened, direct=direct)

    right = Views.take
    return replaced(Views, "take", take)


@bug
def incarnation_is_not_kept() -> AbstractContextManager[None]:
    """The counter of starts is not written to the journal."""
    return replaced(Membership, "_record_incarnation", does_nothing)


@bug
def a_lost_counter_is_not_made_up_for() -> AbstractContextManager[None]:
    """A peer that sees a newer record of itself, from before its counter was lost, does not move past it."""
    return replaced(Membership, "_move_past", does_nothing)


@bug
def neighbours_are_never_let_go() -> AbstractContextManager[None]:
    """Whoever asks urgently becomes one more neighbour, however many there are."""
    return replaced(Membership, "_make_room", does_nothing)


@bug
def the_lonely_do_not_join_again() -> AbstractContextManager[None]:
    """A peer asks the bootstrap peers once, and never again."""

    right = Membership._join

    def once(self: Membership) -> None:
        if not getattr(self, "_joined", False):
            self._joined = True  # type: ignore[attr-defined]
            right(self)

    return replaced(Membership, "_join", once)


@bug
def records_of_any_date_are_believed() -> AbstractContextManager[None]:
    """The dates in a record are not looked at."""
    return replaced(Views, "_judge", does_nothing)


@bug
def every_helper_is_believed() -> AbstractContextManager[None]:
    """An answer to a probe settles the probe of whoever has the same number."""

    def on_ack(self: Probing, sender: Any, message: Any) -> None:
        for peer, probe in list(self._probes.items()):
            if probe.number == message.number or sender != peer:
                self._settle(peer)

    return replaced(Probing, "on_ack", on_ack)


@bug
def a_wrong_clock_is_never_noticed() -> AbstractContextManager[None]:
    """A node with a wrong clock takes jobs."""
    return replaced(ClockCheck, "wrong", does_nothing)
