"""A few peers in one process with a perfect network: enough to tell a story in a unit test.

The simulator has loss, latency and crashes; here every message arrives after one millisecond and in order.
"""

from __future__ import annotations

import hashlib
import heapq
from random import Random
from typing import Any

from protocol import effects, events
from protocol.clock import NS_PER_MS, NS_PER_S, Instant, WallMs
from protocol.identity import Ed25519Signer, Ed25519Verifier, PeerId
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import Message, Progress, decode_message, encode_message
from protocol.peer import Peer
from protocol.profile import Profile
from protocol.records import Cancel, JobSpec, StageSpec
from protocol.signing import Opened, RecordReader, Signed, sign
from protocol.wire import Holder, Link, Needs, Output, Role, Task
from tests.protocol.journal import Journal, keep

START_WALL = WallMs(1_800_000_000_000)
SHARDS = 4
ANY_NEEDS = Needs()


def signer(name: str) -> Ed25519Signer:
    """A key that depends on nothing but its name."""
    return Ed25519Signer(hashlib.sha256(name.encode()).digest())


def holders_of(spec: Opened[JobSpec]) -> tuple[PeerId, ...]:
    return tuple(holder.peer for holder in spec.record.holders)


def output_of(task: Task, salt: bytes = b"") -> Output:
    digest = hashlib.sha256(f"{task.role}/{task.index}".encode() + salt).digest()
    return Output(cid=f"cid-{task.role}-{task.index}-{salt.hex()}", size=100, sha256=digest)


class Mesh:
    """Peers by name; time moves with ``run_for``."""

    def __init__(self, *names: str, limits: Limits = DEFAULT_LIMITS, **profiles: dict[str, Any]) -> None:
        self.now = Instant(NS_PER_S)
        self.limits = limits
        self.peers: dict[PeerId, Peer] = {}
        self.ids: dict[str, PeerId] = {}
        self.clock_ahead_ms: dict[PeerId, int] = {}
        self.replies: dict[int, Any] = {}
        self.notices: list[tuple[PeerId, str]] = []
        self.sent: list[tuple[PeerId, PeerId, Message]] = []
        self.runs: list[tuple[PeerId, effects.StartRun]] = []
        self.held_runs: set[PeerId] = set()
        #: Peers that start no task they were given, and do not say so.
        self.idlers: set[PeerId] = set()
        self.shards = SHARDS
        self.fail_task: dict[Task, str] = {}
        self.dead: set[PeerId] = set()
        self.journals: dict[PeerId, Journal] = {}
        self.withhold_copies = False
        self.reader = RecordReader(Ed25519Verifier())
        self._agenda: list[tuple[int, int, PeerId, events.Event]] = []
        self._sequence = 0
        self._requests = 0
        for name in names:
            self.add(name, **profiles.get(name, {}))

    # -- peers

    def add(self, name: str, *, clock_ahead_ms: int = 0, incarnation: int = 1, **profile: Any) -> Peer:
        key = signer(name)
        self.ids[name] = key.peer_id
        self.clock_ahead_ms[key.peer_id] = clock_ahead_ms
        self.dead.discard(key.peer_id)
        settings: dict[str, Any] = {"mesh": "test", "store": hashlib.sha256(name.encode()).digest()[:16]}
        settings |= {"addresses": (f"/ip4/127.0.0.1/tcp/1/p2p/{key.peer_id}",)}
        peer = Peer(
            signer=key,
            reader=RecordReader(Ed25519Verifier()),
            profile=Profile(**(settings | profile)),
            bootstrap=tuple(self.peers)[:2],
            rng=Random(name),
            limits=self.limits,
            incarnation=incarnation,
            wall=WallMs(self.wall + clock_ahead_ms),
            now=self.now,
        )
        self.peers[key.peer_id] = peer
        journal = self.journals.setdefault(key.peer_id, {})
        if journal:
            peer.restore((table, row, journal[table, row]) for table, row in sorted(journal))
        self.give(key.peer_id, events.Started())
        return peer

    def kill(self, name: str) -> None:
        """As kill -9 does: the others see their connections break."""
        gone = self.ids[name]
        self.dead.add(gone)
        del self.peers[gone]
        for peer in self.peers:
            self._later(1, peer, events.PeerLost(gone, "connection reset"))

    def restart(self, name: str) -> None:
        """Killed, and at once up again with what its journal holds."""
        if self.ids[name] in self.peers:
            self.kill(name)
        self.add(name)

    @property
    def wall(self) -> WallMs:
        return WallMs(START_WALL + self.now // NS_PER_MS)

    # -- time

    def run_for(self, seconds: float) -> None:
        end = self.now + int(seconds * NS_PER_S)
        while True:
            due = [peer.next_wakeup() for peer in self.peers.values()]
            wakeups = [when for when in due if when is not None]
            at = min([*wakeups, *(entry[0] for entry in self._agenda[:1])], default=None)
            if at is None or at > end:
                break
            self.now = Instant(max(at, self.now))
            if self._agenda and self._agenda[0][0] <= self.now:
                _, _, peer_id, event = heapq.heappop(self._agenda)
                if peer_id in self.peers:
                    self.give(peer_id, event)
            else:
                for peer_id, peer in list(self.peers.items()):
                    when = peer.next_wakeup()
                    if when is not None and when <= self.now:
                        self.give(peer_id, events.WakeupReached())
        self.now = Instant(end)

    def give(self, peer_id: PeerId, event: events.Event) -> None:
        for effect in self.peers[peer_id].handle(event, now=self.now):
            self._carry_out(peer_id, effect)

    def _later(self, milliseconds: int, peer: PeerId, event: events.Event) -> None:
        self._sequence += 1
        heapq.heappush(self._agenda, (self.now + milliseconds * NS_PER_MS, self._sequence, peer, event))

    # -- effects

    def _carry_out(self, me: PeerId, effect: effects.Effect) -> None:
        match effect:
            case effects.Send(to, Progress() as message) if me in self.idlers:
                idle = Progress(award=message.award, running=(), left=message.left)
                self._later(1, to, events.MessageReceived(me, idle))
            case effects.StartRun() if me in self.idlers:
                pass
            case effects.Send(to, message):
                self.sent.append((me, to, message))
                if to in self.peers:
                    wired = decode_message(encode_message(message))
                    assert wired == message
                    self._later(1, to, events.MessageReceived(me, wired))
                else:
                    self._later(1, me, events.PeerLost(to, "connection refused"))
            case effects.StartRun():
                self.runs.append((me, effect))
                if me not in self.held_runs:
                    self.finish(me, effect)
            case effects.StopRun(run):
                self._later(1, me, self._failed(run, "stopped", counts=False))
            case effects.FetchBlobs(fetch, _, sources, _, True) if self.withhold_copies:
                self._later(15_000, me, events.BlobsFailed(fetch, f"none of {len(sources)} has it"))
            case effects.FetchBlobs(fetch, _, sources):
                alive = any(source in self.peers for source in sources)
                self._later(2, me, events.BlobsFetched(fetch) if alive else events.BlobsFailed(fetch, "nobody has it"))
            case effects.Record():
                keep(self.journals[me], effect)
            case effects.Reply(request, answer):
                self.replies[request] = answer
            case effects.Notice(_, text):
                self.notices.append((me, text))

    def finish(self, me: PeerId, run: effects.StartRun, salt: bytes = b"") -> None:
        """The run ends well, or as ``fail_task`` says."""
        reason = self.fail_task.get(run.task)
        if reason is not None:
            self._later(10, me, self._failed(run.run, reason, counts=True))
            return
        finished = events.RunFinished(
            run=run.run,
            output=output_of(run.task, salt),
            input_hash=b"i" * 32,
            shards=self.shards if run.task.role is Role.SPLIT else 0,
            image="",
            runtime="sandbox/namespace",
            pull_ms=0,
            transfer_ms=1,
            run_ms=10,
            started_at=self.wall,
        )
        self._later(10, me, finished)

    def _failed(self, run: int, reason: str, *, counts: bool) -> events.RunFailed:
        return events.RunFailed(run, reason, counts, b"i" * 32, "", "sandbox/namespace", 0, 0, 5, self.wall)

    # -- a client

    def ask(self, name: str, make: Any, seconds: float = 3) -> Any:
        """Send an event that ``make`` builds from a request number, and wait for its reply."""
        self._requests += 1
        number = self._requests
        self.give(self.ids[name], make(number))
        for _ in range(int(seconds * 100)):
            if number in self.replies:
                return self.replies.pop(number)
            self.run_for(0.01)
        raise AssertionError("no reply in time")

    def spec(self, name: str, *, alias: str = "", needs: Needs = ANY_NEEDS, **stage: Any) -> Opened[JobSpec]:
        """A signed job with ``name`` as its steward."""
        submitter = signer("submitter")
        proposal = self.ask(name, lambda number: events.ProposalAsked(number, 1))
        defaults: dict[str, Any] = {"split": "tile", "merge": "concat-json", "shard_count": SHARDS}
        link = Link(cid="cid-input", size=10)
        holders: tuple[Holder, ...] = proposal.holders
        self._requests += 1
        record = JobSpec(
            mesh="test",
            submitter=submitter.peer_id,
            alias=alias,
            nonce=hashlib.sha256(f"{name}{alias}{self._requests}".encode()).digest()[:16],
            issued_at=self.wall,
            not_after=self.wall + 3_600_000,
            deadline_ms=600_000,
            holders=holders,
            steward=proposal.steward,
            input=link,
            blobs=(link, Link(cid="cid-model", size=20)),
            stages=(
                StageSpec(
                    name="features",
                    model="features-v1",
                    manifest=Link(cid="cid-model", size=20),
                    needs=needs,
                    **(defaults | stage),
                ),
            ),
        )
        return sign(record, submitter)

    def submit(self, name: str, spec: Opened[JobSpec]) -> Any:
        me = self.ids[name]
        return self.ask(name, lambda number: events.JobSubmitted(number, spec.signed, (me,)))

    def cancel(self, name: str, spec: Opened[JobSpec], submitter: str) -> Any:
        key = signer(submitter)
        cancel = sign(Cancel(job=spec.digest, submitter=key.peer_id, issued_at=self.wall), key)
        steward, holders = spec.record.steward, holders_of(spec)
        return self.ask(name, lambda number: events.CancelAsked(number, cancel.signed, steward, holders), seconds=20)

    def status(self, name: str, spec: Opened[JobSpec], start: int | None = None) -> Any:
        """The job's status as asked through ``name``."""
        steward, holders = spec.record.steward, holders_of(spec)
        return self.ask(
            name, lambda number: events.StatusAsked(number, spec.digest, steward, start, holders), seconds=20
        )

    def find(self, name: str, what: str, text: str) -> tuple[Signed, ...]:
        answer = self.ask(name, lambda number: events.PointersAsked(number, what, text))
        found: tuple[Signed, ...] = answer.pointers
        return found
