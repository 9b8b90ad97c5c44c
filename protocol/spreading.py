"""Spreading a job's shards evenly: over peers, or over the values that one of their labels has."""

from __future__ import annotations

from protocol.candidate import Candidate
from protocol.job import Job
from protocol.plan import TaskStatus

PEERS = "peers"


class Spread:
    """What each group of bidders has of the shards, and may have: an even share of all of them.

    A bidder that pauses has no part in it, so that tasks never wait for somebody who does not take them.
    """

    def __init__(self, job: Job, bidders: list[Candidate]) -> None:
        self._by = job.plan.stage.needs.placement.spread
        self._groups = {one.peer: self._name(one) for one in bidders}
        names = dict.fromkeys(self._groups.values())
        self._cap = -(-len(job.plan.shards) // max(len(names), 1))
        self._has = dict.fromkeys(names, 0)
        if self.on:
            self._count(job)

    @property
    def on(self) -> bool:
        return bool(self._by)

    def _name(self, one: Candidate) -> str:
        if self._by in ("", PEERS):
            return one.peer if self._by else ""
        return one.labels.get(self._by, "")

    def _count(self, job: Job) -> None:
        """Each shard counts where it runs or was done; of two tries at once the first."""
        for state in job.plan.shards:
            if state.status in (TaskStatus.AWARDED, TaskStatus.DONE):
                worker = next((one.worker for one in state.tries if one.is_open or one.outcome == "success"), None)
                group = self._groups.get(worker) if worker is not None else None
                if group is not None:
                    self._has[group] += 1

    def group_of(self, candidate: Candidate) -> str:
        return self._groups[candidate.peer]

    def room(self) -> dict[str, int] | None:
        """How many further shards each group may have; None if that does not matter."""
        return {group: self._cap - has for group, has in self._has.items()} if self.on else None

    def take(self, candidate: Candidate, tasks: int) -> str:
        """So many more are given to a candidate; what is to be said about that."""
        group = self._groups[candidate.peer]
        self._has[group] += tasks
        where = "" if self._by == PEERS else f" in {self._by} {group or 'none'}"
        return f"spread: {self._has[group]} of at most {self._cap} shards{where}"
