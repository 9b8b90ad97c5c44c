"""Submitters: they sign specs, hand them to a random peer, ask any peer how it goes, and sometimes cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.effects import Proposal
from protocol.events import CancelAsked, JobSubmitted, PointersAsked, ProposalAsked, StatusAsked
from protocol.identity import PeerId, Signer
from protocol.messages import CancelReply, JobView, LookupReply, StatusReply, SubmitReply, TaskView
from protocol.records import Cancel, JobPointer, JobSpec, StageSpec
from protocol.signing import Opened, sign
from protocol.wire import Needs, Output, Task
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.world import World

TERMINAL = ("success", "failed", "cancelled")

_RETRY_NS = 2 * NS_PER_S
_ANSWER_NS = 90 * NS_PER_S
"""How long a client waits for an answer to a submission."""
_ASK_EVERY_NS = 3 * NS_PER_S
_TRIES_PER_SPEC = 8
COMMON_NEEDS = Needs(cpu_milli=1000, memory_bytes=256 << 20)
_MODEL_BYTES = 200_000
_HUGE = 20
_PHOTO_BYTES = (100_000, 4_000_000)


class Job:
    """A signed spec that was handed in, and what is known of it outside the mesh."""

    def __init__(
        self, spec: Opened[JobSpec], steward: Machine, shards: int, expected: tuple[tuple[Output, ...], Output]
    ) -> None:
        self.spec = spec
        self.digest = spec.digest
        self.steward = steward
        self.total_shards = shards
        self.expected_shards, self.expected_output = expected
        self.accepted_at: int | None = None
        self.submitted_at = 0
        self.finished_at: int | None = None
        self.cancelled = False
        self.view: JobView | None = None
        """The latest that a steward showed to the checkers; so are ``tasks``."""
        self.tasks: tuple[TaskView, ...] = ()
        self.pins: dict[tuple[int, int, Task], tuple[str, int]] = {}
        """By steward and its boot, each task that ever counted: its output's CID, and its latest try then."""
        self.end: tuple[object, ...] | None = None
        """What anybody was first told of its end."""

    @property
    def name(self) -> str:
        return self.spec.digest.hex()[:8]

    @property
    def ended(self) -> bool:
        return self.end is not None


class Workload:
    """All clients of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clients: list[Client] = []
        self.jobs: dict[bytes, Job] = {}
        """Every spec that was handed in, by digest."""
        self.lookups = 0
        self.lookups_found = 0

    def plan(self) -> None:
        """Put all submissions on the agenda."""
        options, rng = self._world.options, self._world.rng
        at = options.first_job_s
        for number in range(options.jobs):
            client = Client(self._world, self, number)
            self.clients.append(client)
            self._world.agenda.at(int(at * NS_PER_S), client.submit)
            at += rng.expovariate(1.0 / options.jobs_every_s)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to wait for: each client has its answer, each job that can has ended."""
        records = self._world.checkers.records
        records.gather()
        answered = all(client.job is not None and client.job.accepted_at is not None for client in self.clients)
        return answered and all(records.ended(job) is not None for job in self.accepted if records.can_end(job))

    @property
    def accepted(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.accepted_at is not None]


class Client:
    """One submitter with one job to get done."""

    def __init__(self, world: World, workload: Workload, number: int, needs: Needs = COMMON_NEEDS) -> None:
        self._world = world
        self._workload = workload
        self.number = number
        self.needs = needs
        self.began_at: int | None = None
        """When this client first wanted its job done."""
        self._signer: Signer = world.signer()
        self._tries = 0
        self._waiting = 0
        self.job: Job | None = None
        self.problem = ""
        """Why the job was last refused."""

    def submit(self) -> None:
        """Ask a random peer who could hold the job; a new spec."""
        if self.began_at is None:
            self.began_at = self._world.agenda.now
        self.job = None
        self._tries = 0
        machine = self._entry()
        if machine is None:
            self._world.agenda.after(_RETRY_NS, self.submit)
            return
        asked = self._wait(self.submit)
        self._world.ask(
            machine,
            lambda request: ProposalAsked(request, 1),
            lambda _, answer: self._proposed(machine, asked, answer),
        )

    def _proposed(self, entry: Machine, asked: int, proposal: Proposal) -> None:
        if asked != self._waiting or not entry.alive:
            return
        spec = self._make_spec(proposal)
        world = self._world
        library, steward = world.library, world.machines[proposal.steward]
        self.job = Job(spec, steward, library.total_shards(spec.record), library.expected(spec.record))
        self.job.submitted_at = world.agenda.now
        self._workload.jobs[self.job.digest] = self.job
        self._hand_in(entry)

    def _hand_in(self, entry: Machine) -> None:
        """The same signed bytes, as often as needed: it stays the same job."""
        assert self.job is not None
        spec = self.job.spec
        entry.disk.update(link.cid for link in spec.record.blobs)
        self._tries += 1
        asked = self._wait(self._again)
        self._world.ask(
            entry,
            lambda request: JobSubmitted(request, spec.signed, (entry.peer_id,)),
            lambda _, answer: self._answered(asked, answer),
        )

    def _answered(self, asked: int, answer: SubmitReply) -> None:
        if asked != self._waiting or self.job is None:
            return
        self._waiting += 1
        world = self._world
        if answer.accepted:
            if self.job.accepted_at is None:
                self.job.accepted_at = world.agenda.now
                world.checkers.records.accepted(self.job)
            world.agenda.after(_ASK_EVERY_NS, self._ask_around, self.job)
            if world.rng.random() < world.options.cancelled_jobs:
                pause = world.rng.randint(0, 3_000) * NS_PER_MS
                world.agenda.after(pause, self._cancel, self.job)
        else:
            self.problem = answer.reason
            world.agenda.after(_RETRY_NS, self._again)

    def _again(self) -> None:
        """Once more, elsewhere; with a new spec when this one's holders seem to be gone."""
        entry = self._entry()
        records = self._world.checkers.records
        if self._tries >= _TRIES_PER_SPEC or self.job is None or not records.survives(self.job):
            self.submit()
        elif entry is None:
            self._world.agenda.after(_RETRY_NS, self._again)
        else:
            self._hand_in(entry)

    def _wait(self, then: Any) -> int:
        """A ticket for one answer; ``then`` is called if it has not come in time."""
        self._waiting += 1
        self._world.agenda.after(_ANSWER_NS, self._late, self._waiting, then)
        return self._waiting

    def _late(self, asked: int, then: Any) -> None:
        if asked == self._waiting:
            then()

    def _entry(self) -> Machine | None:
        alive = self._world.machines.alive
        return self._world.rng.choice(alive) if alive else None

    def _make_spec(self, proposal: Proposal) -> Opened[JobSpec]:
        options, rng, library = self._world.options, self._world.rng, self._world.library
        whole, life_ms = rng.random() < options.whole_jobs, int(options.deadline_s * 1_000)
        parts = rng.randint(*options.shards)
        if options.huge_jobs and rng.random() < options.huge_jobs:
            parts *= _HUGE
        name = f"{options.seed}/{self.number}/{parts}"
        job_input = library.job_input(name, parts=parts, photo_bytes=rng.randint(*_PHOTO_BYTES))
        model_file = library.make("model file", self.number % 3, size=_MODEL_BYTES)
        manifest = library.make("manifest", self.number % 3, size=1_000, links=(model_file.output.cid,))
        blobs = library.with_links((manifest.output.cid, job_input.output.cid))
        stage = StageSpec(
            name="",
            model=f"features-v{self.number % 3}",
            manifest=manifest.link,
            needs=self.needs,
            split="" if whole else "tile",
            merge="" if whole else "concat-json",
            timeout_ms=options.task_timeout_ms,
        )
        return sign(
            JobSpec(
                mesh=proposal.mesh,
                submitter=self._signer.peer_id,
                alias=f"job-{self.number}",
                nonce=rng.randbytes(16),
                issued_at=proposal.wall_ms,
                not_after=proposal.wall_ms + life_ms,
                deadline_ms=life_ms,
                holders=proposal.holders,
                steward=proposal.steward,
                input=job_input.link,
                blobs=tuple(library.link(cid) for cid in blobs),
                stages=(stage,),
            ),
            self._signer,
        )

    # -- afterwards

    def _cancel(self, job: Job) -> None:
        entry = self._entry()
        if entry is None or job.ended:
            return
        job.cancelled = True
        wall = entry.wall(self._world.agenda.now)
        cancel = sign(Cancel(job=job.digest, submitter=self._signer.peer_id, issued_at=wall), self._signer)
        self._world.ask(
            entry,
            lambda request: CancelAsked(request, cancel.signed, job.spec.record.steward, holders_of(self._world, job)),
            lambda _, answer: self._cancel_answered(job, answer),
        )

    def _cancel_answered(self, job: Job, answer: CancelReply) -> None:
        if answer.status not in TERMINAL and self._world.checkers.records.can_end(job) and not job.ended:
            self._world.agenda.after(_RETRY_NS, self._cancel, job)

    def _ask_around(self, job: Job) -> None:
        """As a user would: find the job from any peer, then ask its steward through that peer."""
        entry = self._entry()
        if job.ended or not self._world.checkers.records.can_end(job):
            return
        self._world.agenda.after(_ASK_EVERY_NS, self._ask_around, job)
        if entry is None:
            return
        self._workload.lookups += 1
        self._world.ask(
            entry,
            lambda request: PointersAsked(request, "job", job.digest.hex()),
            lambda machine, answer: self._found(job, machine, answer),
        )

    def _found(self, job: Job, machine: Machine, answer: LookupReply) -> None:
        stewards = holders_in(self._world, answer, job)
        if not stewards or not machine.alive:
            return
        self._workload.lookups_found += 1
        self._world.ask(
            machine,
            lambda request: StatusAsked(request, job.digest, stewards[0], 0, stewards[1:]),
            lambda _, reply: self._status(job, reply),
        )

    def _status(self, job: Job, reply: StatusReply) -> None:
        if reply.view is not None:
            self._world.checkers.jobs.seen_from_afar(job, reply.view)


def holders_in(world: World, answer: LookupReply, job: Job) -> tuple[PeerId, ...]:
    """Whom a lookup's answer names as stewards and holders of a job, the latest first; none if it knows none."""
    found = [world.reader.open(signed, JobPointer).record for signed in answer.pointers]
    pointers = sorted((one for one in found if one.job == job.digest), key=lambda one: -one.issued_at)
    stewards = [pointer.steward for pointer in pointers]
    return tuple(dict.fromkeys([*stewards, *(one.peer for pointer in pointers for one in pointer.holders)]))


def holders_of(world: World, job: Job) -> tuple[PeerId, ...]:
    return world.checkers.records.chain_of(job).current.peers
