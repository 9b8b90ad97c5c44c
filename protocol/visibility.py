"""Can others reach this node? A node cannot tell by itself, so it asks: neighbours have a third peer try.

Connections that this node opened prove nothing about those that others would open to it. A node that looks healthy and
is seen by nobody is the worst kind of fault, so the answer is said the moment it changes.
"""

from __future__ import annotations

from protocol.context import Context
from protocol.identity import PeerId
from protocol.messages import SeeMe, Seen
from protocol.probing import Probing
from protocol.timers import Timer
from protocol.views import Views


class Round:
    """One time of asking around."""

    __slots__ = ("asked", "refuted", "timer")

    def __init__(self, asked: tuple[PeerId, ...], timer: Timer) -> None:
        self.asked = asked
        self.refuted: dict[PeerId, None] = {}
        self.timer = timer


class Visibility:
    """Asks a few neighbours every ``visibility_interval_ms``, and answers those who ask."""

    def __init__(self, context: Context, views: Views, probing: Probing, *, expects_others: bool) -> None:
        self._context = context
        self._views = views
        self._probing = probing
        self._expects_others = expects_others
        self._rounds: dict[int, Round] = {}
        #: None until somebody was asked.
        self.visible: bool | None = None

    def start(self) -> None:
        self._context.after_jittered(self._context.limits.visibility_first_ms, self._ask)

    def _ask(self) -> None:
        limits = self._context.limits
        self._context.after_jittered(limits.visibility_interval_ms, self._ask)
        active = self._views.active
        if not active:
            if self._expects_others:
                self._conclude(False, "it has no neighbour")
            return
        asked = tuple(self._context.rng.sample(active, min(limits.probe_helpers, len(active))))
        number = self._context.new_id()
        timer = self._context.after(limits.visibility_timeout_ms, lambda: self._time_up(number))
        self._rounds[number] = Round(asked, timer)
        for peer in asked:
            self._context.send(peer, SeeMe(number=number))

    def on_seen(self, sender: PeerId, message: Seen) -> None:
        """One peer that was reached is enough; that nobody was is believed when all who were asked say so."""
        one = self._rounds.get(message.number)
        if one is None or sender not in one.asked:
            return
        if not message.seen:
            one.refuted[sender] = None
        if message.seen or len(one.refuted) == len(one.asked):
            one.timer.cancel()
            self._time_up(message.number, seen=message.seen)

    def _time_up(self, number: int, *, seen: bool = False) -> None:
        one = self._rounds.pop(number)
        self._conclude(seen, f"{len(one.asked)} neighbours had others try, and none got through")

    def _conclude(self, visible: bool, reason: str) -> None:
        if visible != self.visible and not visible:
            self._context.notice("warning", f"others cannot see this node: {reason}")
        elif visible and self.visible is False:
            self._context.notice("info", "others see this node again")
        self.visible = visible

    # -- for others

    def on_see_me(self, sender: PeerId, message: SeeMe) -> None:
        """Have a third peer try, rather one that is no neighbour; where there is none, being known here is all."""
        record = self._views.record_of(sender)
        others = [peer for peer in self._views.passive if peer != sender] or [
            peer for peer in self._views.active if peer != sender
        ]
        if record is None or not others:
            self._context.send(sender, Seen(number=message.number, seen=record is not None))
            return
        helper = self._context.rng.choice(others)
        self._probing.ask_helper(
            helper, record, lambda alive: self._context.send(sender, Seen(number=message.number, seen=alive))
        )
