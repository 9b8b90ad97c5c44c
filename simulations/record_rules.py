"""Rules about a job's record: its registers decide once, no promise is broken, it ends with what was computed.

``docs/specs/record.md``, "Invariants". Votes and promises are read off the messages that carry them, so that what a
peer has said counts, whatever became of the peer since.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from protocol.chain import Chain
from protocol.decrees import Certificate, Decree, Final, FinalBody, digest_of, majority
from protocol.effects import Send
from protocol.messages import Accept, AcceptedVote, Decided, Promise
from protocol.records import Vote
from protocol.wire import Ballot, Holder
from simulations.errors import Violation
from simulations.machines import Machine

if TYPE_CHECKING:
    from simulations.workload import Job
    from simulations.world import World

Seat = tuple[bytes, int, str, bytes]
"""One holder's part in one register: job, configuration, peer, store."""


class RecordRules:
    """What holders have said so far, in the whole world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._promised: dict[Seat, Ballot] = {}
        self._promisers: dict[tuple[bytes, Ballot], dict[tuple[str, bytes], None]] = {}
        self._votes: dict[tuple[Seat, Ballot], bytes] = {}
        self._latest: dict[Seat, Ballot] = {}
        self._voters: dict[tuple[bytes, Ballot, bytes], dict[str, None]] = {}
        self._proposed: dict[tuple[bytes, Ballot], bytes] = {}
        self._decided: dict[tuple[bytes, int], Decree] = {}
        self._decrees: dict[bytes, Decree] = {}
        self._chains: dict[bytes, Chain] = {}
        self._bodies: dict[bytes, FinalBody] = {}
        self._kept: dict[tuple[int, bytes, bytes], tuple[Ballot, object, object]] = {}
        self.takeovers = 0
        """Ballots of a higher epoch than 0 in which something was proposed."""
        self.reconfigurations = 0

    # -- reading

    def chain_of(self, job: Job) -> Chain:
        """The decisions about a job that a majority has voted for, whoever knows them."""
        return self._chains.setdefault(job.digest, Chain(job.spec, partial(self._world.reader.open, kind=Vote)))

    def ended(self, job: Job) -> FinalBody | None:
        """How a job has ended, if a majority of its holders has voted for that."""
        final = self.chain_of(job).final
        return self._bodies.get(final.body) if final is not None else None

    def is_end(self, job: bytes, body: FinalBody | None) -> bool:
        """Whether this is the proven end of a job."""
        known = self._world.workload.jobs.get(job)
        return known is not None and body is not None and self.ended(known) == body

    def has_held(self, job: Job, peer: str) -> bool:
        return self.chain_of(job).has_held(peer)  # type: ignore[arg-type]

    def survives(self, job: Job) -> bool:
        """Whether a majority of the job's holders is there or coming back, with the disks that they had."""
        return self._are_there(self.chain_of(job).current.holders)

    def can_end(self, job: Job) -> bool:
        """Whether no more was lost than a job survives: a majority of its holders is there, and its files are."""
        return self.survives(job) and (self.ended(job) is not None or self._files_are_there(job))

    def _files_are_there(self, job: Job) -> bool:
        """Each file is on the disk of some machine that has promised to keep it, and is not gone for good."""
        keeping: dict[str, None] = {}
        for machine in self._world.machines.alive:
            record = machine.peer.record_of(job.digest) if machine.peer is not None else None
            keeping.update(dict.fromkeys(record.facts.held if record is not None else ()))
        kept = [self._world.machines[peer] for peer in keeping]  # type: ignore[index]
        disks = [machine.disk for machine in kept if not machine.gone]
        return all(any(link.cid in disk for disk in disks) for link in job.spec.record.blobs)

    def gather(self) -> None:
        """Take in what is decided but was never told: a steward without other holders tells nobody."""
        for job in self._world.workload.jobs.values():
            for machine in self._world.machines.alive:
                record = machine.peer.record_of(job.digest) if machine.peer is not None else None
                if record is not None:
                    if record.final is not None:
                        self._check_body(job.digest, record.final)
                    self._take(job, record.chain.certificates, machine)

    def _are_there(self, holders: tuple[Holder, ...]) -> bool:
        machines = self._world.machines
        there = sum(not machines[one.peer].gone and machines[one.peer].store == one.store for one in holders)
        return there >= majority(len(holders))

    # -- what crosses a peer's border

    def promise(self, machine: Machine, effect: Send) -> None:
        message = effect.message
        assert isinstance(message, Promise)
        seat = (message.job, message.ballot.config, machine.peer_id, machine.store)
        before = self._promised.get(seat)
        if before is not None and message.ballot < before:
            raise Violation("register", f"peer {machine.index} promises {message.ballot} after {before}")
        self._promised[seat] = message.ballot
        self._promisers.setdefault((message.job, message.ballot), {})[machine.peer_id, machine.store] = None
        if message.voted_in is not None:
            told = self._votes.get((seat, message.voted_in))
            if told is not None and message.voted_for is not None and digest_of(message.voted_for) != told:
                raise Violation("register", f"peer {machine.index} reports another vote than it cast")
        latest = self._latest.get(seat)
        if latest is not None and (message.voted_in is None or message.voted_in < latest):
            raise Violation("register", f"peer {machine.index} does not report its vote in {latest}")

    def accept(self, machine: Machine, effect: Send) -> None:
        message = effect.message
        assert isinstance(message, Accept)
        digest = digest_of(message.decree)
        self._decrees[digest] = message.decree
        key = (message.job, message.ballot)
        self.takeovers += message.ballot.epoch > 0 and key not in self._proposed
        if message.ballot.peer != machine.peer_id:
            raise Violation("register", f"peer {machine.index} proposes in another's ballot")
        if key not in self._proposed:
            self._check_elected(machine, message.job, message.ballot)
        if self._proposed.setdefault(key, digest) != digest:
            raise Violation("register", f"peer {machine.index} proposes two things in {message.ballot}")
        if message.body is not None:
            self._check_body(message.job, message.body)
        self._count((message.job, message.ballot.config, machine.peer_id, machine.store), message.ballot, digest)

    def _check_elected(self, machine: Machine, digest: bytes, ballot: Ballot) -> None:
        """Whoever proposes owns the first ballot, or a majority has promised it, itself included."""
        job = self._world.workload.jobs.get(digest)
        if job is None:
            return
        configurations = self.chain_of(job).configurations
        if ballot.config >= len(configurations) or ballot == configurations[ballot.config].first_ballot:
            return
        holders = configurations[ballot.config].holders
        promisers = self._promisers.get((digest, ballot), ())
        if 1 + sum((one.peer, one.store) in promisers for one in holders) < majority(len(holders)):
            raise Violation("register", f"peer {machine.index} proposes in {ballot}, which no majority has promised")

    def voted(self, machine: Machine, effect: Send) -> None:
        message = effect.message
        assert isinstance(message, AcceptedVote)
        vote = self._world.reader.open(message.vote, Vote).record
        if (vote.peer, vote.store) != (machine.peer_id, machine.store):
            raise Violation("register", f"peer {machine.index} sends a vote that is not its own")
        self._count((vote.job, vote.ballot.config, vote.peer, vote.store), vote.ballot, vote.decree)

    def decided(self, machine: Machine, effect: Send) -> None:
        """Whoever tells of decisions proves them, and everybody tells the same."""
        message = effect.message
        assert isinstance(message, Decided)
        job = self._world.workload.jobs.get(message.job)
        if job is None:
            return
        if message.body is not None:
            self._check_body(message.job, message.body)
        self._take(job, message.chain, machine)

    def _take(self, job: Job, certificates: Iterable[Certificate], machine: Machine) -> None:
        chain = self.chain_of(job)
        for known, told in zip(chain.certificates, certificates, strict=False):
            if known.decree != told.decree:
                raise Violation("decided", f"peer {machine.index} tells of another decision about {job.name}")
        before = len(chain.configurations)
        chain.extend(certificates)
        self.reconfigurations += len(chain.configurations) - before

    def _count(self, seat: Seat, ballot: Ballot, digest: bytes) -> None:
        """A vote: none below a promise, none twice, and no two majorities for different things."""
        promised = self._promised.get(seat)
        if promised is not None and ballot < promised:
            raise Violation("register", f"a vote in {ballot} after a promise of {promised}")
        self._promised[seat] = ballot
        if self._votes.setdefault((seat, ballot), digest) != digest:
            raise Violation("register", f"two votes for different things in {ballot}")
        self._latest[seat] = ballot
        job, config, peer, store = seat
        known = self._world.workload.jobs.get(job)
        if known is None:
            return
        configurations = self.chain_of(known).configurations
        if config >= len(configurations):
            raise Violation("register", f"a vote in configuration {config} of {known.name}, which nobody decided")
        holders = configurations[config].holders
        if Holder(peer=peer, store=store) not in holders:  # type: ignore[arg-type]
            raise Violation("register", f"a vote about {known.name} by a peer that is no holder with that disk")
        voters = self._voters.setdefault((job, ballot, digest), {})
        voters[peer] = None
        if len(voters) >= majority(len(holders)):
            self._decide(known, config, self._decrees[digest])

    def _decide(self, job: Job, config: int, decree: Decree) -> None:
        if self._decided.setdefault((job.digest, config), decree) != decree:
            raise Violation("decided", f"configuration {config} of {job.name} decides twice, differently")
        finals = {one for (digest, _), one in self._decided.items() if digest == job.digest and isinstance(one, Final)}
        if len(finals) > 1:
            raise Violation("decided", f"{job.name} has two ends")

    def _check_body(self, digest: bytes, body: FinalBody) -> None:
        """An end names outputs that the job's inputs imply, and counts what it lists."""
        key = digest_of(body)
        job = self._world.workload.jobs.get(digest)
        if key in self._bodies or job is None:
            return
        self._bodies[key] = body
        if body.status == "success" and body.output != job.expected_output:
            raise Violation("ending", f"{job.name} is to end with an output that its inputs do not imply")
        if body.status == "success" and (body.succeeded, body.total_shards) != (job.total_shards,) * 2:
            raise Violation("ending", f"{job.name} is to succeed with {body.succeeded} of {body.total_shards} shards")
        output, lost = body.output, self._world.checkers.incarnations.has_lost
        for machine in [self._world.machines[keeper] for keeper in body.keepers]:
            if output is not None and machine.alive and output.cid not in machine.disk and not lost(machine):
                raise Violation(
                    "ending", f"{job.name} is to end with peer {machine.index} as keeper, which has nothing"
                )
        if body.status == "cancelled" and not job.cancelled:
            raise Violation("ending", f"{job.name} is to be cancelled, which nobody wanted")
        if body.status == "failed" and "deadline" in body.error:
            now = self._world.machines.all[0].wall(self._world.agenda.now) - self._world.machines.all[0].skew_ms
            if now < job.spec.record.issued_at + job.spec.record.deadline_ms - self._world.options.limits.clock_skew_ms:
                raise Violation("ending", f"{job.name} is to fail for its deadline, which has not passed")

    # -- over restarts

    def crashing(self, machine: Machine) -> None:
        """What a holder has on disk when it goes down."""
        assert machine.peer is not None
        for job in self._world.workload.jobs.values():
            record = machine.peer.record_of(job.digest)
            if record is not None:
                acceptor = record.acceptor
                voted = acceptor.voted if acceptor is not None else None
                self._kept[machine.index, machine.store, job.digest] = (record.promised, voted, record.final)

    def started(self, machine: Machine, _: Any) -> None:
        """It is there again: nothing promised is forgotten, no vote, no end, no job."""
        assert machine.peer is not None
        for job in self._world.workload.jobs.values():
            kept = self._kept.pop((machine.index, machine.store, job.digest), None)
            if kept is None:
                continue
            record = machine.peer.record_of(job.digest)
            if record is None:
                raise Violation("durability", f"peer {machine.index} has forgotten the record of {job.name}")
            promised, voted, final = kept
            acceptor = record.acceptor
            if record.promised < promised or (acceptor.voted if acceptor is not None else None) != voted:
                raise Violation("durability", f"peer {machine.index} has forgotten what it promised about {job.name}")
            if record.final != final:
                raise Violation("durability", f"peer {machine.index} has forgotten how {job.name} ended")

    def accepted(self, job: Job) -> None:
        """A client was told so: a majority of the named holders has the job on disk."""
        holders = job.spec.record.holders
        having = 0
        for holder in holders:
            machine = self._world.machines[holder.peer]
            having += ("job", job.digest) in machine.journal and machine.store == holder.store
        was_lost = sum(self._world.machines[holder.peer].store != holder.store for holder in holders)
        if having + was_lost < majority(len(holders)) and self.chain_of(job).final is None:
            raise Violation("durability", f"{job.name} is accepted, and {having} of {len(holders)} holders have it")
