"""A whole mesh in virtual time: feeds events to peers and carries out what they ask for.

This is the second driver of ``protocol.peer.Peer``; the node is the first. Whatever a peer may notice comes from here:
one seeded source of randomness, integer time, and an agenda that never lets two entries compare equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from protocol.clock import Instant
from protocol.effects import (
    CloseLink,
    Effect,
    FetchBlobs,
    KeepLink,
    LearnAddresses,
    Notice,
    Record,
    Reply,
    Send,
    StartRun,
    StopRun,
)
from protocol.events import Event, WakeupReached
from protocol.identity import Ed25519Signer, Ed25519Verifier, Signer, Verifier
from protocol.peer import Peer
from simulations.agenda import Agenda
from simulations.blobs import Library
from simulations.checkers import Checkers
from simulations.decisions import Decision, Decisions
from simulations.disruptions import Disruptions
from simulations.holdups import Holdups
from simulations.machines import Machine, Machines
from simulations.network import Network
from simulations.options import Options
from simulations.runs import Runs
from simulations.signing import KeyedSigner, KeyedVerifier, SharedReader
from simulations.trace import Trace
from simulations.transfers import Transfers
from simulations.workload import Workload

_WAKEUP = WakeupReached()

ReplyHandler = Callable[[Machine, Any], None]


class World:
    """Owns time, randomness and everything in it. ``build_peer`` makes the peers: tests put others in their place."""

    def __init__(self, options: Options, build_peer: Callable[..., Any] = Peer) -> None:
        self.options = options
        self.build_peer = build_peer
        self.rng = Random(f"world/{options.seed}")
        self.agenda = Agenda()
        self.faults = Decisions(options.faults, options.seed, options.only)
        self.trace = Trace()
        self.library = Library()
        self._key = self.rng.randbytes(32)
        verifier: Verifier = Ed25519Verifier() if options.real_crypto else KeyedVerifier(self._key)
        self.reader = SharedReader(verifier)
        self.network = Network(self, options.latency_ms, options.jitter_ms)
        self.machines = Machines(self, options.bootstraps)
        self.transfers = Transfers(self)
        self.runs = Runs(self)
        self.workload = Workload(self)
        self.checkers = Checkers(self)
        self.holdups = Holdups(self)
        self.disruptions = Disruptions(self)
        self._requests: dict[int, ReplyHandler] = {}
        self._next_request = 0
        self._carry_out: dict[type[Effect], Callable[[Machine, Any], None]] = {
            Send: self._tell,
            LearnAddresses: lambda machine, effect: machine.addresses.add(effect.peer),
            KeepLink: lambda machine, effect: self.network.keep(machine, effect.peer, effect.keep),
            CloseLink: lambda machine, effect: self.network.close(machine, effect.peer),
            StartRun: self.runs.start,
            StopRun: lambda machine, effect: self.runs.stop(machine, effect.run),
            FetchBlobs: self.transfers.fetch,
            Reply: self._reply,
            Notice: lambda machine, effect: None,
        }

    def signer(self, name: str = "") -> Signer:
        """A new key, for a peer or a submitter; one with a name is the same whatever came before it."""
        seed = Random(f"key/{self.options.seed}/{name}").randbytes(32) if name else self.rng.randbytes(32)
        return Ed25519Signer(seed) if self.options.real_crypto else KeyedSigner(self._key, seed)

    def feed(self, machine: Machine, event: Event, number: int = 0, is_lie: bool = False) -> None:
        """Give one event to the peer of a machine that is alive: at once, unless the machine is held up.

        ``number`` says of a received message the how manieth it is that was sent; ``is_lie`` that its sender knew it to
        be wrong.
        """
        if machine.inbox is None:
            self.turn(machine, event, number, is_lie)
        else:
            machine.inbox.append((event, number, is_lie))

    def turn(self, machine: Machine, event: Event, number: int = 0, is_lie: bool = False) -> None:
        """One event: keep the records that the peer asks for, check, and carry out the rest.

        Rules see only what the journal has: what a crash undoes before that nobody could have noticed.
        """
        now = self.agenda.now
        peer = machine.peer
        assert peer is not None, "an event for a machine that is down"
        effects = peer.handle(event, now=Instant(now))
        self.trace.add(now, machine.index, event, effects, number)
        if machine.liar is not None:
            machine.liar.hear(event)
        others: Sequence[Effect] = effects
        crash: Decision | None = None
        journal = machine.journal
        for effect in effects:
            if type(effect) is Record:
                journal.write(effect)
        if journal.unsynced:
            crash = self.disruptions.strike_call(machine)
            if crash is not None and crash.kind != "crash_midway":
                self.disruptions.crash_unsynced(machine, crash)  # as if the event had never reached it
                return
            journal.sync()
            others = [effect for effect in effects if type(effect) is not Record]
        self.checkers.after(machine, event, effects, is_lie)
        if crash is not None:
            others = others[: crash.rng().randint(0, len(others))]
        for effect in others:
            if type(effect) is Send and machine.liar is None:  # most of all there is to do
                self.network.send(machine, effect.to, effect.message)
            else:
                self._carry_out[type(effect)](machine, effect)
        if crash is not None:
            self.disruptions.crash_midway(machine, crash)
            return
        wake = peer.next_wakeup()
        if wake is not None and (machine.wake_at is None or wake < machine.wake_at):
            self._plan_wakeup(machine, wake)

    def _tell(self, machine: Machine, effect: Send) -> None:
        assert machine.liar is not None
        machine.liar.send(effect.to, effect.message)

    def feed_if(self, machine: Machine, boot: int, event: Event) -> None:
        """As ``feed``, unless the machine has crashed since boot number ``boot``."""
        if machine.boot == boot and machine.alive:
            self.feed(machine, event)

    def ask(self, machine: Machine, make_event: Callable[[int], Event], on_reply: ReplyHandler) -> None:
        """A client asks: ``make_event`` gets the request's number. No reply ever comes from a machine that crashes."""
        self._next_request += 1
        self._requests[self._next_request] = on_reply
        self.feed(machine, make_event(self._next_request))

    def _reply(self, machine: Machine, effect: Reply) -> None:
        if (on_reply := self._requests.pop(effect.request, None)) is not None:
            # not at once: whoever gets the answer may feed the very peer that is being fed
            self.agenda.after(0, on_reply, machine, effect.answer)

    # A peer has one pending wake-up. When it wants an earlier one, the later one goes stale and is skipped.

    def _plan_wakeup(self, machine: Machine, wake: int) -> None:
        when = max(wake, self.agenda.now)
        machine.wake_at = when
        self.agenda.at(when, self._wake, machine, machine.boot, when)

    def _wake(self, machine: Machine, boot: int, when: int) -> None:
        if machine.boot != boot or machine.wake_at != when or machine.peer is None:
            return
        machine.wake_at = None
        due = machine.peer.next_wakeup()
        if due is not None and due > when:
            self._plan_wakeup(machine, due)
        elif due is not None:
            self.feed(machine, _WAKEUP)
