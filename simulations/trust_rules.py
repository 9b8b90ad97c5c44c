"""Rules about what the word of others may do: a lie moves no work, and what is settled is let rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocol.durable import Table
from protocol.effects import CloseLink, Effect, Record, Send, StartRun, StopRun
from protocol.events import Event, MessageReceived
from protocol.messages import Bid, Decided, HoldAnswer, Leads, Offer, Receipts
from protocol.records import Receipt
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World


class LieRules:
    """Nothing that a liar says starts or ends work on an honest peer, or the keeping of what was done.

    Receipts are let be: those that a liar sends twice, or for another, may be good ones, and the first to arrive. So
    are promises to keep files, which are as good as any other's. A bid, whatever it promises, is an answer, and may be
    the last that an auction waited for; and who is ignored from now on, for one lie too many, has its work done
    elsewhere. Either may start work here, and ends none.
    """

    def told(self, machine: Machine, event: Event, effects: Sequence[Effect]) -> None:
        if not isinstance(event, MessageReceived) or isinstance(event.message, Receipts | HoldAnswer):
            return
        is_last = (
            CloseLink(event.sender) in effects and machine.peer is not None and machine.peer.is_banned(event.sender)
        )
        may_begin = is_last or isinstance(event.message, Bid)
        for effect in effects:
            if may_begin and _begins(effect):
                continue
            work = isinstance(effect, StartRun | StopRun)
            if work or (isinstance(effect, Record) and effect.table in (Table.LEASE, Table.RECEIPT)):
                what, kind = type(effect).__name__, type(event.message).__name__
                raise Violation("lies", f"peer {machine.index} is moved to a {what} by the {kind} of a liar")


def _begins(effect: Effect) -> bool:
    """Whether an effect is of a lease that this peer takes."""
    is_lease = isinstance(effect, Record) and effect.table == Table.LEASE and effect.value is not None
    return isinstance(effect, StartRun) or is_lease


class AcknowledgementRules:
    """What its steward has acknowledged is not sent to it again, unless that steward asks for the work anew."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._settled: dict[tuple[int, int], set[tuple[bytes, str]]] = {}
        """By machine and boot: receipts, and who has acknowledged each."""

    def acknowledged(self, machine: Machine, event: MessageReceived) -> None:
        assert machine.peer is not None
        if machine.peer.is_banned(event.sender):
            return  # not listened to at present: an honest peer, too, where a clock is an hour wrong
        settled = self._settled.setdefault((machine.index, machine.boot), set())
        settled.update((digest, event.sender) for digest in event.message.receipts)  # type: ignore[attr-defined]

    def offered(self, machine: Machine, _: Offer | Leads | Decided) -> None:
        """Whoever gives work, or takes a job over, may have to hear again what was done."""
        self._settled.pop((machine.index, machine.boot), None)

    def sent(self, machine: Machine, effect: Send) -> None:
        assert machine.peer is not None
        if machine.peer.record_of(effect.message.job) is not None:  # type: ignore[attr-defined]
            return  # a holder tells itself who is steward, which nobody else hears
        settled = self._settled.get((machine.index, machine.boot))
        if not settled:
            return
        for signed in effect.message.receipts:  # type: ignore[attr-defined]
            digest = self._world.reader.open(signed, Receipt).digest
            if (digest, effect.to) in settled:
                raise Violation("acknowledgements", f"peer {machine.index} delivers a receipt that was acknowledged")
