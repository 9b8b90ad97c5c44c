"""Peers that lie. A liar is the real peer with a false tongue: what it says of itself goes out, and lies besides.

Its key is its own, so it can sign what it likes for itself and nothing for others; it may send again what others have
signed, and speak as if it had a part that it does not have. Whatever it says, no honest peer may come to harm. What is
no lie here: an output that is not what the task makes. Nobody can tell that from a receipt alone.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

import msgspec

from protocol.decrees import Certificate, Final, Next, digest_of
from protocol.events import Event, MessageReceived
from protocol.identity import SIGNATURE_BYTES, PeerId
from protocol.messages import (
    Accept,
    Announce,
    Bid,
    Decided,
    HoldAnswer,
    Join,
    Leads,
    Message,
    Nack,
    Neighbour,
    Offer,
    Ping,
    Prepare,
    Receipts,
    ReceiptsAck,
    Renew,
    Renewal,
    Revoke,
    Shuffle,
    StorePointer,
)
from protocol.records import Announcement, Award, Held, JobPointer, JobSpec, Receipt, Vote
from protocol.signing import Opened, Signed, sign
from protocol.wire import Ballot, Holder, Role, Task
from simulations.decisions import Decision

if TYPE_CHECKING:
    from simulations.machines import Machine
    from simulations.world import World

_REMEMBERED = 32
_FAR_MS = 600_000
"""Out of its time by any clock that a mesh puts up with."""
_SLOTS_CLAIMED = 1_024


class Liar:
    """What one machine's peer says goes through here: see the ``lie`` rates in ``faults.py``."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._capabilities: deque[Signed] = deque(maxlen=_REMEMBERED)
        self._receipts: deque[tuple[bytes, Signed]] = deque(maxlen=_REMEMBERED)
        """With the job of each; some are lies of others."""
        self._pointers: deque[Signed] = deque(maxlen=_REMEMBERED)
        self._offers: deque[Offer] = deque(maxlen=_REMEMBERED)
        self._announced: deque[Announce] = deque(maxlen=_REMEMBERED)

    def hear(self, event: Event) -> None:
        """Remember what others have signed."""
        if type(event) is not MessageReceived:
            return
        match event.message:
            case Shuffle(origin=origin):
                self._capabilities.append(origin)
            case Receipts(job=job, receipts=receipts):
                self._receipts.extend((job, signed) for signed in receipts)
            case StorePointer(pointer=pointer):
                self._pointers.append(pointer)
            case Offer() as offer:
                self._offers.append(offer)
            case Announce() as announce:
                self._announced.append(announce)
            case _:
                pass

    def send(self, to: PeerId, message: Message) -> None:
        """What its peer wants to say, and what it makes of the occasion."""
        faults, network, index = self._world.faults, self._world.network, self._machine.index
        if type(message) is Bid and (lie := faults.draw("lie_bid", index)) is not None:
            best = msgspec.structs.replace(
                message, slots=_SLOTS_CLAIMED, start_in_ms=0, task_ms=1, warm=True, has_inputs=True
            )
            self._tell(lie, to, best)
        else:
            network.send(self._machine, to, message)
        if isinstance(message, Bid | Receipts) and (lie := faults.draw("lie_work", index)) is not None:
            self._tell(
                lie, to, self._forged(lie.rng(), message) if lie.kind == "lie_forged" else self._altered(message)
            )
        if (lie := faults.draw("lie", index)) is not None:
            rng = lie.rng()
            match lie.kind:
                case "lie_record":
                    self._tell(lie, to, self._bad_record(rng))
                case "lie_garbage":
                    if network.lie(self._machine, to, None):
                        self._happened(lie, to, "garbage")
                case "lie_stolen":
                    self._tell(lie, to, self._stolen(rng))
                case _:
                    self._tell(lie, to, self._usurping(rng, to))

    def _tell(self, lie: Decision, to: PeerId, message: Message | None) -> None:
        if message is not None and self._world.network.lie(self._machine, to, message):
            self._happened(lie, to, type(message).__name__)

    def _happened(self, lie: Decision, to: PeerId, what: str) -> None:
        where = f"peer {self._machine.index} to {self._world.machines[to].index}: {what}"
        self._world.faults.happened(lie, self._world.agenda.now, where)

    # -- about work

    def _forged(self, rng: Random, message: Bid | Receipts) -> Receipts:
        """A receipt of a task that this peer was never given, under an award that it made up or that is another's."""
        awards = [offer.award.digest for offer in self._offers]
        award = rng.choice([rng.randbytes(32), *awards])
        name = rng.choice([self._machine.peer_id, self._other(rng)])
        receipt = self._signed_as(
            name,
            Receipt(
                job=message.job,
                task=Task(role=rng.choice(list(Role)), index=rng.randrange(4))
                if rng.random() < 0.5
                else Task(index=150),
                award=award,
                attempt=1,
                worker=name,
                success=True,
                input_hash=bytes(32),
                started_at=self._wall(),
                issued_at=self._wall(),
            ),
        )
        return Receipts(job=message.job, receipts=(receipt,))

    def _altered(self, message: Bid | Receipts) -> Receipts | None:
        """Its own receipts again, better than they were; the outputs are the same."""
        if not isinstance(message, Receipts):
            return None
        altered = []
        for signed in message.receipts:
            record = self._world.reader.open(signed, Receipt).record
            better = msgspec.structs.replace(
                record, run_ms=1, latency_ms=1, started_at=0, issued_at=record.issued_at + 1
            )
            altered.append(sign(better, self._machine.signer).signed)
        return Receipts(job=message.job, receipts=tuple(altered))

    # -- about itself, and about others

    def _bad_record(self, rng: Random) -> Message | None:
        """Its own capability record: of the future, long expired, valid for ever, or with a bad signature."""
        peer = self._machine.peer
        if peer is None:
            return None
        wall = self._wall()
        issued_at, lifetime = rng.choice(((wall + _FAR_MS, 60_000), (wall - _FAR_MS, 60_000), (wall, 1 << 40)))
        record = msgspec.structs.replace(
            peer.snapshot().capability, revision=1 << 62, issued_at=issued_at, not_after=issued_at + lifetime
        )
        signed = sign(record, self._machine.signer).signed
        if rng.random() < 0.25:
            signed = _badly(signed)
        return self._introduction(rng, signed)

    def _stolen(self, rng: Random) -> Message | None:
        """Something that another peer has signed, in a place where only this peer's own belongs."""
        choices: list[Message] = []
        if self._capabilities:
            choices.append(self._introduction(rng, rng.choice(self._capabilities)))
        if self._receipts:
            job, signed = rng.choice(self._receipts)
            choices.append(Receipts(job=job, receipts=(signed,)))
        if self._pointers:
            choices.append(StorePointer(pointer=rng.choice(self._pointers)))
            pointer = self._world.reader.open_any(rng.choice(self._pointers)).record
            if isinstance(pointer, JobPointer):
                held = Held(
                    job=pointer.job, peer=pointer.steward, store=bytes(16), until=1 << 50, issued_at=self._wall()
                )
                choices.append(HoldAnswer(job=pointer.job, held=self._signed_as(held.peer, held)))
        return rng.choice(choices) if choices else None

    def _introduction(self, rng: Random, capability: Signed) -> Message:
        wall = self._wall()
        return rng.choice(
            (
                Ping(number=0, capability=capability, wall_ms=wall),
                Join(capability=capability, wall_ms=wall),
                Neighbour(capability=capability, urgent=True, wall_ms=wall),
            )
        )

    # -- in a part that it does not have

    def _usurping(self, rng: Random, to: PeerId) -> Message | None:
        """As if it were the steward of another's job: under an old ballot, in a round that is over."""
        offers = [offer for offer in self._offers if not self._holds(self._opened(offer, JobSpec).record)]
        choices: list[Message] = []
        if offers:
            offer = rng.choice(offers)
            award = self._opened(offer, Award)
            choices += [
                *self._ballots(award.record.job),
                Revoke(award=award.digest, reason="out of the way"),
                ReceiptsAck(receipts=(rng.randbytes(32), *(signed.digest for _, signed in list(self._receipts)[:8]))),
                self._offered_again(offer, award, to),
            ]
        if self._announced and (peer := self._machine.peer) is not None:
            old = rng.choice(self._announced)
            record = self._world.reader.open(old.announcement, Announcement).record
            mine = msgspec.structs.replace(
                record, steward=self._machine.peer_id, ballot=Ballot(peer=self._machine.peer_id), round=0
            )
            capability = peer.snapshot().capability
            choices += [
                Announce(
                    announcement=sign(mine, self._machine.signer).signed,
                    steward=sign(capability, self._machine.signer).signed,
                    hops=2,
                ),
                msgspec.structs.replace(old, hops=2),
            ]
        return rng.choice(choices) if choices else None

    def _ballots(self, job: bytes) -> list[Message]:
        """As if it held another's job, with a higher ballot than anybody; and an end that nobody voted for."""
        me = self._machine.peer_id
        ballot, decree = Ballot(epoch=9, peer=me), Final(body=bytes(32))
        vote = Vote(job=job, ballot=ballot, decree=digest_of(decree), peer=me, store=self._machine.store)
        votes = (sign(vote, self._machine.signer).signed,)
        return [
            Prepare(job=job, ballot=ballot),
            Accept(job=job, ballot=ballot, decree=Next(holders=(Holder(peer=me, store=bytes(16)),), steward=me)),
            Leads(job=job, ballot=ballot),
            Nack(job=job, ballot=ballot),
            Decided(job=job, chain=(Certificate(ballot=ballot, decree=decree, votes=votes),)),
            Renew(renewals=(Renewal(job=job, ballot=ballot, progress=1),)),
        ]

    def _offered_again(self, offer: Offer, award: Opened[Award], to: PeerId) -> Offer:
        mine = msgspec.structs.replace(
            award.record, steward=self._machine.peer_id, ballot=Ballot(peer=self._machine.peer_id), worker=to
        )
        return msgspec.structs.replace(offer, award=sign(mine, self._machine.signer).signed)

    def _holds(self, spec: JobSpec) -> bool:
        """Holders are trusted with a job: what one of them could do to it is not looked at here."""
        return self._machine.peer_id in [holder.peer for holder in spec.holders]

    def _opened(self, offer: Offer, kind: type) -> Opened:
        return self._world.reader.open(offer.award if kind is Award else offer.spec, kind)

    # -- tools

    def _signed_as(self, name: PeerId, record: Receipt | Held) -> Signed:
        """Properly signed if the name is its own; else as well as it can, which is not at all."""
        if name == self._machine.peer_id:
            return sign(record, self._machine.signer).signed
        return _badly(sign(record, _Pretender(name)).signed)

    def _other(self, rng: Random) -> PeerId:
        return rng.choice([machine.peer_id for machine in self._world.machines.all])

    def _wall(self) -> int:
        return self._machine.wall(self._world.agenda.now)


class _Pretender:
    """A signer without the key."""

    def __init__(self, peer_id: PeerId) -> None:
        self.peer_id = peer_id

    def sign(self, message: bytes) -> bytes:
        return bytes(SIGNATURE_BYTES)


def _badly(signed: Signed) -> Signed:
    signature = bytes([signed.signature[0] ^ 1, *signed.signature[1:]])
    return Signed(payload=signed.payload, signature=signature)
