"""What must finally happen, once the faults have ended and old records have expired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.durable import Table
from protocol.events import PointersAsked
from simulations.errors import Violation
from simulations.workload import Job, holders_in

if TYPE_CHECKING:
    from simulations.machines import Machine
    from simulations.world import World

_LOOKUP_NS = 15 * NS_PER_S


def check_jobs(world: World) -> None:
    """Every job was accepted; each that can end has succeeded with the output its inputs imply, and all know it."""
    for client in world.workload.clients:
        if client.job is None or client.job.accepted_at is None:
            raise Violation("liveness", f"no peer accepted job {client.number}: {client.problem or 'no answer'}")
    world.checkers.records.gather()
    for job in world.workload.accepted:
        if world.checkers.records.can_end(job):
            _check_end(world, job)


def _check_end(world: World, job: Job) -> None:
    body = world.checkers.records.ended(job)
    if body is None:
        raise Violation("liveness", f"{job.name} has not ended: {_state_of(world, job)}")
    if job.cancelled and body.status == "cancelled":
        return
    if body.status != "success":
        raise Violation("liveness", f"{job.name} is {body.status}: {body.error}")
    if not body.succeeded == body.total_shards == job.total_shards or body.output != job.expected_output:
        raise Violation("liveness", f"{job.name} succeeded with {body.succeeded} of {job.total_shards} shards")


def _is_lost(world: World, job: Job) -> bool:
    """Whether nobody can show what counted in a job that has ended."""
    records = [machine.peer.record_of(job.digest) for machine in world.machines.alive if machine.peer is not None]
    return not any(record is not None and record.final is not None and record.complete for record in records)


def check_records(world: World) -> None:
    """Every holder that is there knows how each job ended, and what counted in it unless whoever knew that is gone."""
    for job in world.workload.accepted:
        if world.checkers.records.ended(job) is None:
            continue
        is_lost = _is_lost(world, job)
        if is_lost and not world.checkers.records.survives(job):
            continue  # who knew is gone, and those who are left are too few to decide it again
        for holder in world.checkers.records.chain_of(job).current.holders:
            machine = world.machines[holder.peer]
            if not machine.alive or machine.store != holder.store:
                continue
            assert machine.peer is not None
            record = machine.peer.record_of(job.digest)
            if record is None:
                continue  # it was away when the others took the job in, and when it ended
            if record.final is None or not (record.complete or is_lost):
                raise Violation("liveness", f"holder {machine.index} of {job.name} does not know how it ended")
            if record.complete:
                world.checkers.jobs.inspect_job(job, machine)


def check_outputs(world: World) -> None:
    """The first two of an ended job's holders that are there have its output, if they can have got it."""
    for job in world.workload.accepted:
        body = world.checkers.records.ended(job)
        if body is None or body.output is None:
            continue
        machines = [world.machines[peer] for peer in world.checkers.records.chain_of(job).current.peers]
        there = [one for one in machines if one.peer is not None]
        sources = [*there, *(world.machines[peer] for peer in body.keepers)]
        if not any(one.alive and body.output.cid in one.disk for one in sources):
            continue
        for machine in there[:2]:
            assert machine.peer is not None
            record = machine.peer.record_of(job.digest)
            if record is not None and record.final is not None and body.output.cid not in machine.disk:
                raise Violation("liveness", f"holder {machine.index} of {job.name} does not keep its output")


def check_workers(world: World) -> None:
    """Nobody goes on working for a job that has ended, nor keeps receipts of it, if a holder can tell that it has."""
    records = world.checkers.records
    for job in world.workload.accepted:
        if records.ended(job) is None or not records.survives(job):
            continue
        for machine in world.machines.alive:
            if (Table.WORK, job.digest) in machine.journal:
                raise Violation("liveness", f"worker {machine.index} of {job.name} does not know that it has ended")


def _state_of(world: World, job: Job) -> str:
    """Who holds it, who leads it, and how far it is: for people."""
    configuration = world.checkers.records.chain_of(job).current
    holders = ", ".join(
        f"{world.machines[one.peer].index}{'' if world.machines[one.peer].store == one.store else ' (wiped)'}"
        for one in configuration.holders
    )
    leading = [
        machine.index
        for machine in world.machines.alive
        if machine.peer is not None and job.digest in machine.peer.stewarding
    ]
    return f"holders {holders}; stewards {leading}; {_counts(job)}"


def check_quiet(world: World) -> None:
    """No lease and no run of a job that has ended is left anywhere, and every table is within its bound."""
    for machine in world.machines.alive:
        assert machine.peer is not None
        snapshot = machine.peer.snapshot()
        if _is_busy(world, machine):
            raise Violation("quiet", f"peer {machine.index} still has {snapshot.leases} leases, {snapshot.runs} runs")
        world.checkers.tables.check(machine)


def is_quiet(world: World) -> bool:
    return not any(_is_busy(world, machine) for machine in world.machines.alive)


def _is_busy(world: World, machine: Machine) -> bool:
    """Whether a machine works on anything but jobs that have lost too many holders to end."""
    assert machine.peer is not None
    snapshot = machine.peer.snapshot()
    if not (snapshot.leases or snapshot.runs or machine.runs):
        return False
    working_on = world.checkers.runs.jobs_of(machine)
    jobs = [job for digest in working_on if (job := world.workload.jobs.get(digest)) is not None]
    return not jobs or any(world.checkers.records.ended(job) is not None for job in jobs)


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
        world.checkers.views.check(machine, at_the_end=True)
    reached = _component(neighbours)
    if len(reached) != len(alive):
        lost = sorted(machine.index for peer, machine in alive.items() if peer not in reached)
        raise Violation("mesh", f"the mesh fell apart: {len(lost)} of {len(alive)} peers are cut off, {lost[:20]}")


def check_lookups(world: World) -> int:
    """Every job that has ended, and has holders still, is found from every peer. Returns the lookups made.

    While they are on their way, what was not where it should be is placed again.
    """
    records, pointers = world.checkers.records, world.checkers.pointers
    missed = pointers.missing()
    jobs = [job for job in world.workload.accepted if records.ended(job) is not None and records.survives(job)]
    pairs = [(machine, job) for job in jobs for machine in world.machines.alive]
    if len(pairs) > world.options.lookups_max:
        pairs = world.rng.sample(pairs, world.options.lookups_max)
    missing = dict.fromkeys((machine.index, job.digest) for machine, job in pairs)

    def look_up(machine: Machine, job: Job) -> None:
        def found(_: Machine, answer: object) -> None:
            for peer in holders_in(world, answer, job):  # type: ignore[arg-type]
                holder = world.machines[peer]
                if holder.peer is not None and holder.peer.record_of(job.digest) is not None:
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
    pointers.check(missed)
    for machine in world.machines.alive:  # the second look
        world.checkers.views.check(machine, at_the_end=True)
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
    if view is None:
        return "never shown"
    return f"{view.succeeded} done, {view.running} running, {view.failed} failed of {job.total_shards} shards"
