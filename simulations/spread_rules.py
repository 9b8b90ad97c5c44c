"""Rules about how announcements spread: each peer passes each on once, and never further than it may go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.effects import Send
from protocol.messages import Announce
from protocol.records import Announcement
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_Heard = tuple[int, int, bytes]
"""Machine, boot, announcement."""


class SpreadRules:
    """Its steward may tell an announcement to whom it likes, as often as it likes; all others pass it on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hops: dict[_Heard, int] = {}
        """The most with which it came; a liar's are not counted."""
        self._told: dict[_Heard, set[str]] = {}

    def heard(self, machine: Machine, message: Announce) -> None:
        key = (machine.index, machine.boot, self._world.reader.open(message.announcement, Announcement).digest)
        self._hops[key] = max(message.hops, self._hops.get(key, 0))

    def sent(self, machine: Machine, effect: Send) -> None:
        message = effect.message
        opened = self._world.reader.open(message.announcement, Announcement)  # type: ignore[attr-defined]
        if opened.record.steward == machine.peer_id:
            return
        key = (machine.index, machine.boot, opened.digest)
        told = self._told.setdefault(key, set())
        if effect.to in told:
            raise Violation("announcements", f"peer {machine.index} passes the same announcement on twice to one peer")
        told.add(effect.to)
        if message.hops >= self._hops.get(key, 64):  # type: ignore[attr-defined]
            raise Violation("announcements", f"peer {machine.index} passes an announcement on further than it may go")
