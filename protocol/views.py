"""Who this peer knows: bounded views of signed capability records, the freshest of each peer.

The active view are its connected neighbours, the passive view others it could turn to. Partners are peers on which the
work of this one depends, such as a job's holders and workers: their records make room for none. A record is believed
when it is signed, of this mesh, admitted, within clock skew and lifetime. Records of departed peers are remembered by
version only, so that a stale copy does not bring a dead peer back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from protocol.clock import Instant, after_ms
from protocol.context import Context
from protocol.effects import KeepLink, LearnAddresses
from protocol.errors import RemoteProtocolError
from protocol.identity import PeerId
from protocol.limits import CAPABILITY_BYTES_MAX
from protocol.mesh_size import MeshSize
from protocol.records import Capability
from protocol.rendezvous import gap, nearest_to, place_of
from protocol.signing import Opened, Signed

Version = tuple[int, int]
"""(incarnation, revision) of a capability record; later records compare greater."""


def version_of(record: Capability) -> Version:
    return (record.incarnation, record.revision)


class Views:
    """The active and the passive view, and the estimate of the mesh's size."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[PeerId, Opened[Capability]] = {}
        self._expiry: dict[PeerId, Instant] = {}
        self._active: dict[PeerId, None] = {}
        self._departed: OrderedDict[PeerId, tuple[Version, bool]] = OrderedDict()
        """Their latest record, and whether they are believed gone: of others no newer one has come by."""
        #: Of all that are known those nearest to this peer on the ring, and how far they are; they make no room either.
        self._near: dict[PeerId, int] = {}
        self._place = place_of(context.me)
        self._size = MeshSize(context.me, self._epoch())
        #: Each names peers on which this one's work depends.
        self.relied_on: list[Callable[[], Iterable[PeerId]]] = []
        #: Called with each record that is new or changed what a peer can do.
        self.on_learned: list[Callable[[Capability], None]] = []
        #: Called with each peer that is believed to be gone: not with those that are merely not heard of any more.
        self.on_gone: list[Callable[[PeerId], None]] = []

    # -- reading

    @property
    def active(self) -> tuple[PeerId, ...]:
        return tuple(self._active)

    @property
    def passive(self) -> tuple[PeerId, ...]:
        return tuple(peer for peer in self._known if peer not in self._active)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, peer: object) -> bool:
        return peer in self._known

    def is_active(self, peer: PeerId) -> bool:
        return peer in self._active

    def record_of(self, peer: PeerId) -> Opened[Capability] | None:
        return self._known.get(peer)

    def known(self) -> tuple[Opened[Capability], ...]:
        return tuple(self._known.values())

    @property
    def near(self) -> tuple[PeerId, ...]:
        """A quarter as many as the passive view holds."""
        return tuple(self._near)

    def nearest_to(self, peer: PeerId, count: int) -> list[Signed]:
        """Records of others nearest to ``peer`` on the ring, that are still valid by this peer's clock."""
        wall = self._context.wall
        others = [one for one, opened in self._known.items() if one != peer and opened.record.not_after >= wall]
        return [self._known[one].signed for one in nearest_to(place_of(peer), others, count)]

    def partners(self) -> dict[PeerId, None]:
        """Peers that this one relies on, ``partners_max`` at most; they need not be known."""
        found: dict[PeerId, None] = {}
        for name_them in self.relied_on:
            for peer in name_them():
                if len(found) >= self._context.limits.partners_max:
                    return found
                found[peer] = None
        found.pop(self._context.me, None)
        return found

    def mesh_size(self) -> int:
        """Peers in the mesh, this one included: counted while all are known, else estimated."""
        return max(self._size.estimate(self._epoch()), len(self._known) + 1)

    def sketch(self) -> tuple[int, tuple[int, ...]]:
        """The epoch and the values of the mesh-size sketch, to send along."""
        self._size.turn_to(self._epoch())
        return self._size.epoch, self._size.values

    def merge_sketch(self, epoch: int, values: tuple[int, ...]) -> None:
        self._size.turn_to(self._epoch())
        self._size.merge(epoch, values)

    def has_departed(self, peer: PeerId) -> bool:
        _, gone = self._departed.get(peer, (None, False))
        return gone

    def departed_count(self) -> int:
        return len(self._departed)

    def sample(self, count: int) -> list[Signed]:
        """Random records from both views that are still valid by this peer's clock."""
        wall = self._context.wall
        records = [opened.signed for opened in self._known.values() if opened.record.not_after >= wall]
        return self._context.rng.sample(records, min(count, len(records)))

    # -- learning

    def open(self, signed: Signed) -> Opened[Capability]:
        """The record inside, if it is to be believed here and now; else RemoteProtocolError says why not."""
        opened = self._context.open(signed, Capability)
        self._judge(opened)
        return opened

    def _judge(self, opened: Opened[Capability]) -> None:
        record, context = opened.record, self._context
        skew = context.limits.clock_skew_ms
        if len(opened.signed.payload) > CAPABILITY_BYTES_MAX:
            raise RemoteProtocolError("larger than such a record may be")
        if record.mesh != context.profile.mesh:
            raise RemoteProtocolError(f"of another mesh, {record.mesh!r}")
        if context.profile.admitted and record.peer not in context.profile.admitted:
            raise RemoteProtocolError("not admitted to this private mesh")
        if record.issued_at > context.wall + skew:
            raise RemoteProtocolError(f"dated {(record.issued_at - context.wall) // 1000} s in the future")
        if record.not_after < context.wall - skew:
            raise RemoteProtocolError(f"expired {(context.wall - record.not_after) // 1000} s ago")
        if record.not_after - record.issued_at > 2 * context.limits.capability_lifetime_ms:
            raise RemoteProtocolError("valid for too long")

    def learn(self, signed: Signed, *, direct: bool = False) -> Opened[Capability] | None:
        """As ``take``, of a record that is still to be opened."""
        return self.take(self._context.open(signed, Capability), direct=direct)

    def take(self, opened: Opened[Capability], *, direct: bool) -> Opened[Capability] | None:
        """Take in a record; ``direct`` if its peer sent it itself, so that it surely lives.

        Returns the freshest record of that peer, None if it is this peer's own or of one that departed. Raises
        RemoteProtocolError for a record that is not to be believed.
        """
        peer = opened.record.peer
        old, version = self._known.get(peer), version_of(opened.record)
        if old is not None and not direct and version <= version_of(old.record):
            return old  # most records that are not known themselves are older than the known one
        self._judge(opened)
        if peer == self._context.me:
            return None
        departed = self._departed.get(peer)
        if departed is not None:
            if version <= departed[0] and not direct:
                return None
            del self._departed[peer]
        if opened.record.not_after < self._context.wall and not direct:
            return None  # within the skew its peer may live, but then there is a newer one
        # a neighbour that has lost its counter goes on below what it had: its old record is good for its time only
        if old is not None and version <= version_of(old.record):
            outlived = direct and old.record.not_after < min(self._context.wall, opened.record.not_after)
            if not outlived:
                return old
        if old is None and len(self._known) - len(self._active) >= self._context.limits.passive_view_max:
            self._make_room()
        self._known[peer] = opened
        if old is None:
            self._note_near(peer)
        self._expiry[peer] = after_ms(self._context.now, self._context.limits.capability_lifetime_ms)
        if old is None:
            self._size.turn_to(self._epoch())
            self._size.add(peer)
        if old is None or old.record.addresses != opened.record.addresses:
            self._context.emit(LearnAddresses(peer, opened.record.addresses))
        if old is None or _abilities(old.record) != _abilities(opened.record):
            for call in self.on_learned:
                call(opened.record)
        return opened

    def activate(self, peer: PeerId) -> None:
        """Make a known peer a neighbour."""
        assert peer in self._known
        if peer not in self._active:
            self._active[peer] = None
            self._context.emit(KeepLink(peer, True))

    def deactivate(self, peer: PeerId) -> None:
        """Back to the passive view."""
        if peer in self._active:
            del self._active[peer]
            self._context.emit(KeepLink(peer, False))

    def depart(self, peer: PeerId) -> None:
        """Believe that a peer is gone until it speaks, or a newer record of it turns up."""
        opened = self._known.get(peer)
        if opened is not None:
            self.deactivate(peer)
            self._forget(peer)
            self._remember_departed(opened.record, gone=True)
        for call in self.on_gone:
            call(peer)

    def _remember_departed(self, record: Capability, *, gone: bool) -> None:
        self._departed[record.peer] = version_of(record), gone
        if len(self._departed) > self._context.limits.departed_max:
            self._departed.popitem(last=False)

    def expire(self) -> None:
        """Forget passive records past their lifetime; who is a neighbour is for probing to judge.

        In a large mesh it means little that no newer record has come by; a partner's would have been fetched.
        """
        wall, now = self._context.wall, self._context.now
        partners = self.partners()
        for peer, opened in list(self._known.items()):
            if peer not in self._active and (self._expiry[peer] <= now or opened.record.not_after < wall):
                if peer in partners:
                    self.depart(peer)
                else:
                    self._remember_departed(opened.record, gone=False)
                    self._forget(peer)

    def _make_room(self) -> None:
        """Forget a random other, so that the passive view without the partners stays within its bound."""
        partners = self.partners()
        others = [peer for peer in self._known if peer not in self._active and peer not in partners]
        if len(others) >= self._context.limits.passive_view_max:
            self._forget(self._context.rng.choice([peer for peer in others if peer not in self._near]))

    def _note_near(self, peer: PeerId) -> None:
        self._near[peer] = gap(self._place, place_of(peer))
        if len(self._near) > self._context.limits.passive_view_max // 4:
            del self._near[max(self._near, key=self._near.__getitem__)]

    def _forget(self, peer: PeerId) -> None:
        del self._known[peer]
        del self._expiry[peer]
        if self._near.pop(peer, None) is not None:
            for other in nearest_to(self._place, self._known, self._context.limits.passive_view_max // 4):
                self._near[other] = gap(self._place, place_of(other))

    def _epoch(self) -> int:
        return self._context.wall // self._context.limits.mesh_epoch_ms


def _abilities(record: Capability) -> tuple[object, ...]:
    return (record.incarnation, record.cpu_milli, record.memory_bytes, record.isolation, record.addresses)
