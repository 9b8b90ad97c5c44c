"""Bugs in how word gets round: announcements, pointers, lookups, timers."""

from __future__ import annotations

import heapq
from contextlib import AbstractContextManager
from typing import Any

from msgspec.structs import replace

from protocol.dissemination import Dissemination
from protocol.lookup import Lookups
from protocol.pointers import Pointers
from protocol.timers import Timer, Timers
from protocol.views import Views
from tests.simulations.planted.registry import bug, does_nothing, replaced


@bug
def announcements_go_round_and_round() -> AbstractContextManager[None]:
    """What was passed on once is passed on each time it comes."""
    return replaced(Dissemination, "_remember", does_nothing)


@bug
def hops_are_not_counted() -> AbstractContextManager[None]:
    """An announcement is passed on with as many hops as it came with."""

    def on_announce(self: Dissemination, sender: Any, message: Any) -> Any:
        hops = min(message.hops + 1, 64) if message.hops else 0
        return right(self, sender, replace(message, hops=hops))

    right = Dissemination.on_announce
    return replaced(Dissemination, "on_announce", on_announce)


@bug
def pointers_are_placed_once() -> AbstractContextManager[None]:
    """A pointer is not stored anew where its keepers have gone."""
    return replaced(Pointers, "_refresh", does_nothing)


@bug
def pointers_do_not_survive() -> AbstractContextManager[None]:
    """A restarted peer has forgotten the pointers that it kept, and those that it had placed."""
    return replaced(Pointers, "restore", does_nothing)


@bug
def nobody_is_asked_far_away() -> AbstractContextManager[None]:
    """A lookup that finds nothing near the key does not ask the neighbourhood, and is not passed on."""

    def on_lookup(self: Lookups, sender: Any, message: Any) -> None:
        right(self, sender, replace(message, hops=0))

    right = Lookups.on_lookup
    return replaced(Lookups, "on_lookup", on_lookup)


@bug
def the_wrong_peers_keep_pointers() -> AbstractContextManager[None]:
    """Who is responsible for a key is taken from the view's order."""

    def responsible(self: Pointers, key: bytes) -> Any:
        return self._peers()[: self._context.limits.pointer_copies]

    return replaced(Pointers, "responsible", responsible)


@bug
def cancelled_timers_fire() -> AbstractContextManager[None]:
    """What was called off happens all the same."""
    return replaced(Timer, "cancel", does_nothing)


@bug
def one_timer_at_a_time() -> AbstractContextManager[None]:
    """Of several timers that are due one fires, the others with the next event."""

    def fire_due(self: Timers, now: Any) -> None:
        due = self.next_due()
        if due is not None and due <= now:
            heapq.heappop(self._heap)[2].fire()

    return replaced(Timers, "fire_due", fire_due)


@bug
def the_lost_are_not_told_of() -> AbstractContextManager[None]:
    """That a peer is gone is not passed on to those who wait for it."""

    def depart(self: Views, peer: Any) -> None:
        calls, self.on_gone = self.on_gone, []
        right(self, peer)
        self.on_gone = calls

    right = Views.depart
    return replaced(Views, "depart", depart)
