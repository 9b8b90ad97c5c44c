"""The figures of a run: for people, and for the log of every continuous-integration run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.clock import NS_PER_S
from protocol.messages import Bid
from simulations.options import Options

if TYPE_CHECKING:
    from simulations.simulation import Result
    from simulations.world import World

_LOST = ("lost", "expired", "returned")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds; simulated unless named real."""

    peers: int
    jobs_accepted: int
    jobs_done: int
    jobs_orphaned: int
    """Accepted, but more of their holders, or of their files, were lost than a job survives."""
    takeovers: int
    reconfigurations: int
    shards_done: int
    makespan_s: float
    """From the first submission to the end of the last job."""
    job_s: float
    """Mean time from a job's submission to its end."""
    messages: int
    messages_per_peer_s: float
    bytes_per_peer_s: float
    """Estimated from the messages that went through the codec, one in a hundred."""
    bids_per_auction: float
    runs: int
    """Tasks that were executed to their end, each time."""
    wasted_runs: int
    """Those that had been executed to their end before."""
    lost_tries: int
    """Tries that were lost, expired or given back."""
    crashes: int
    events: int
    simulated_s: float
    real_s: float
    cpu_s: float
    """Processor time of this process: what ``real_s`` would be on a core that nobody else uses."""

    @property
    def events_per_s(self) -> float:
        """Of processor time."""
        return self.events / self.cpu_s if self.cpu_s else 0.0

    @property
    def acceleration(self) -> float:
        """Simulated time over processor time: what one core does."""
        return self.simulated_s / self.cpu_s if self.cpu_s else 0.0


def figures_of(world: World, real_s: float, cpu_s: float) -> Figures:
    jobs = world.workload.accepted
    ended = [job for job in jobs if job.ended]
    finished = [job.finished_at for job in ended if job.finished_at is not None]
    network, simulated_s = world.network, world.agenda.now / NS_PER_S
    bytes_per_message = network.sampled_bytes / max(network.sampled_messages, 1)
    messages_per_peer_s = network.messages / max(len(world.machines.all) * simulated_s, 1e-9)
    return Figures(
        peers=len(world.machines.all),
        jobs_accepted=len(jobs),
        jobs_done=sum(job.end is not None and job.end[0] == "success" for job in ended),
        jobs_orphaned=sum(not world.checkers.records.can_end(job) for job in jobs),
        takeovers=world.checkers.records.takeovers,
        reconfigurations=world.checkers.records.reconfigurations,
        shards_done=sum(job.view.succeeded for job in jobs if job.view is not None),
        makespan_s=(max(finished) - min(job.submitted_at for job in jobs)) / NS_PER_S if finished else 0.0,
        job_s=sum(job.finished_at - job.submitted_at for job in ended if job.finished_at is not None)
        / max(len(finished), 1)
        / NS_PER_S,
        messages=network.messages,
        messages_per_peer_s=messages_per_peer_s,
        bytes_per_peer_s=messages_per_peer_s * bytes_per_message,
        bids_per_auction=network.sent[Bid] / max(world.checkers.auctions.count, 1),
        runs=world.runs.finished,
        wasted_runs=world.runs.wasted,
        lost_tries=sum(attempt.outcome in _LOST for job in jobs for shown in job.tasks for attempt in shown.tries),
        crashes=world.machines.crashes,
        events=world.trace.events,
        simulated_s=simulated_s,
        real_s=real_s,
        cpu_s=cpu_s,
    )


def as_json(result: Result) -> dict[str, object]:
    """All of a result, as plain values."""
    plain: dict[str, object] = msgspec.to_builtins(result)
    figures = result.figures
    plain["figures"] = {
        **msgspec.to_builtins(figures),
        "events_per_s": figures.events_per_s,
        "acceleration": figures.acceleration,
    }
    return plain


def as_text(result: Result) -> str:
    """A result for people."""
    figures, options = result.figures, result.options
    faults = ", ".join(f"{kind} {count}" for kind, count in result.faults.items()) or "none"
    return "\n".join(
        (
            f"options     {_set_options(options)}",
            f"faults      {faults}",
            f"jobs        {figures.jobs_done} of {figures.jobs_accepted} done, "
            f"{figures.jobs_orphaned} lost too many holders, {figures.shards_done} shards",
            f"records     {figures.takeovers} takeovers, {figures.reconfigurations} changes of holders",
            f"time        makespan {figures.makespan_s:.2f} s, {figures.job_s:.2f} s a job",
            f"traffic     {figures.messages} messages, {figures.messages_per_peer_s:.2f} a peer and second, "
            f"about {figures.bytes_per_peer_s:.0f} B/s",
            f"auctions    {figures.bids_per_auction:.1f} bids each, {figures.lost_tries} tries lost",
            f"executions  {figures.runs} to their end, {figures.wasted_runs} of them again",
            f"simulation  {figures.events} events, {figures.simulated_s:.1f} s simulated in {figures.cpu_s:.1f} s "
            f"of one core ({figures.real_s:.1f} s passed): {figures.events_per_s:.0f} events/s, "
            f"{figures.acceleration:.1f} times as fast as real time",
            f"trace       {result.trace_hash}",
            f"verdict     {'passed' if result.passed else 'FAILED: ' + result.problem}",
        )
    )


def _set_options(options: Options) -> str:
    """The options that are not the default, with the limits and faults left to their own lines."""
    plain = msgspec.structs.asdict(options)
    defaults = {field.name: field.default for field in msgspec.structs.fields(options)}
    shown = {
        name: value for name, value in plain.items() if name not in ("limits", "faults") and value != defaults[name]
    }
    return " ".join(f"{name}={value}" for name, value in shown.items())
