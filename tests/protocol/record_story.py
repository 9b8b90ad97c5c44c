"""Stories of one job whose record several peers keep: ann is its steward, bob and cat are its witnesses."""

from __future__ import annotations

from typing import Any

from protocol.decrees import FinalBody, digest_of
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.limits import DEFAULT_LIMITS, Limits
from protocol.messages import StatusReply
from protocol.wire import Role, Task
from tests.protocol.mesh import Mesh

HOLDERS = ("ann", "bob", "cat")
MERGE = Task(role=Role.MERGE)


class Story:
    """A mesh with one job on its way; a task takes 0.3 s, the job about 1.5 s."""

    def __init__(
        self,
        *names: str,
        limits: Limits = DEFAULT_LIMITS,
        holders: tuple[str, ...] = HOLDERS,
        fields: dict[str, Any] | None = None,
        profiles: dict[str, dict[str, Any]] | None = None,
        accepted: bool = True,
        **stage: Any,
    ) -> None:
        self.mesh = mesh = Mesh(*names, limits=limits, **(profiles or {}))
        mesh.run_for(4)
        mesh.shards, mesh.run_ms = 12, 300
        holders = tuple(name for name in holders if name in names)
        holders = holders if len(holders) % 2 else holders[:1]
        self.spec = mesh.spec("ann", holders=holders, fields=fields, **({"shard_count": 12} | stage))
        if accepted:
            assert mesh.submit("ann", self.spec).accepted

    # -- what is known where

    def record_at(self, name: str) -> JobRecord | None:
        peer = self.mesh.peers.get(self.mesh.ids[name])
        return peer._keeper.find(self.spec.digest) if peer is not None else None

    def records(self) -> dict[str, JobRecord]:
        found = {name: self.record_at(name) for name in self.mesh.ids}
        return {name: record for name, record in found.items() if record is not None}

    def finals(self) -> dict[str, FinalBody]:
        """How the job ended, at each peer that knows; all say the same."""
        finals = {name: record.final for name, record in self.records().items() if record.final is not None}
        assert len({digest_of(body) for body in finals.values()}) <= 1
        return finals

    def holders(self) -> tuple[str, ...]:
        """By the longest chain that any peer knows."""
        longest = max(self.records().values(), key=lambda record: len(record.chain.configurations))
        return tuple(self.mesh.name_of(peer) for peer in longest.chain.current.peers)

    def stewards(self) -> list[str]:
        """Who looks after the job."""
        peers = self.mesh.peers.items()
        return [self.mesh.name_of(key) for key, peer in peers if self.spec.digest in peer.snapshot().stewarding]

    def status(self, name: str) -> StatusReply:
        reply = self.mesh.status(name, self.spec, start=0)
        assert isinstance(reply, StatusReply)
        return reply

    def outcome(self, name: str) -> str:
        view = self.status(name).view
        assert view is not None
        return view.status

    # -- time

    def wait_for(self, what: Any, seconds: float, step: float = 0.1) -> float:
        """Until ``what()`` is true; how long that took."""
        waited = 0.0
        while not what():
            assert waited < seconds, f"not within {seconds} s"
            self.mesh.run_for(step)
            waited += step
        return waited

    def wait_for_end(self, seconds: float = 30) -> FinalBody:
        """Until every holder that is there knows how the job ended."""

        def ended() -> bool:
            here = [name for name in self.holders() if self.mesh.ids[name] in self.mesh.peers]
            return set(here) <= set(self.finals()) and bool(here)

        self.wait_for(ended, seconds)
        return next(iter(self.finals().values()))

    # -- work

    def repeated(self, *lost: str) -> list[Task]:
        """Tasks that were started although somebody had finished them; what the lost ones did is not looked at."""
        gone = {self.mesh.ids[name] for name in lost}
        done: dict[Task, PeerId] = {}
        again = []
        for who, task, ended in self.mesh.work:
            if who not in gone and ended:
                done.setdefault(task, who)
            elif who not in gone and task in done:
                again.append(task)
        return again
