"""The control plane: small frames between neighbours, in order, over long-lived streams.

Each side of a link writes on a stream it opened and reads on the one the other opened. `send_nowait` puts a frame
in the outbox of one remote; a task per remote dials, coalesces frames and writes. Everything that happens comes out
of one channel, `Links.events`.

    async with Links.run(network, "/example/control/1", rng=random.Random()) as links:
        links.send_nowait(peer, b"...")
        async for event in links.events:
            ...

What one remote does, or fails to do, costs that remote only. Its outbox is bounded (`send_nowait` says no). When
`events` is full, or the remote sends faster than its rate, its reader waits, its window empties and it must wait
too. Delivery is at most once: frames that were being written when a link broke are reported as dropped, not sent
again.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from meshnode.net.errors import BadAddress, FramingError, NetworkError, NoAddress, StreamLost
from meshnode.net.events import FrameReceived, GarbageReceived, LinkDown, LinkEvent, LinkUp, SendDropped
from meshnode.net.framing import FrameDecoder, encode_frame
from meshnode.net.network import Network
from meshnode.net.rate import TokenBucket
from meshnode.net.streams import WRITE_CHUNK, Stream

log = logging.getLogger(__name__)

_HURRIED_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Bounds of the control plane. Sizes in bytes, times in seconds, rates per second and remote."""

    max_frame: int = 256 * 1024
    max_remotes: int = 4096
    outbox_frames: int = 4096
    outbox_bytes: int = 4 * 1024 * 1024
    events: int = 1024
    inbound_frames_per_s: float = 10_000
    inbound_bytes_per_s: float = 16 * 1024 * 1024
    dial_attempts: int = 4
    dial_timeout_s: float = 10.0
    backoff_s: float = 0.2
    """Before the second attempt; doubled before each further one."""
    max_backoff_s: float = 5.0
    idle_s: float = 120.0

    def __post_init__(self) -> None:
        if self.outbox_bytes < self.max_frame + 4:
            raise ValueError("outbox_bytes must hold at least one frame of max_frame bytes")


class _Remote:
    """What is held for one remote peer."""

    def __init__(self, peer: str, limits: LinkLimits) -> None:
        now = trio.current_time()
        self.peer = peer
        self.outbox: deque[bytes] = deque()
        self.outbox_bytes = 0
        self.wake = trio.Event()
        """Set when the writer has something to look at: a frame, a change of `kept`, a wish to close."""
        self.writing = False
        self.closing = False
        self.kept = False
        self.streams = 0
        self.reader: _Reader | None = None
        self.frames_allowed = TokenBucket(limits.inbound_frames_per_s, limits.inbound_frames_per_s, now=now)
        self.bytes_allowed = TokenBucket(limits.inbound_bytes_per_s, limits.inbound_bytes_per_s, now=now)

    @property
    def is_needless(self) -> bool:
        return not (self.outbox or self.writing or self.kept or self.streams or self.reader)

    def take_batch(self) -> list[bytes]:
        """The next frames to write at once: at least one, and as many as fit a single chunk."""
        batch = [self.outbox.popleft()]
        size = len(batch[0])
        while self.outbox and size + len(self.outbox[0]) <= WRITE_CHUNK:
            batch.append(self.outbox.popleft())
            size += len(batch[-1])
        self.outbox_bytes -= size
        return batch

    def take_all(self) -> int:
        count = len(self.outbox)
        self.outbox.clear()
        self.outbox_bytes = 0
        return count


class _Reader:
    """The reading of one inbound stream, which a newer stream of the same remote may hurry to its end."""

    def __init__(self) -> None:
        self.all = trio.CancelScope()
        self.done = trio.Event()
        self._waiting = trio.CancelScope()
        self._hurried = False

    def hurry(self) -> None:
        """Read what is there, and then end. A remote opens a second stream when it believes the first one gone; what
        it had written on the first still comes before."""
        self._hurried = True
        self._waiting.deadline = trio.current_time() + _HURRIED_WAIT_S

    async def read(self, stream: Stream) -> bytes | None:
        """As `stream.read_some`, or None when hurried and nothing came."""
        with trio.CancelScope() as self._waiting:
            if self._hurried:
                self._waiting.deadline = trio.current_time() + _HURRIED_WAIT_S
            return await stream.read_some()
        return None


class Links:
    """The control links of one node. Made by `Links.run`."""

    def __init__(
        self, network: Network, protocol: str, nursery: trio.Nursery, rng: random.Random, limits: LinkLimits
    ) -> None:
        self._network = network
        self._protocol = protocol
        self._nursery = nursery
        self._rng = rng
        self._limits = limits
        self._remotes: dict[str, _Remote] = {}
        self._readers: set[_Reader] = set()
        self._emit, self.events = trio.open_memory_channel[LinkEvent](limits.events)
        """`events`: everything that happens, in order for each remote."""
        # Two, because a remote that comes back may be here before the loss of its old stream is noticed.
        network.handle(protocol, self._receive, max_streams_per_peer=2)

    @classmethod
    @asynccontextmanager
    async def run(
        cls, network: Network, protocol: str, *, rng: random.Random, limits: LinkLimits | None = None
    ) -> AsyncIterator[Links]:
        """Serve `protocol` on `network` until the block is left. `rng` jitters the pauses between dials."""
        async with trio.open_nursery() as nursery:
            links = cls(network, protocol, nursery, rng, limits or LinkLimits())
            try:
                yield links
            finally:
                network.stop_handling(protocol)
                for reader in links._readers:
                    reader.all.cancel()
                links._emit.close()
                nursery.cancel_scope.cancel()

    def send_nowait(self, peer: str, frame: bytes) -> bool:
        """Queue `frame` for `peer`, dialling if there is no link. False if the outbox is full.

        Frames to one peer arrive in the order they were queued. Raises ValueError for a frame over `max_frame`.
        """
        if len(frame) > self._limits.max_frame:
            raise ValueError(f"a frame of {len(frame)} bytes is over the limit of {self._limits.max_frame}")
        encoded = encode_frame(frame)
        remote = self._remote(peer)
        if (
            remote is None
            or len(remote.outbox) >= self._limits.outbox_frames
            or remote.outbox_bytes + len(encoded) > self._limits.outbox_bytes
        ):
            return False
        remote.outbox.append(encoded)
        remote.outbox_bytes += len(encoded)
        remote.closing = False
        remote.wake.set()
        if not remote.writing:
            remote.writing = True
            self._nursery.start_soon(self._write, remote)
        return True

    def close(self, peer: str) -> None:
        """Close our side of the link once what is queued has been written. Nothing happens if there is none."""
        if (remote := self._remotes.get(peer)) is not None:
            remote.closing = True
            remote.wake.set()

    def keep(self, peer: str, keep: bool) -> None:
        """Whether our side of the link with `peer` stays open when nothing is sent on it. Opens nothing."""
        if (remote := self._remote(peer)) is not None:
            remote.kept = keep
            remote.wake.set()
            self._forget_if_needless(remote)

    # One writer per remote: it lives while there is something to send or our stream is open.

    async def _write(self, remote: _Remote) -> None:
        try:
            while remote.outbox:
                try:
                    stream = await self._dial(remote.peer)
                except NetworkError as error:
                    await self._emit.send(SendDropped(remote.peer, remote.take_all(), str(error)))
                    continue
                await self._write_on(stream, remote)
                if remote.outbox:  # the link broke: no remote shall make us dial in a tight loop
                    await self._pause(attempt=1)
        except Exception:
            log.exception("the writer to %s failed", remote.peer)
            remote.take_all()
        finally:
            remote.writing = False
            self._forget_if_needless(remote)

    async def _dial(self, peer: str) -> Stream:
        for attempt in range(1, self._limits.dial_attempts):
            try:
                return await self._network.open_stream(peer, self._protocol, self._limits.dial_timeout_s)
            except (NoAddress, BadAddress):
                raise
            except NetworkError as error:
                log.debug("attempt %d to reach %s: %s", attempt, peer, error)
            await self._pause(attempt)
        return await self._network.open_stream(peer, self._protocol, self._limits.dial_timeout_s)

    async def _pause(self, attempt: int) -> None:
        pause = min(self._limits.max_backoff_s, self._limits.backoff_s * 2 ** (attempt - 1))
        await trio.sleep(pause * self._rng.uniform(0.5, 1.5))

    async def _write_on(self, stream: Stream, remote: _Remote) -> None:
        """Write on one stream until it breaks, is idle, or is to be closed."""
        reason = "idle"
        in_flight: list[bytes] = []
        try:
            async with stream, trio.open_nursery() as nursery:
                await self._up(remote)
                nursery.start_soon(self._notice_end, stream)
                while await self._work_to_do(remote):
                    in_flight = remote.take_batch()
                    await stream.write(b"".join(in_flight))
                    in_flight = []
                if remote.closing:
                    reason = "closed by us"
                nursery.cancel_scope.cancel()
        except* NetworkError as group:
            reason = _first_message(group)
        if in_flight:
            await self._emit.send(SendDropped(remote.peer, len(in_flight), f"the link broke: {reason}"))
        await self._down(remote, reason)

    async def _work_to_do(self, remote: _Remote) -> bool:
        """Wait for a frame to write. False when the stream shall be closed instead."""
        while not remote.outbox:
            if remote.closing:
                return False
            remote.wake = trio.Event()
            with trio.move_on_after(math.inf if remote.kept else self._limits.idle_s) as waiting:
                await remote.wake.wait()
            if waiting.cancelled_caught and not remote.outbox:
                return False
        return True

    async def _notice_end(self, stream: Stream) -> None:
        """The remote says nothing on a stream of ours, so whatever comes is the end: a crash shows at once."""
        if await stream.read_some():
            raise StreamLost("the remote wrote on a one-way stream")
        raise StreamLost("closed by the remote")

    # One reader per inbound stream, in the task that the network gave us for it.

    async def _receive(self, stream: Stream) -> None:
        remote = self._remote(stream.peer)
        if remote is None:
            await stream.reset()
            return
        older, remote.reader = remote.reader, (reader := _Reader())
        self._readers.add(reader)
        with reader.all as scope:
            try:
                if older is not None:
                    older.hurry()
                    await older.done.wait()
                await self._up(remote)
                reason = "lost"
                try:
                    reason = await self._read_on(stream, remote, reader)
                except FramingError as error:
                    reason = str(error)
                    await stream.reset()
                    await self._emit.send(GarbageReceived(remote.peer, reason))
                    self.close(remote.peer)
                except NetworkError as error:
                    reason = str(error)
                await self._down(remote, reason)
            finally:
                reader.done.set()
                self._readers.discard(reader)
                if remote.reader is reader:
                    remote.reader = None
                self._forget_if_needless(remote)
        if scope.cancelled_caught:
            await stream.reset()

    async def _read_on(self, stream: Stream, remote: _Remote, reader: _Reader) -> str:
        """Read frames until the stream ends, and say why it did."""
        decoder = FrameDecoder(self._limits.max_frame)
        while True:
            data = await reader.read(stream)
            if data is None:
                return "replaced by a newer stream"
            if not data:
                return "closed by the remote" if not decoder.pending else "closed inside a frame"
            for frame in decoder.feed(data):
                now = trio.current_time()
                pause = max(remote.frames_allowed.spend(1, now=now), remote.bytes_allowed.spend(len(frame), now=now))
                if pause:
                    await trio.sleep(pause)
                await self._emit.send(FrameReceived(remote.peer, frame))

    # What is held for remotes.

    async def _up(self, remote: _Remote) -> None:
        remote.streams += 1
        if remote.streams == 1:
            await self._emit.send(LinkUp(remote.peer))

    async def _down(self, remote: _Remote, reason: str) -> None:
        remote.streams -= 1
        if remote.streams == 0:
            await self._emit.send(LinkDown(remote.peer, reason))

    def _remote(self, peer: str) -> _Remote | None:
        """The remote named `peer`, made if there is room for it."""
        remote = self._remotes.get(peer)
        if remote is None and len(self._remotes) < self._limits.max_remotes:
            remote = self._remotes[peer] = _Remote(peer, self._limits)
        return remote

    def _forget_if_needless(self, remote: _Remote) -> None:
        if remote.is_needless:
            self._remotes.pop(remote.peer, None)


def _first_message(group: BaseExceptionGroup[NetworkError]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
