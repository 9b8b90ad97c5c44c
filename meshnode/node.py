"""A node: the one task that owns the ``Peer``, and around it everything that reaches the world.

    frames, clients, runs, fetches, the clock ──► inbox ──► Peer.handle ──► journal ──► links, executor, disk, replies

Only the loop touches the peer. Everything else talks to it through the bounded inbox, so a fast or hostile remote
waits instead of filling memory, and carrying out an effect never waits: it queues, or starts a task. An exception in
one of those tasks is logged and answered as that task's failure; it never ends the node.

What the peer wants kept is on disk before anything else that it wants is done. All events that wait are handled
together and kept in one transaction, because a sync takes longer than many events. A node whose journal fails ends:
it has told nobody what it could not keep, and starts again with everything else.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec
import trio

from meshnode import machine, reserve, retention
from meshnode.blobs import wire as blob_wire
from meshnode.blobs.errors import BlobError
from meshnode.blobs.exchange import BlobClient, BlobServer
from meshnode.blobs.store import BlobStore
from meshnode.config import Config
from meshnode.doctor import examine
from meshnode.execution.executor import Executor
from meshnode.execution.models import ModelCache
from meshnode.execution.offering import Offer, find_runtimes
from meshnode.fetching import Fetcher
from meshnode.hearing import Hearing
from meshnode.inbox import Inbox
from meshnode.inbox import NotAnswered as NotAnswered
from meshnode.journal import Journal, JournalFailed, Row
from meshnode.keystore import Home, open_home
from meshnode.net.errors import NetworkError
from meshnode.net.links import LinkLimits, Links
from meshnode.net.network import Network
from meshnode.recorder import Recorder
from meshnode.references import References
from meshnode.reserve import Reserve
from meshnode.runtimes.base import ImagePolicy
from meshnode.runtimes.pool import WarmPool
from meshnode.runtimes.sandbox import Sandbox
from meshnode.tasks.splitmerge.plugins import installed, label
from protocol import effects, events, trace
from protocol.clock import NS_PER_S, Instant, WallMs
from protocol.effects import Effect, Proposal
from protocol.errors import RemoteProtocolError
from protocol.events import Event
from protocol.fitness import PRICE_UNITS
from protocol.identity import Ed25519Signer, Ed25519Verifier, PeerId
from protocol.limits import ADDRESSES_MAX, CONTENT_BYTES_MAX, DEFAULT_LIMITS, LABELS_MAX, TEXT_CHARS_MAX
from protocol.messages import Message, encode_message
from protocol.peer import Peer, PeerSnapshot
from protocol.profile import Profile
from protocol.records import Capability, JobSpec
from protocol.show import short_id
from protocol.signing import RecordReader, Signed
from protocol.wire import Link, Output

log = logging.getLogger(__name__)
mesh_log = logging.getLogger("mesh")
"""What the peer has to say, apart from what the shell has."""

CONTROL_PROTOCOL = "/meshnode/control/1"
LINK_LIMITS = LinkLimits(inbound_frames_per_s=1_000, inbound_bytes_per_s=8 << 20)
"""Reading a frame costs about 0.2 ms of processor: no remote shall have more than a fraction of it."""
CLOCK_EVERY_S = 1.0
CLOCK_LOOK_EVERY_S = 0.25
CLOCK_JUMP_S = 0.2
LEAVE_WITHIN_S = 2.0
FLUSH_S = 0.1
BATCH_EVENTS_MAX = 64
"""Handled, and kept, together: about as many as are handled in the time of one sync."""
BOOT_ID_BYTES = 8
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


class Node:
    """One running node. Made by ``Node.start``."""

    def __init__(
        self,
        config: Config,
        home: Home,
        journal: Journal,
        network: Network,
        links: Links,
        offer: Offer,
        nursery: trio.Nursery,
        peer: Peer,
        recorder: Recorder | None,
        references: References,
        pool: WarmPool | None,
    ) -> None:
        self.config = config
        self.network = network
        self.offer = offer
        self.peer_id = PeerId(network.peer_id)
        self.blobs = BlobStore(home.path, capacity=config.storage_bytes, reserve=config.reserve_bytes // 2)
        self.hearing = Hearing()
        self._home = home
        self._journal = journal
        self._reserve = Reserve(home.path, config.reserve_bytes)
        self._links = links
        self._nursery = nursery
        self._inbox = Inbox()
        self._runs: dict[int, trio.CancelScope] = {}
        self._left = trio.Event()
        self._reader = RecordReader(Ed25519Verifier())
        client = BlobClient(self.blobs, network.open_stream, errors=(NetworkError, OSError))
        self._fetcher = Fetcher(self.blobs, client, self.peer_id)
        self._server = BlobServer(self.blobs, may_serve=self._may_serve, errors=(NetworkError, OSError))
        self._executor = Executor(
            blobs=self.blobs,
            fetch=self._fetcher.fetch,
            models=ModelCache(home.path / "models"),
            folder=home.runs / "tasks",
            wall=self.wall,
            sandbox=offer.sandbox,
            containers=offer.containers,
            pool=pool,
        )
        self._peer = peer
        self._recorder = recorder
        self._references = references

    @classmethod
    @asynccontextmanager
    async def start(cls, config: Config) -> AsyncIterator[Node]:
        """Run a node until the block is left; ``leave`` first for an orderly end.

        Raises HomeError, JournalFailed (while the block runs, too), a NetworkError for an address that cannot be used,
        or RuntimeUnavailable.
        """
        async with AsyncExitStack() as stack:
            home = stack.enter_context(open_home(config.home))
            journal = await stack.enter_async_context(Journal.open(home.journal))
            offer = await find_runtimes(
                config.runtime,
                home=home.runs,
                node_id=Ed25519Signer(home.seed).peer_id,
                boot_id=f"boot{secrets.token_hex(BOOT_ID_BYTES)}",
                image_policy=_image_policy(config),
            )
            network = await stack.enter_async_context(
                Network.start(home.seed, listen=config.listen, announce=config.announce or None)
            )
            links = await stack.enter_async_context(
                Links.run(network, CONTROL_PROTOCOL, rng=random.Random(secrets.randbits(64)), limits=LINK_LIMITS)
            )
            rows = await journal.rows()
            peer, recorder = _make_peer(config, home, _profile(config, journal, network, offer), rows)
            if recorder is not None:
                stack.callback(recorder.close)
            nursery = await stack.enter_async_context(trio.open_nursery())
            references = References(rows)
            pool = await _warm_pool(config, home, offer, nursery)
            node = cls(config, home, journal, network, links, offer, nursery, peer, recorder, references, pool)
            await trio.to_thread.run_sync(node._executor.clear)
            network.handle(blob_wire.PROTOCOL_ID, node._server.serve)
            for known, addresses in config.bootstrap.items():
                network.learn_addresses(known, addresses)
            await node._advance([events.Started()])
            for task in (node._drive, node._hear_links, node._watch_clock, node._watch_disk, node._sweep):
                nursery.start_soon(task)
            try:
                yield node
            finally:
                nursery.cancel_scope.cancel()

    # -- for the API, the gateway and the command line -----------------------------------------------------------------

    def wall(self) -> WallMs:
        """This node's wall clock."""
        return _wall(self.config)

    def snapshot(self) -> PeerSnapshot:
        """A frozen view of the peer."""
        return self._peer.snapshot()

    async def ask(self, make_event: Callable[[int], Event], timeout_s: float) -> Message | Proposal:
        """Hand a client's request, made from its number, to the peer and wait for the reply. Raises NotAnswered."""
        return await self._inbox.ask(make_event, timeout_s)

    async def fetch_blob(self, link: Link, sources: Sequence[PeerId], records: Sequence[Signed] = ()) -> None:
        """Have a blob in ``blobs``, from any of ``sources``; ``records`` say where those are. Raises BlobError."""
        for signed in records:
            try:
                capability = self._reader.open(signed, Capability).record
            except RemoteProtocolError as error:
                log.info("a record that came with a blob's sources: %s", error)
                continue
            self.network.learn_addresses(capability.peer, capability.addresses)
        await self._fetcher.fetch([link], sources)

    def refuses(self, spec: JobSpec) -> str | None:
        """Why nothing is done here for a job of a stranger, in one sentence; None if it may be."""
        if spec.mesh != self.config.mesh:
            return f"the job is for mesh {spec.mesh!r}, this is {self.config.mesh!r}"
        if spec.not_after <= self.wall():
            return "the job has expired"
        return self.config.policy.refuses_job(spec) or self._reserve.low

    async def doctor(self) -> dict[str, Any]:
        """What this node knows of its own health, as JSON: see ``doctor.examine``."""
        return examine(
            snapshot=self.snapshot(),
            offer=self.offer,
            usage=self.blobs.usage(),
            home=self.config.home,
            listening=self.network.addresses,
            joins=self.config.join,
            reserve=self.config.reserve_bytes,
        )

    async def leave(self) -> None:
        """Tell the mesh that this node goes, and give the words a moment to get out."""
        with trio.move_on_after(LEAVE_WITHIN_S):
            await self._inbox.post(events.LeaveAsked())
            await self._left.wait()
            for peer in self.network.connections():
                self._links.close(peer)
            await trio.sleep(FLUSH_S)

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        """The only task that touches the peer."""
        while True:
            wakeup = self._peer.next_wakeup()
            event: Event = events.WakeupReached()
            with trio.move_on_at(math.inf if wakeup is None else wakeup / NS_PER_S):
                event = await self._inbox.receive()
            batch = [event, *self._inbox.take_waiting(BATCH_EVENTS_MAX - 1)]
            await self._advance(batch)
            if any(isinstance(event, events.LeaveAsked) for event in batch):
                self._left.set()

    async def _advance(self, batch: Sequence[Event]) -> None:
        """Handle the events, keep what is to be kept, then do the rest. Raises JournalFailed: nothing was done then."""
        wanted = [effect for event in batch for effect in self._handle(event)]
        records = [effect for effect in wanted if isinstance(effect, effects.Record)]
        if records:
            self._references.note(records)
            try:
                await self._journal.commit(records)
            except JournalFailed as error:
                log.critical("the node ends: %s", error)
                raise
        for effect in wanted:
            if not isinstance(effect, effects.Record):
                self._try_to_carry_out(effect)

    def _handle(self, event: Event) -> Sequence[Effect]:
        now, wanted = _now(), None
        try:
            wanted = self._peer.handle(event, now=now)
        except Exception:  # a bug of ours; the next event may be none the worse for it
            log.exception("handling %s failed", type(event).__name__)
        if self._recorder is not None:
            self._recorder.add(now, event, wanted)
        return wanted or ()

    def _try_to_carry_out(self, effect: Effect) -> None:
        try:
            self._carry_out(effect)
        except Exception:
            log.exception("carrying out %s failed", type(effect).__name__)

    def _carry_out(self, effect: Effect) -> None:
        """Never waits: what takes time becomes a task, or a frame in an outbox."""
        match effect:
            case effects.Send(to=peer, message=message):
                if not self._links.send_nowait(peer, encode_message(message)):
                    log.debug("the outbox of %s is full: %s dropped", peer, type(message).__name__)
            case effects.LearnAddresses(peer=peer, addresses=addresses):
                self.network.learn_addresses(peer, addresses)
            case effects.KeepLink(peer=peer, keep=keep):
                self._links.keep(peer, keep)
            case effects.CloseLink(peer=peer):
                self._links.close(peer)
                self._nursery.start_soon(self._guarded, self.network.disconnect, peer)
            case effects.StartRun():
                self._runs[effect.run] = trio.CancelScope()
                self._nursery.start_soon(self._run, effect)
            case effects.StopRun(run=run):
                if (scope := self._runs.get(run)) is not None:
                    scope.cancel()
            case effects.FetchBlobs():
                self._nursery.start_soon(self._fetch, effect)
            case effects.Reply(request=number, answer=answer):
                self._inbox.answer(number, answer)
            case effects.Notice(level=level, text=text, peer=peer, job=job):
                about = "".join((f" [peer {peer}]" if peer else "", f" [job {short_id(job)}]" if job else ""))
                mesh_log.log(_LEVELS[level], "%s%s", text, about)
            case _:
                raise AssertionError(f"no such effect: {effect!r}")

    # -- what goes in --------------------------------------------------------------------------------------------------

    async def _hear_links(self) -> None:
        async for happened in self._links.events:
            if (event := self.hearing.event_of(happened)) is not None:
                await self._inbox.post(event)

    async def _watch_clock(self) -> None:
        """Tell the peer the wall time each second, and at once when it no longer moves with the monotonic clock."""
        told_at, told = -math.inf, 0.0
        while True:
            now, wall = trio.current_time(), self.wall()
            if now - told_at >= CLOCK_EVERY_S or abs((wall / 1000 - told) - (now - told_at)) > CLOCK_JUMP_S:
                await self._inbox.post(events.ClockObserved(wall))
                told_at, told = now, wall / 1000
            await trio.sleep(CLOCK_LOOK_EVERY_S)

    async def _watch_disk(self) -> None:
        """Tell the peer when the disk gets nearly full, and when there is room again."""
        while True:
            await self._guarded(self._look_at_disk)
            await trio.sleep(reserve.LOOK_EVERY_S)

    async def _look_at_disk(self) -> None:
        if await trio.to_thread.run_sync(self._reserve.look):
            low = self._reserve.low
            log.warning("no new work is taken: %s", low) if low else log.info("there is room for new work again")
            await self._inbox.post(events.StorageLow(low))

    # -- tasks behind effects ------------------------------------------------------------------------------------------

    async def _run(self, order: effects.StartRun) -> None:
        """Answer a StartRun by exactly one event."""
        event: Event = self._executor.stopped(order, "stopped")
        with self._runs[order.run]:
            try:
                event = await self._executor.run(order)
                if isinstance(event, events.RunFinished):
                    await self._guarded(self._keep_output, event.output)
                    event = msgspec.structs.replace(event, content=await self._small(event.output))
            except Exception as error:
                log.exception("run %d failed", order.run)
                event = self._executor.stopped(order, f"a fault of the node itself: {error!r}")
        del self._runs[order.run]
        await self._inbox.post(event)

    async def _keep_output(self, output: Output) -> None:
        """As long as a job is kept at most: this may be the only copy, and the job over before it is asked for."""
        until_s = time.time() + DEFAULT_LIMITS.retention_ms / 1000
        await self._fetcher.hold([Link(cid=output.cid, size=output.size)], (), until_s, DEFAULT_LIMITS.copy_bytes_max)

    async def _small(self, output: Output) -> bytes:
        """The bytes of an output that travels with its receipt; none of a larger one."""
        return await self.blobs.read(output.cid, 0, output.size) if output.size <= CONTENT_BYTES_MAX else b""

    async def _fetch(self, order: effects.FetchBlobs) -> None:
        """Answer a FetchBlobs by exactly one event."""
        event: Event = events.BlobsFetched(order.fetch)
        try:
            for content in order.contents:
                await self.blobs.add_bytes(
                    content
                )  # it is worth what its CID says, which is not looked up by any other
            await self._fetcher.hold(order.blobs, order.sources, order.until_ms / 1000, DEFAULT_LIMITS.copy_bytes_max)
        except (BlobError, ValueError, OSError) as error:
            event = events.BlobsFailed(order.fetch, str(error)[:TEXT_CHARS_MAX])
        except Exception as error:
            log.exception("fetch %d failed", order.fetch)
            event = events.BlobsFailed(order.fetch, f"a fault of the node itself: {error!r}"[:TEXT_CHARS_MAX])
        await self._inbox.post(event)

    async def _guarded(self, work: Callable[..., Awaitable[object]], *args: object) -> None:
        try:
            await work(*args)
        except Exception:
            log.exception("%s failed", getattr(work, "__qualname__", work))

    async def _sweep(self) -> None:
        while True:
            pressed = retention.is_pressed(self.blobs) or self._reserve.low is not None
            unused_s = retention.UNUSED_PRESSED_S if pressed else retention.UNUSED_S
            await self._guarded(retention.sweep, self.blobs, self._home.path, self._references, unused_s)
            await trio.to_thread.run_sync(self._executor.models.sweep, retention.UNUSED_S)
            await trio.sleep(retention.SWEEP_PRESSED_EVERY_S if pressed else retention.SWEEP_EVERY_S)

    def _may_serve(self, peer: str, cid: str) -> bool:
        """A private mesh gives its blobs to its own members only."""
        return not self.config.admitted or peer in self.config.admitted


def _now() -> Instant:
    return Instant(int(trio.current_time() * NS_PER_S))


def _wall(config: Config) -> WallMs:
    return WallMs(int((time.time() + config.clock_offset_s) * 1000))


def _make_peer(config: Config, home: Home, profile: Profile, rows: Sequence[Row]) -> tuple[Peer, Recorder | None]:
    """The peer with what its journal holds, and its recorder if the operator wants one. Raises OSError."""
    signer = Ed25519Signer(home.seed)
    start = trace.Start(
        peer=signer.peer_id,
        profile=profile,
        bootstrap=tuple(config.bootstrap),
        seed=secrets.randbits(64),
        limits=DEFAULT_LIMITS,
        incarnation=1,  # of a new home; else the journal knows
        wall=_wall(config),
        now=_now(),
        rows=tuple(rows),
    )
    peer = start.make_peer(signer, RecordReader(Ed25519Verifier()), random.Random(start.seed))
    return peer, Recorder.begin(home.path, start, config.trace_bytes) if config.trace_bytes else None


def _profile(config: Config, journal: Journal, network: Network, offer: Offer) -> Profile:
    return Profile(
        mesh=config.mesh,
        store=journal.store,
        addresses=tuple(network.addresses[:ADDRESSES_MAX]),
        cpu_milli=machine.processors() * 1000,
        memory_bytes=config.memory_bytes,
        slots=config.slots,
        isolation=offer.isolation,
        labels=_labels(config),
        price=round(config.price * PRICE_UNITS),
        version=version("meshnode"),
        admitted=config.admitted,
        policy=config.policy,
    )


async def _warm_pool(config: Config, home: Home, offer: Offer, nursery: trio.Nursery) -> WarmPool | None:
    if not isinstance(offer.sandbox, Sandbox):
        return None
    return await WarmPool.start(
        offer.sandbox,
        home.runs / "warm",
        nursery,
        slots=config.slots,
        memory_bytes=config.memory_bytes,
        idle_s=config.warm_idle_s,
    )


def _labels(config: Config) -> dict[str, str]:
    """What the operator says, and the plug-ins for splits and merges, as many as there is room for."""
    plugins = [label(*plugin) for plugin in installed()][: LABELS_MAX - len(config.all_labels)]
    return {**dict(plugins), **config.all_labels}


def _image_policy(config: Config) -> ImagePolicy:
    allowed = config.policy.images
    return lambda image: None if not allowed or image.startswith(allowed) else "image denied by policy"
