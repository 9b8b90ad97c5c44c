"""A few peers in one process with a perfect network: enough to tell a story in a unit test.

The simulator has loss, latency and crashes at random; here every message arrives after one millisecond and in order,
but for what a test itself cuts, withholds, stops, kills or wipes.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
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


def _ends_run(event: events.Event, run: int) -> bool:
    return isinstance(event, events.RunFinished | events.RunFailed) and event.run == run


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
        #: Tasks as they start and end well, in order: who, which, and whether it was the end.
        self.work: list[tuple[PeerId, Task, bool]] = []
        self.held_runs: set[PeerId] = set()
        #: Peers that start no task they were given, and do not say so.
        self.idlers: set[PeerId] = set()
        self.shards = SHARDS
        self.fail_task: dict[Task, str] = {}
        self.dead: set[PeerId] = set()
        self.journals: dict[PeerId, Journal] = {}
        self.withhold_copies = False
        #: What makes the outputs of one run differ from those of another one of the same task.
        self.salt_of: Callable[[int], bytes] = lambda run: b""
        #: What a task takes; a shard on some peers so many times that.
        self.run_ms = 10
        self.slowness: dict[PeerId, int] = {}
        #: One-way cuts: what the first sends to the second vanishes, and neither is told.
        self.cuts: set[tuple[PeerId, PeerId]] = set()
        #: Messages for which this is true are kept in ``late`` instead of being delivered.
        self.withheld: Callable[[PeerId, PeerId, Message], bool] = lambda sender, to, message: False
        self.late: list[tuple[PeerId, PeerId, Message]] = []
        #: Peers that stand still, as under SIGSTOP, and what waits for them.
        self._stopped: dict[PeerId, list[events.Event]] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self.reader = RecordReader(Ed25519Verifier())
        self._agenda: list[tuple[int, int, PeerId, events.Event]] = []
        self._sequence = 0
        self._requests = 0
        for name in names:
            self.add(name, **profiles.get(name, {}))

    # -- peers

    def add(self, name: str, *, clock_ahead_ms: int = 0, incarnation: int = 1, **profile: Any) -> Peer:
        key = signer(name)
        self._settings[name] = {"clock_ahead_ms": clock_ahead_ms} | profile
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
        self._agenda = [entry for entry in self._agenda if entry[2] != gone]  # its runs die with it
        heapq.heapify(self._agenda)
        for peer in self.peers:
            self._later(1, peer, events.PeerLost(gone, "connection reset"))

    def restart(self, name: str) -> None:
        """Killed, and at once up again with what its journal holds."""
        if self.ids[name] in self.peers:
            self.kill(name)
        self.add(name, **self._settings[name])

    def restart_all(self) -> None:
        """A power cut: nobody hears of the end of anybody."""
        names = [name for name, peer in self.ids.items() if peer in self.peers]
        self.peers.clear()
        self._agenda.clear()
        for name in names:
            self.add(name, **self._settings[name])

    def wipe(self, name: str) -> None:
        """Its disk is gone; it is up again with the same key, an empty journal, and so with another store id."""
        if self.ids[name] in self.peers:
            self.kill(name)
        self.journals[self.ids[name]].clear()
        store = self._settings[name].get("store", name.encode())
        self.add(name, **(self._settings[name] | {"store": hashlib.sha256(b"new" + store).digest()[:16]}))

    def stop(self, name: str) -> None:
        """It stands still; nobody is told, and what is sent to it waits."""
        self._stopped[self.ids[name]] = []

    def resume(self, name: str) -> None:
        for event in self._stopped.pop(self.ids[name]):
            self._later(1, self.ids[name], event)

    def cut(self, *pairs: tuple[str, str]) -> None:
        """What the first of each pair sends to the second is lost."""
        self.cuts.update((self.ids[sender], self.ids[to]) for sender, to in pairs)

    def isolate(self, name: str) -> None:
        """Nothing gets to it, nothing from it."""
        others = [other for other in self.ids if other != name]
        self.cut(*[(name, other) for other in others], *[(other, name) for other in others])

    def heal(self) -> None:
        self.cuts.clear()

    def deliver_late(self) -> None:
        """What was withheld arrives after all."""
        late, self.late = self.late, []
        self.withheld = lambda sender, to, message: False
        for sender, to, message in late:
            self._later(1, to, events.MessageReceived(sender, message))

    def name_of(self, peer: PeerId) -> str:
        return next(name for name, one in self.ids.items() if one == peer)

    @property
    def wall(self) -> WallMs:
        return WallMs(START_WALL + self.now // NS_PER_MS)

    # -- time

    def run_for(self, seconds: float) -> None:
        end = self.now + int(seconds * NS_PER_S)
        while True:
            due = [peer.next_wakeup() for peer_id, peer in self.peers.items() if peer_id not in self._stopped]
            wakeups = [when for when in due if when is not None]
            at = min([*wakeups, *(entry[0] for entry in self._agenda[:1])], default=None)
            if at is None or at > end:
                break
            self.now = Instant(max(at, self.now))
            if self._agenda and self._agenda[0][0] <= self.now:
                _, _, peer_id, event = heapq.heappop(self._agenda)
                if peer_id in self._stopped:
                    self._stopped[peer_id].append(event)
                elif peer_id in self.peers:
                    self.give(peer_id, event)
            else:
                for peer_id, peer in [item for item in self.peers.items() if item[0] not in self._stopped]:
                    when = peer.next_wakeup()
                    if when is not None and when <= self.now:
                        self.give(peer_id, events.WakeupReached())
        self.now = Instant(end)

    def give(self, peer_id: PeerId, event: events.Event) -> None:
        if isinstance(event, events.RunFinished):
            self.work += [(peer_id, run.task, True) for who, run in self.runs if (who, run.run) == (peer_id, event.run)]
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
                if (me, to) in self.cuts:
                    pass
                elif self.withheld(me, to, message):
                    self.late.append((me, to, message))
                elif to in self.peers:
                    wired = decode_message(encode_message(message))
                    assert wired == message
                    self._later(1, to, events.MessageReceived(me, wired))
                else:
                    self._later(1, me, events.PeerLost(to, "connection refused"))
            case effects.StartRun():
                self.runs.append((me, effect))
                self.work.append((me, effect.task, False))
                if me not in self.held_runs:
                    self.finish(me, effect, self.salt_of(len(self.runs)))
            case effects.StopRun(run):
                self._agenda = [entry for entry in self._agenda if entry[2] != me or not _ends_run(entry[3], run)]
                heapq.heapify(self._agenda)
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
        slowness = self.slowness.get(me, 1) if run.task.role is Role.SHARD else 1
        takes_ms = self.run_ms * slowness
        finished = events.RunFinished(
            run=run.run,
            output=output_of(run.task, salt),
            input_hash=b"i" * 32,
            shards=self.shards if run.task.role is Role.SPLIT else 0,
            image="",
            runtime="sandbox/namespace",
            pull_ms=0,
            transfer_ms=1,
            run_ms=takes_ms,
            started_at=self.wall,
        )
        self._later(takes_ms, me, finished)

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

    def spec(
        self,
        name: str,
        *,
        alias: str = "",
        needs: Needs = ANY_NEEDS,
        holders: tuple[str, ...] = (),
        durability: int = 1,
        fields: dict[str, Any] | None = None,
        **stage: Any,
    ) -> Opened[JobSpec]:
        """A signed job with ``name`` as its steward, and the named holders; without names as it proposes."""
        submitter = signer("submitter")
        proposal = self.ask(name, lambda number: events.ProposalAsked(number, durability))
        defaults: dict[str, Any] = {"split": "tile", "merge": "concat-json", "shard_count": SHARDS}
        link = Link(cid="cid-input", size=10)
        named = tuple(Holder(peer=self.ids[one], store=self.store_of(one)) for one in holders)
        self._requests += 1
        values: dict[str, Any] = {
            "mesh": "test",
            "submitter": submitter.peer_id,
            "alias": alias,
            "nonce": hashlib.sha256(f"{name}{alias}{self._requests}".encode()).digest()[:16],
            "issued_at": self.wall,
            "not_after": self.wall + 3_600_000,
            "deadline_ms": 600_000,
            "durability": durability,
            "holders": named or proposal.holders,
            "steward": proposal.steward,
            "input": link,
            "blobs": (link, Link(cid="cid-model", size=20)),
            "stages": (
                StageSpec(
                    name="features",
                    model="features-v1",
                    manifest=Link(cid="cid-model", size=20),
                    needs=needs,
                    **(defaults | stage),
                ),
            ),
        }
        return sign(JobSpec(**(values | (fields or {}))), submitter)

    def store_of(self, name: str) -> bytes:
        return self.peers[self.ids[name]].snapshot().capability.store

    def submit(self, name: str, spec: Opened[JobSpec], seconds: float = 3) -> Any:
        me = self.ids[name]
        return self.ask(name, lambda number: events.JobSubmitted(number, spec.signed, (me,)), seconds)

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
