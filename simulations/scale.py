"""Does the cost of a mesh stay the same for each of its peers, however many there are?

For each size one world of ``scenarios/scale.py`` is run and measured in a window, when all peers have joined and jobs
have come for a while. Then, in the same world, some jobs come that few machines can run. A job counts as done if it is
a success within its deadline, counted from when its client first wanted it.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Sequence
from statistics import fmean, median, quantiles

import msgspec

from protocol.clock import NS_PER_S
from protocol.limits import DEFAULT_LIMITS
from protocol.wire import Needs
from simulations.auctions import Auction
from simulations.errors import Violation
from simulations.machines import RARE_MEMORY_BYTES
from simulations.scenarios import scale
from simulations.workload import COMMON_NEEDS, Client
from simulations.world import World

FLAT = 0.2
"""How far the messages of a peer may be from the mean of all sizes."""
BIDS = (4, 64)
DONE = 0.999
_LEAD_S = 10.0
"""Jobs come for so long before the window begins."""
_RARE_EVERY_S = 5.0
_POLL_NS = NS_PER_S
_RARE_NEEDS = Needs(cpu_milli=1000, memory_bytes=RARE_MEMORY_BYTES // 2)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is run at each size."""

    seed: int = 1
    seconds: float = 60.0
    """The window lasts at least so long,"""
    jobs: int = 200
    """and until so many jobs may be expected in it."""
    loss: float = 0.1
    """Share of control messages that are dropped."""
    rare: float = 0.001
    """Share of machines, at least one, on which rare jobs can run; 0 for no such jobs."""
    rare_jobs: int = 8


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What many values are like."""

    mean: float
    least: float
    median: float
    p99: float
    most: float


class Rare(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that few machines can run. What finding one cost: announcements on all of their hops, bids, refusals."""

    machines: int
    jobs: int
    done: int
    awarded: int
    rounds: Spread
    announcements: Spread
    messages: Spread
    award_s: Spread
    """From the client's wish to the first award."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One mesh. Times in seconds, simulated unless named real."""

    peers: int
    window_s: float
    jobs: int
    done: int
    messages_per_peer_s: float
    """Control messages that peers sent in the window: all there are, blobs travel otherwise."""
    by_kind: dict[str, float]
    """The same, of each kind, the most frequent first."""
    bids: Spread
    """Per auction, which is all that a job's stewards do to find workers."""
    bids_outside: int
    """Auctions with fewer or more bids than there should be."""
    rounds: Spread
    announcements: Spread
    award_s: Spread
    job_s: Spread
    lookups: int
    """A client that waits looks its job up from a random peer every three seconds."""
    lookups_found: int
    mesh_size: Spread
    """What its peers take it to be."""
    rare: Rare | None
    problem: str
    """The rule that was broken; "" if none was."""
    events: int
    simulated_s: float
    real_s: float
    memory_mib: float
    """The most that the process has used so far."""
    trace_hash: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Which bounds hold, over all sizes."""

    plan: Plan
    sizes: list[int]
    messages_mean: float
    messages_off: float
    """Of all sizes the largest distance from that mean, relative to it."""
    flat: bool
    bids: bool
    jobs: int
    done: int
    completed: bool
    rare: bool
    holds: bool


def measure(peers: int, plan: Plan) -> Size:
    """Run one mesh. Raises nothing for what its peers do wrong: that is in ``problem``."""
    window_s = max(plan.seconds, plan.jobs * 60.0 * scale.PEERS_PER_JOB_A_MINUTE / peers)
    rare_machines = max(1, round(plan.rare * peers)) if plan.rare else 0
    world = World(scale.options(plan.seed, peers, 0, loss=plan.loss, rare_machines=rare_machines))
    began = time.perf_counter()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return _Measurement(world, plan, window_s, began).size()
    finally:
        gc.enable()
        gc.unfreeze()


class _Measurement:
    """One world on its way from its first peer to its last job."""

    def __init__(self, world: World, plan: Plan, window_s: float, began: float) -> None:
        self._world = world
        self._plan = plan
        self._window_s = window_s
        self._began = began
        self._common: list[Client] = []
        self._rare: list[Client] = []
        self._sent: dict[str, int] = {}
        self._mesh_sizes: list[float] = []
        self._problem = ""

    def size(self) -> Size:
        world, options = self._world, self._world.options
        try:
            self._run()
        except Violation as violation:
            self._problem = f"{violation} (at {world.agenda.now / NS_PER_S:.3f} s)"
        per_peer = 1 / (options.peers * self._window_s)
        kinds = sorted(self._sent.items(), key=lambda item: (-item[1], item[0]))
        auctions = self._auctions(self._common)
        bids = [float(auction.bids) for _, auction in auctions]
        return Size(
            peers=options.peers,
            window_s=self._window_s,
            jobs=len(self._common),
            done=sum(map(self._is_done, self._common)),
            messages_per_peer_s=sum(self._sent.values()) * per_peer,
            by_kind={kind: round(count * per_peer, 5) for kind, count in kinds if count},
            bids=_spread(bids),
            bids_outside=sum(not BIDS[0] <= count <= BIDS[1] for count in bids),
            rounds=_spread([len(auction.rounds) for _, auction in auctions]),
            announcements=_spread([auction.announces for _, auction in auctions]),
            award_s=_spread(self._award_s(auctions)),
            job_s=_spread([taken for client in self._common if (taken := _taken_s(client)) is not None]),
            lookups=world.workload.lookups,
            lookups_found=world.workload.lookups_found,
            mesh_size=_spread(self._mesh_sizes),
            rare=self._rare_cost() if self._plan.rare else None,
            problem=self._problem,
            events=world.trace.events,
            simulated_s=world.agenda.now / NS_PER_S,
            real_s=time.perf_counter() - self._began,
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            trace_hash=world.trace.hash,
        )

    def _run(self) -> None:
        world, options, agenda = self._world, self._world.options, self._world.agenda
        for index in range(options.peers):
            machine = world.machines.add()
            starts_at = 0 if index == 0 else int(machine.rng.uniform(0.0, options.join_s) * NS_PER_S)
            agenda.at(starts_at, world.machines.start, machine)
        begins = options.first_job_s + _LEAD_S
        ends = begins + self._window_s
        at = options.first_job_s
        while at < ends:
            self._common.append(self._client(at, COMMON_NEEDS))
            at += world.rng.expovariate(1.0 / options.jobs_every_s)
        agenda.run_until(int(begins * NS_PER_S))
        before = dict(world.network.sent)
        agenda.run_until(int(ends * NS_PER_S))
        self._sent = {kind.__name__: count - before.get(kind, 0) for kind, count in world.network.sent.items()}
        self._mesh_sizes = [float(one.peer.snapshot().mesh_size) for one in world.machines.alive if one.peer is not None]
        if self._plan.rare:
            for number in range(self._plan.rare_jobs):
                self._rare.append(self._client(ends + number * _RARE_EVERY_S, _RARE_NEEDS))
            agenda.run_until(int((ends + self._plan.rare_jobs * _RARE_EVERY_S) * NS_PER_S))
        patience = agenda.now + int(options.deadline_s * NS_PER_S)
        while agenda.now < patience and not all(map(self._is_done, [*self._common, *self._rare])):
            agenda.run_until(agenda.now + _POLL_NS)

    def _client(self, at: float, needs: Needs) -> Client:
        workload = self._world.workload
        client = Client(self._world, workload, len(workload.clients), needs)
        workload.clients.append(client)
        self._world.agenda.at(int(at * NS_PER_S), client.submit)
        return client

    def _is_done(self, client: Client) -> bool:
        taken = _taken_s(client)
        return taken is not None and taken <= self._world.options.deadline_s

    def _auctions(self, clients: list[Client]) -> list[tuple[Client, Auction]]:
        """The auctions of the clients' jobs; a job that was handed in under a second spec had two, the last counts."""
        known = self._world.checkers.auctions.of
        jobs = ((client, client.job) for client in clients)
        return [(client, known[job.digest]) for client, job in jobs if job is not None and job.digest in known]

    def _award_s(self, auctions: list[tuple[Client, Auction]]) -> list[float]:
        return [
            (auction.awarded_at - client.began_at) / NS_PER_S
            for client, auction in auctions
            if auction.awarded_at is not None and client.began_at is not None
        ]

    def _rare_cost(self) -> Rare:
        auctions = self._auctions(self._rare)
        awards = self._award_s(auctions)
        return Rare(
            machines=self._world.options.rare_machines,
            jobs=len(self._rare),
            done=sum(map(self._is_done, self._rare)),
            awarded=len(awards),
            rounds=_spread([len(auction.rounds) for _, auction in auctions]),
            announcements=_spread([auction.announces for _, auction in auctions]),
            messages=_spread([auction.messages for _, auction in auctions]),
            award_s=_spread(awards),
        )


def judge(sizes: Sequence[Size], plan: Plan) -> Verdict:
    """Whether the bounds hold over these sizes."""
    mean = fmean(size.messages_per_peer_s for size in sizes)
    off = max(abs(size.messages_per_peer_s / mean - 1) for size in sizes)
    jobs, done = sum(size.jobs for size in sizes), sum(size.done for size in sizes)
    small = DEFAULT_LIMITS.everybody_answers_up_to
    bids = all(BIDS[0] <= size.bids.mean <= BIDS[1] for size in sizes if size.peers > small)
    rare = all(size.rare is None or size.rare.awarded == size.rare.done == size.rare.jobs for size in sizes)
    flat, completed = off <= FLAT, done >= DONE * jobs
    return Verdict(
        plan=plan,
        sizes=[size.peers for size in sizes],
        messages_mean=mean,
        messages_off=off,
        flat=flat,
        bids=bids,
        jobs=jobs,
        done=done,
        completed=completed,
        rare=rare,
        holds=flat and bids and completed and rare and not any(size.problem for size in sizes),
    )


def _taken_s(client: Client) -> float | None:
    """From the client's wish to its job's success; None if there was none."""
    job = client.job
    if job is None or job.end is None or job.end[0] != "success" or job.finished_at is None or client.began_at is None:
        return None
    return (job.finished_at - client.began_at) / NS_PER_S


def _spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(mean=0.0, least=0.0, median=0.0, p99=0.0, most=0.0)
    p99 = quantiles(values, n=100, method="inclusive")[-1] if len(values) > 1 else values[0]
    return Spread(
        mean=round(fmean(values), 3),
        least=round(min(values), 3),
        median=round(median(values), 3),
        p99=round(p99, 3),
        most=round(max(values), 3),
    )
