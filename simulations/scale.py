"""Does the cost of a mesh stay the same for each of its peers, however many there are?

For each size one world of ``scenarios/scale.py`` is run and measured in a window, when all peers have joined and jobs
have come for a while. Then, in the same world, some jobs come that few machines can run. A job counts as done if it is
a success within its deadline, counted from when its client first wanted it.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from pathlib import Path

import msgspec

from protocol.clock import NS_PER_S
from protocol.wire import Needs
from simulations.auctions import Auction
from simulations.errors import Violation
from simulations.machines import RARE_MEMORY_BYTES
from simulations.scale_figures import BIDS, Plan, Rare, Size, judge, spread
from simulations.scenarios import scale
from simulations.workload import COMMON_NEEDS, Client
from simulations.world import World

_LEAD_S = 5.0
"""Jobs come for so long before the window begins."""
_RARE_EVERY_S = 3.0
_PEERS_MIN = 10
_POLL_NS = NS_PER_S
_EARLIER = "an earlier output, whose meshes are judged together with these"
_RARE_NEEDS = Needs(cpu_milli=1000, memory_bytes=RARE_MEMORY_BYTES // 2)


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
            bids=spread(bids),
            bids_outside=sum(not BIDS[0] <= count <= BIDS[1] for count in bids),
            rounds=spread([len(auction.rounds) for _, auction in auctions]),
            announcements=spread([auction.announces for _, auction in auctions]),
            award_s=spread(self._award_s(auctions)),
            job_s=spread([taken for client in self._common if (taken := _taken_s(client)) is not None]),
            lookups=world.workload.lookups,
            lookups_found=world.workload.lookups_found,
            mesh_size=spread(self._mesh_sizes),
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
        self._mesh_sizes = [
            float(one.peer.snapshot().mesh_size) for one in world.machines.alive if one.peer is not None
        ]
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
            rounds=spread([len(auction.rounds) for _, auction in auctions]),
            announcements=spread([auction.announces for _, auction in auctions]),
            messages=spread([auction.messages for _, auction in auctions]),
            award_s=spread(awards),
        )


def _taken_s(client: Client) -> float | None:
    """From the client's wish to its job's success; None if there was none."""
    job = client.job
    if job is None or job.end is None or job.end[0] != "success" or job.finished_at is None or client.began_at is None:
        return None
    return (job.finished_at - client.began_at) / NS_PER_S


# -- the command


def add_command(parser: argparse.ArgumentParser) -> None:
    plan = Plan()
    parser.add_argument("--peers", type=_sizes, default=(100, 300, 1_000, 3_000, 10_000), metavar="N,N,…")
    parser.add_argument("--seconds", type=_number, default=plan.seconds, metavar="S", help="at least, of each window")
    parser.add_argument(
        "--jobs", type=_natural, default=plan.jobs, metavar="N", help="a window lasts until so many may be expected"
    )
    parser.add_argument("--loss", type=_share, default=plan.loss, help="share of control messages that are dropped")
    parser.add_argument("--rare", type=_share, default=plan.rare, help="share of machines that rare jobs need; 0: none")
    parser.add_argument("--rare-jobs", type=_natural, default=plan.rare_jobs, metavar="N", help="such jobs, 3 s apart")
    parser.add_argument("--seed", type=_natural, default=plan.seed)
    parser.add_argument("--with", type=Path, action="append", default=[], dest="earlier", metavar="FILE", help=_EARLIER)


def command(given: argparse.Namespace) -> int:
    """One line of JSON for each size, then the verdict; 0 if all bounds hold, 1 if not, 2 for wrong usage."""
    plan = Plan(
        seed=given.seed,
        seconds=given.seconds,
        jobs=given.jobs,
        loss=given.loss,
        rare=given.rare,
        rare_jobs=given.rare_jobs,
    )
    try:
        sizes = [size for file in given.earlier for size in _sizes_in(file)]
    except (OSError, msgspec.DecodeError) as error:
        print(f"no figures of this command: {error}", file=sys.stderr)
        return 2
    for peers in given.peers:
        sizes.append(measure(peers, plan))
        print(json.dumps(msgspec.to_builtins(sizes[-1])), flush=True)
    verdict = judge(sizes, plan)
    print(json.dumps(msgspec.to_builtins(verdict)))
    return 0 if verdict.holds else 1


def _sizes_in(file: Path) -> list[Size]:
    """The meshes in an earlier output of this command; its verdict is made anew."""
    lines = [line for line in file.read_bytes().splitlines() if b'"window_s"' in line]
    if not lines:
        raise msgspec.DecodeError(f"{file} has none")
    return [msgspec.json.decode(line, type=Size) for line in lines]


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if min(sizes) < _PEERS_MIN:
        raise argparse.ArgumentTypeError(f"a mesh of at least {_PEERS_MIN} peers each")
    return sizes


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _number(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1e6:
        raise ValueError
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < 1.0:
        raise ValueError
    return value
