"""A rule against storms: what one moment brings about has an end within that moment.

A message to whom no connection can be made comes back at once, as ``PeerLost``. A peer that sends it again for that
reason would do so for ever, and no time would pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.events import PeerLost
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

_LOST_AT_ONCE_MAX = 1_000
"""Far more connections than a peer has; a machine that stood still hears of all that broke meanwhile."""


class StormRules:
    """Counts the connections that one peer loses at one instant."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last: dict[int, tuple[int, int]] = {}

    def lost(self, machine: Machine, _: PeerLost) -> None:
        now = self._world.agenda.now
        at, count = self._last.get(machine.index, (now, 0))
        count = count + 1 if at == now else 1
        self._last[machine.index] = (now, count)
        if count > _LOST_AT_ONCE_MAX:
            raise Violation("storms", f"peer {machine.index} loses {count} connections without time passing")
