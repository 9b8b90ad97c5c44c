"""Blobs from machine to machine: whoever is asked must live, be reachable, and have the blob."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.effects import FetchBlobs
from protocol.events import BlobsFailed, BlobsFetched
from protocol.identity import PeerId
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

Done = Callable[[str | None], None]
_DISK_NS = NS_PER_MS
_GIVE_UP_NS = 1_000 * NS_PER_MS
"""Until a source that does not answer is given up."""


class Transfers:
    """All transfers of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def fetch(self, machine: Machine, effect: FetchBlobs) -> None:
        """Answer ``effect`` with one event, later."""
        cids = tuple(link.cid for link in effect.blobs)
        machine.fetches.add(effect.fetch)
        machine.disk.update(self._world.library.name_of(content) for content in effect.contents)

        def done(problem: str | None) -> None:
            machine.fetches.discard(effect.fetch)
            event = BlobsFetched(effect.fetch) if problem is None else BlobsFailed(effect.fetch, problem)
            self._world.feed(machine, event)

        self.bring(machine, cids, effect.sources, done, deep=effect.deep)

    def bring(
        self,
        machine: Machine,
        cids: tuple[str, ...],
        sources: tuple[PeerId, ...],
        done: Done,
        *,
        deep: bool = False,
    ) -> None:
        """Have ``cids`` on the machine's disk, then call ``done(None)``; or ``done(problem)``.

        Not called at all if the machine crashes before.
        """
        _Transfer(self._world, machine, cids, sources, done, deep=deep).next_blob()


class _Transfer:
    """One blob after the other; a source that fails is not asked again."""

    def __init__(
        self,
        world: World,
        machine: Machine,
        cids: tuple[str, ...],
        sources: tuple[PeerId, ...],
        done: Done,
        *,
        deep: bool,
    ) -> None:
        self._world = world
        self._machine = machine
        self._boot = machine.boot
        self._cids = list(cids)
        self._sources = [peer for peer in sources if peer != machine.peer_id]
        self._done = done
        self._deep = deep

    def next_blob(self) -> None:
        machine, world = self._machine, self._world
        if machine.boot != self._boot or not machine.alive:
            return
        if self._deep:
            self._cids = list(dict.fromkeys((*self._cids, *self._links_on_disk())))
        missing = next((cid for cid in self._cids if cid not in machine.disk), None)
        if missing is None:
            world.agenda.after(_DISK_NS, self._finish, None)
        elif world.faults.strikes("fetch_failure", machine.index, world.agenda.now):
            world.agenda.after(_GIVE_UP_NS, self._finish, "the transfer broke")
        else:
            self._ask(missing, list(self._sources))

    def _links_on_disk(self) -> tuple[str, ...]:
        here = [cid for cid in self._cids if cid in self._machine.disk]
        return self._world.library.with_links(here)

    def _ask(self, cid: str, sources: list[PeerId]) -> None:
        machine, world = self._machine, self._world
        if machine.boot != self._boot or not machine.alive:
            return
        if not sources:
            world.agenda.after(_DISK_NS, self._finish, f"no source has {cid}")
            return
        source = world.machines[sources[0]]
        if not world.network.reaches(machine, source.peer_id):
            self._ask(cid, sources[1:])
            return
        latency = world.network.latency(machine, source)
        if not source.alive or not world.network.routes.can_talk(machine, source):
            world.agenda.after(_GIVE_UP_NS, self._ask, cid, sources[1:])
        elif cid not in source.disk:
            world.agenda.after(2 * latency, self._ask, cid, sources[1:])
        else:
            bandwidth = min(machine.bandwidth, source.bandwidth)
            takes = 2 * latency + world.library.size(cid) * NS_PER_S // bandwidth
            world.agenda.after(takes, self._arrived, cid, source, source.boot, sources)

    def _arrived(self, cid: str, source: Machine, boot: int, sources: list[PeerId]) -> None:
        can_talk = self._world.network.routes.can_talk
        if source.alive and source.boot == boot and can_talk(self._machine, source):
            self._machine.disk.add(cid)
            self.next_blob()
        else:
            self._ask(cid, sources[1:])

    def _finish(self, problem: str | None) -> None:
        if self._machine.boot == self._boot and self._machine.alive:
            self._done(problem)
