"""What must finally happen, once the faults have ended and old records have expired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.events import PointersAsked
from protocol.wire import Role
from simulations.errors import Violation
from simulations.workload import Job, steward_in

if TYPE_CHECKING:
    from simulations.machines import Machine
    from simulations.world import World

_LOOKUP_NS = 15 * NS_PER_S


def check_jobs(world: World) -> None:
    """Every job was accepted; each whose steward kept its disk has succeeded with the output its inputs imply."""
    for client in world.workload.clients:
        if client.job is None or client.job.accepted_at is None:
            raise Violation("liveness", f"no peer accepted job {client.number}: {client.problem or 'no answer'}")
    for job in world.workload.accepted:
        if not job.steward_survived:
            continue
        world.checkers.jobs.inspect_job(job)
        view = job.view
        if view is None:
            raise Violation("liveness", f"the steward of {job.name} has forgotten it")
        if job.cancelled and view.status == "cancelled":
            continue
        if view.status != "success":
            why = view.error or view.waiting
            raise Violation("liveness", f"{job.name} is {view.status} with {_counts(job)}: {why}")
        shards = [shown for shown in job.tasks if shown.task.role is Role.SHARD and shown.status == "success"]
        if not len(shards) == view.succeeded == view.total_shards == len(job.expected_shards):
            raise Violation("liveness", f"{job.name} succeeded with {_counts(job)}")
        if view.output != job.expected_output:
            raise Violation("liveness", f"{job.name} ended with an output that its inputs do not imply")


def check_quiet(world: World) -> None:
    """No lease and no run is left anywhere, and every table is within its bound."""
    for machine in world.machines.alive:
        assert machine.peer is not None
        snapshot = machine.peer.snapshot()
        if snapshot.leases or snapshot.runs or machine.runs:
            raise Violation("quiet", f"peer {machine.index} still has {snapshot.leases} leases, {snapshot.runs} runs")
        world.checkers.tables.check(machine)


def is_quiet(world: World) -> bool:
    snapshots = (machine.peer.snapshot() for machine in world.machines.alive if machine.peer is not None)
    return not any(snapshot.leases or snapshot.runs for snapshot in snapshots)


def check_mesh(world: World) -> None:
    """The peers that live form one connected mesh, and know no dead one."""
    alive = {machine.peer_id: machine for machine in world.machines.alive}
    neighbours: dict[str, set[str]] = {peer: set() for peer in alive}
    for peer, machine in alive.items():
        assert machine.peer is not None
        snapshot = machine.peer.snapshot()
        for other in snapshot.neighbours:
            if other not in alive:
                raise Violation("mesh", f"peer {machine.index} has a dead neighbour, {_index(world, other)}")
            neighbours[peer].add(other)
            neighbours[other].add(peer)
        for record in snapshot.known:
            if record.peer not in alive:
                raise Violation("mesh", f"peer {machine.index} still knows the dead peer {_index(world, record.peer)}")
    reached = _component(neighbours)
    if len(reached) != len(alive):
        lost = sorted(machine.index for peer, machine in alive.items() if peer not in reached)
        raise Violation("mesh", f"the mesh fell apart: {len(lost)} of {len(alive)} peers are cut off, {lost[:20]}")


def check_lookups(world: World) -> int:
    """Every job that still has its steward is found from every peer. Takes virtual time; returns the lookups made."""
    jobs = [job for job in world.workload.accepted if job.steward_survived]
    pairs = [(machine, job) for job in jobs for machine in world.machines.alive]
    if len(pairs) > world.options.lookups_max:
        pairs = world.rng.sample(pairs, world.options.lookups_max)
    missing = dict.fromkeys((machine.index, job.digest) for machine, job in pairs)

    def look_up(machine: Machine, job: Job) -> None:
        def found(_: Machine, answer: object) -> None:
            if steward_in(world, answer, job) == job.spec.record.steward:  # type: ignore[arg-type]
                missing.pop((machine.index, job.digest), None)

        world.ask(machine, lambda request: PointersAsked(request, "job", job.digest.hex()), found)

    # spread out, as a peer holds only so many lookups at once
    for position, (machine, job) in enumerate(pairs):
        world.agenda.after(position * NS_PER_MS, look_up, machine, job)
    world.agenda.run_until(world.agenda.now + len(pairs) * NS_PER_MS + _LOOKUP_NS)
    if missing:
        index, digest = next(iter(missing))
        raise Violation(
            "lookup",
            f"{len(missing)} of {len(pairs)} lookups found nothing, as peer {index} for {digest.hex()[:8]}",
        )
    return len(pairs)


def _component(neighbours: dict[str, set[str]]) -> set[str]:
    """All that is reached from the first."""
    reached: set[str] = set()
    ahead = [next(iter(neighbours))] if neighbours else []
    while ahead:
        peer = ahead.pop()
        if peer not in reached:
            reached.add(peer)
            ahead.extend(neighbours[peer])
    return reached


def _index(world: World, peer: str) -> int | str:
    return world.machines[peer].index if peer in world.machines else peer  # type: ignore[index,operator]


def _counts(job: Job) -> str:
    view = job.view
    assert view is not None
    return f"{view.succeeded} done, {view.running} running, {view.failed} failed of {len(job.expected_shards)} shards"
