"""Signed pointers: kept for others, and placed with others for this peer's own jobs and models."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from protocol.clock import Instant, after_ms
from protocol.context import Context
from protocol.durable import Table
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.messages import PointerStored, StorePointer
from protocol.periodic import Periodic
from protocol.records import JobPointer, ModelPointer
from protocol.rendezvous import alias_key, job_key, model_key, nearer, nearest
from protocol.signing import Opened, Signed
from protocol.views import Views

AnyPointer = JobPointer | ModelPointer


def keys_of(pointer: AnyPointer) -> list[bytes]:
    """Under which keys a pointer can be found."""
    if isinstance(pointer, ModelPointer):
        return [model_key(pointer.model)]
    keys = [job_key(pointer.job)]
    if pointer.alias:
        keys.append(alias_key(pointer.submitter, pointer.alias))
    return keys


def normal_id(text: str) -> str:
    """A job's id as people write it, ``bd92-e3f1``, in the form of its digest."""
    return text.replace("-", "").lower()


def matches(pointer: AnyPointer, what: str, text: str) -> bool:
    """Whether a pointer is about ``what`` (``job`` or ``model``) named by ``text``; "" names all."""
    if isinstance(pointer, ModelPointer):
        return what == "model" and not pointer.withdrawn and text in ("", pointer.model)
    if what != "job":
        return False
    start = normal_id(text)
    return text in ("", pointer.alias) or (start != "" and pointer.job.hex().startswith(start))


def _name_of(pointer: AnyPointer) -> bytes:
    """What a newer pointer must share with an older one to take its place."""
    if isinstance(pointer, JobPointer):
        text = f"job/{pointer.job.hex()}/{pointer.steward}"
    else:
        text = f"model/{pointer.model}/{pointer.publisher}"
    return hashlib.sha256(text.encode()).digest()


class Placement:
    """One pointer of this peer's own, and who has confirmed to keep it, with which store: another has not."""

    def __init__(self, pointer: Opened[AnyPointer], pause_ms: int) -> None:
        self.pointer = pointer
        self.confirmed: dict[PeerId, bytes] = {}
        self.pause_ms = pause_ms
        #: When it is placed again.
        self.due: Instant | None = None


class Pointers:
    """Keeps pointers for others (the oldest goes first), and places its own where they will be looked for."""

    def __init__(self, context: Context, views: Views) -> None:
        self._context = context
        self._views = views
        self._kept: OrderedDict[bytes, Opened[AnyPointer]] = OrderedDict()
        self._placements: OrderedDict[bytes, Placement] = OrderedDict()
        self._refreshing = Periodic(context, self._refresh, self._pace)
        views.on_gone.append(self._on_gone)

    def start(self) -> None:
        self._refreshing.wake()

    @property
    def kept_count(self) -> int:
        return len(self._kept)

    # -- keeping for others

    def open(self, signed: Signed) -> Opened[AnyPointer]:
        """A believable pointer of either kind; else RemoteProtocolError."""
        opened: Opened[AnyPointer]
        try:
            opened = self._context.open(signed, JobPointer)
        except RemoteProtocolError:
            opened = self._context.open(signed, ModelPointer)
        skew, wall = self._context.limits.clock_skew_ms, self._context.wall
        if opened.record.issued_at > wall + skew or opened.record.not_after < wall - skew:
            raise RemoteProtocolError("a pointer out of its time")
        return opened

    def keep(self, opened: Opened[AnyPointer]) -> None:
        """The newest of a job, or of a publisher's model."""
        name = _name_of(opened.record)
        old = self._kept.get(name)
        if old is not None and (old.digest == opened.digest or old.record.issued_at > opened.record.issued_at):
            return
        self._kept[name] = opened
        self._kept.move_to_end(name)
        self._context.record(Table.POINTER, name, opened.signed)
        if len(self._kept) > self._context.limits.pointers_max:
            oldest, _ = self._kept.popitem(last=False)
            self._context.record(Table.POINTER, oldest, None)

    def restore(self, signed: Signed, *, own: bool) -> None:
        """A pointer kept, or placed, by an earlier start of this node; one whose time is over is dropped."""
        try:
            opened = self.open(signed)
        except RemoteProtocolError:
            return
        self._kept[_name_of(opened.record)] = opened
        if own:
            self._placements[opened.digest] = Placement(opened, self._context.limits.pointer_refresh_ms)

    def on_store(self, sender: PeerId, message: StorePointer) -> None:
        opened = self.open(message.pointer)
        self.keep(opened)
        self._context.send(sender, PointerStored(pointer=opened.digest))
        hops = min(message.hops, self._context.limits.walk_hops)
        if hops > 0:
            next_ones: dict[PeerId, list[bytes]] = {}
            for key in keys_of(opened.record):
                for peer in self.towards(key, 1) if key in message.keys else ():
                    next_ones.setdefault(peer, []).append(key)
            for peer, keys in next_ones.items():
                if peer != sender:
                    self._context.send(peer, StorePointer(pointer=message.pointer, keys=tuple(keys), hops=hops - 1))

    def matching(self, what: str, text: str) -> list[Signed]:
        wall = self._context.wall
        return [
            opened.signed
            for opened in self._kept.values()
            if opened.record.not_after >= wall and matches(opened.record, what, text)
        ]

    # -- placing its own

    def place(self, opened: Opened[AnyPointer]) -> Placement:
        """Keep a pointer here and ask those responsible for it to keep it too; repeated as the mesh changes."""
        self.keep(opened)
        placement = Placement(opened, self._context.limits.pointer_refresh_ms)
        self._placements[opened.digest] = placement
        self._refreshing.wake()
        self._context.record(Table.PLACEMENT, opened.digest, opened.signed)
        if len(self._placements) > self._context.limits.pointers_max:
            self._drop_placement(next(iter(self._placements)))
        self._send(placement)
        return placement

    def has_placed(self, job: bytes) -> bool:
        """Whether this peer points to a job."""
        pointers = (placement.pointer.record for placement in self._placements.values())
        return any(isinstance(pointer, JobPointer) and pointer.job == job for pointer in pointers)

    def responsible(self, key: bytes) -> list[PeerId]:
        """Other peers that should keep, or will be asked for, something under ``key``."""
        return nearest(key, self._peers(), self._context.limits.pointer_copies)

    def towards(self, key: bytes, count: int) -> list[PeerId]:
        """Known peers that are nearer to ``key`` than this one."""
        return nearer(key, self._context.me, self._peers(), count)

    def _peers(self) -> list[PeerId]:
        return [opened.record.peer for opened in self._views.known()]

    def _send(self, placement: Placement) -> None:
        signed, hops = placement.pointer.signed, self._context.limits.walk_hops
        keys_for: dict[PeerId, list[bytes]] = {}
        for key in keys_of(placement.pointer.record):
            for peer in self.responsible(key):
                keys_for.setdefault(peer, []).append(key)
        for peer, keys in keys_for.items():
            if placement.confirmed.get(peer) != self._store_of(peer):
                self._context.send(peer, StorePointer(pointer=signed, keys=tuple(keys), hops=hops))

    def _place_again(self, placement: Placement) -> None:
        """Where it is missing: in a mesh larger than a view always somewhere, so ever later once enough keep it."""
        limits = self._context.limits
        if placement.pause_ms >= limits.pointer_refresh_max_ms:
            placement.confirmed.clear()  # some of them may be gone
            placement.pause_ms = limits.pointer_refresh_ms
        elif len(placement.confirmed) < limits.pointer_copies or self._views.mesh_size() <= limits.passive_view_max:
            placement.pause_ms = limits.pointer_refresh_ms
        else:
            placement.pause_ms = min(2 * placement.pause_ms, limits.pointer_refresh_max_ms)
            placement.due = after_ms(self._context.now, placement.pause_ms)
        self._send(placement)

    def _has_lost_a_disk(self, placement: Placement) -> bool:
        """Whether one that has confirmed is known to have another store by now."""
        return any(self._store_of(peer) not in (b"", store) for peer, store in placement.confirmed.items())

    def on_stored(self, sender: PeerId, message: PointerStored) -> Placement | None:
        placement = self._placements.get(message.pointer)
        if placement is not None and len(placement.confirmed) < self._context.limits.passive_view_max:
            placement.confirmed[sender] = self._store_of(sender)
        return placement

    def _store_of(self, peer: PeerId) -> bytes:
        opened = self._views.record_of(peer)
        return opened.record.store if opened is not None else b""

    def _drop_placement(self, digest: bytes) -> None:
        del self._placements[digest]
        self._context.record(Table.PLACEMENT, digest, None)

    def _on_gone(self, peer: PeerId) -> None:
        for placement in self._placements.values():
            if peer in placement.confirmed:
                del placement.confirmed[peer]
                placement.due = None

    def _refresh(self) -> None:
        for digest, placement in list(self._placements.items()):
            if placement.pointer.record.not_after < self._context.wall:
                self._drop_placement(digest)
            elif placement.due is None or placement.due <= self._context.now or self._has_lost_a_disk(placement):
                self._place_again(placement)

    def _pace(self) -> int | None:
        return self._context.limits.pointer_refresh_ms if self._placements else None
