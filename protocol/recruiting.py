"""Finding workers for a job: rounds of an auction, each asking more widely, until its tasks are taken.

Bids stay good for a while, so that a job's split, shards and merge need one auction, and a peer that bids late is
simply one more candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protocol import auction
from protocol.candidate import Candidate, Experience
from protocol.clock import after_ms
from protocol.context import Context
from protocol.dissemination import Dissemination
from protocol.errors import RemoteProtocolError
from protocol.fitness import lacks, too_dear
from protocol.identity import PeerId
from protocol.job import Job
from protocol.messages import Bid, Refusal
from protocol.records import Announcement, Capability
from protocol.views import Views
from protocol.wire import Needs, Role


class Recruiting:
    """Announces the jobs of one steward and collects who would work on them; ``assign`` makes use of it."""

    def __init__(
        self,
        context: Context,
        views: Views,
        dissemination: Dissemination,
        jobs: Mapping[bytes, Job],
        experience: Experience,
        assign: Callable[[Job], None],
    ) -> None:
        self._context = context
        self._views = views
        self._dissemination = dissemination
        self._jobs = jobs
        self._experience = experience
        self._assign = assign
        views.on_learned.append(self._on_learned)

    def announce(self, job: Job) -> None:
        """The next round of the job's auction: for each task that waits a bid, but some to choose from."""
        context, limits = self._context, self._context.limits
        if job.announcement is not None and job.new_bidders * 2 < job.wanted:
            job.round += 1  # those who were reached are too few
            while job.candidates and self._dissemination.step_of_round(job.round) > 1:
                job.round += 1  # only what nobody at all has bid for goes far
        known = self._views.known()
        fitting = [one.record.peer for one in known if lacks(one.record, job.plan.stage.needs, one.record.peer) is None]
        everybody = self._everybody_answers()
        wanted = max(limits.bids_wanted, len(job.plan.ready())) << self._dissemination.step_of_round(job.round)
        wanted = min(wanted, limits.bids_per_auction_max)
        if everybody:  # all known peers, so that each can say why not
            direct = [opened.record.peer for opened in known]
        else:
            direct = self._rather_near(job, context.rng.sample(fitting, min(len(fitting), 2 * wanted)), fitting)
        announcement = context.sign(self._announcement(job, everybody, len(direct), wanted))
        job.announcement = announcement
        job.announced[announcement.digest] = announcement.record
        while len(job.announced) > limits.rounds_remembered:
            del job.announced[next(iter(job.announced))]
        job.bidding_open = True
        job.wanted, job.new_bidders = wanted, 0
        job.asked = {*direct, context.me}
        job.answered = set()
        self._dissemination.announce(announcement, direct)
        if job.window is not None:
            job.window.cancel()
        job.window = context.after(limits.bid_window_ms, lambda: self._close_bidding(job))
        self._plan_next_round(job)

    def _rather_near(self, job: Job, drawn: list[PeerId], fitting: list[PeerId]) -> list[PeerId]:
        """Who has the inputs is asked in any case, if the job wants to be near them."""
        if not job.plan.stage.needs.placement.near_input:
            return drawn
        return list(dict.fromkeys([*(peer for peer in fitting if peer in job.holders), *drawn]))

    def _announcement(self, job: Job, everybody: bool, asked: int, wanted: int) -> Announcement:
        context, limits = self._context, self._context.limits
        record, stage, ready = job.record, job.plan.stage, job.plan.ready()
        bidders, refusers = auction.CERTAIN, auction.CERTAIN
        if not everybody:
            reach = self._reach(self._dissemination.hops_of_round(job.round))
            fitting = self._fitting_among(reach, stage.needs)
            everywhere = self._fitting_among(self._views.mesh_size(), stage.needs)
            bidders = auction.threshold(wanted, max(asked, min(asked + fitting, everywhere)))
            refusers = auction.threshold(limits.refusals_wanted, max(asked, reach))
        return Announcement(
            job=job.digest,
            stage=0,
            round=job.round,
            steward=context.me,
            ballot=job.ballot,
            needs=stage.needs,
            tasks=max(len(ready), 1),
            task_timeout_ms=job.plan.timeout_ms(ready[0].task.role if ready else Role.SHARD),
            inputs=tuple(link.cid for link in sorted(record.blobs, key=lambda link: -link.size)[:2]),
            submitter=record.submitter,
            model=stage.model,
            priority=record.priority,
            bid_threshold=bidders,
            refusal_threshold=refusers,
            issued_at=context.wall,
            not_after=context.wall + limits.announcement_lifetime_ms,
        )

    def _reach(self, hops: int) -> int:
        """How many peers a query over ``hops`` reaches: a tree of this mesh's degree, at most all of it."""
        degree = max(len(self._views.active), 2)
        reached = sum(degree * int((degree - 1) ** hop) for hop in range(min(hops + 1, 16))) if hops else 0
        return min(reached, self._views.mesh_size())

    def _fitting_among(self, peers: int, needs: Needs) -> int:
        """How many of ``peers`` fit, if they are as those this peer knows."""
        known = self._views.known()
        fitting = sum(lacks(one.record, needs, one.record.peer) is None for one in known)
        return peers * (fitting + 1) // (len(known) + 1)

    def _plan_next_round(self, job: Job) -> None:
        limits = self._context.limits
        job.pause_ms = min(max(2 * job.pause_ms, limits.reannounce_first_ms), limits.reannounce_max_ms)
        if job.next_round is not None:
            job.next_round.cancel()
        job.next_round = self._context.after_jittered(job.pause_ms, lambda: self._announce_if_waiting(job))

    def _announce_if_waiting(self, job: Job) -> None:
        """Tasks that nobody has taken are announced again: to peers that came late, or were busy."""
        if not job.left and self._is_short(job):
            self.announce(job)
        elif not job.left:
            job.pause_ms = 0
            self._plan_next_round(job)

    def _is_short(self, job: Job) -> bool:
        """Whether there are fewer bidders than tasks that wait; else these wait for one to be free, not to be found."""
        return sum(one.paused_until <= self._context.now for one in job.candidates.values()) < len(job.plan.ready())

    def _everybody_answers(self) -> bool:
        return self._views.mesh_size() <= self._context.limits.everybody_answers_up_to

    def _close_bidding(self, job: Job) -> None:
        if job.left:
            return
        job.bidding_open = False
        if job.window is not None:
            job.window.cancel()
        self._assign(job)

    def _on_learned(self, capability: Capability) -> None:
        """A peer that is new, or new in what it can do, hears at once of what waits for somebody like it."""
        everybody = self._everybody_answers()
        for job in sorted(self._jobs.values(), key=lambda job: -job.record.priority):
            announcement = job.announcement
            if announcement is None or not self._is_short(job):
                continue
            if not everybody and lacks(capability, job.plan.stage.needs, capability.peer) is not None:
                continue
            if announcement.record.not_after > self._context.wall:
                self._dissemination.send_to(capability.peer, announcement)

    def on_bid(self, sender: PeerId, bid: Bid) -> None:
        job = self._answered_job(sender, bid, "bid")
        if job is None:
            return
        limits, now, needs = self._context.limits, self._context.now, job.plan.stage.needs
        machine = self._context.open(bid.capability, Capability).record
        if machine.peer != sender:
            raise RemoteProtocolError("a bid with another peer's record")
        flaw = self._outdated(bid) or lacks(machine, needs, sender) or too_dear(bid.price, needs)
        if flaw is not None:
            self._refused(job, sender, flaw)
            return
        job.refusals.pop(sender, None)
        candidate = job.candidates.get(sender)
        if candidate is None and len(job.candidates) < limits.bids_per_auction_max:
            candidate = job.candidates[sender] = Candidate(sender, bid, now)
            job.new_bidders += 1
        if candidate is not None:
            candidate.bid, candidate.heard_at = bid, now
            candidate.expected_ms = self._experience.corrected(sender, bid.task_ms)
            candidate.labels = machine.labels
        self._answered(job, sender)

    def _outdated(self, bid: Bid) -> str | None:
        """Why its bidder's record is not to be believed. With a wrong clock it may not know, and stays gone for us."""
        try:
            self._views.open(bid.capability)
        except RemoteProtocolError as error:
            return f"a record {error}"
        return None

    def on_refusal(self, sender: PeerId, refusal: Refusal) -> None:
        job = self._answered_job(sender, refusal, "refusal")
        if job is None:
            return
        self._refused(job, sender, refusal.reason)

    def _refused(self, job: Job, sender: PeerId, reason: str) -> None:
        if sender in job.refusals or len(job.refusals) < self._context.limits.refusals_kept_max:
            job.refusals[sender] = reason
        self._answered(job, sender)

    def _answered_job(self, sender: PeerId, answer: Bid | Refusal, purpose: str) -> Job | None:
        """The running job that an answer is about; RemoteProtocolError if its sender was not drawn."""
        job = self._jobs.get(answer.job)
        if job is None or answer.stage != 0:
            return None
        announcement = job.announced.get(answer.announcement)
        if announcement is None:
            return None
        limit = announcement.bid_threshold if purpose == "bid" else announcement.refusal_threshold
        if isinstance(answer, Bid) and answer.has_inputs and announcement.needs.placement.near_input:
            return job
        if not auction.is_drawn(answer.announcement, sender, purpose, limit):
            raise RemoteProtocolError(f"a {purpose} of a peer that was not drawn")
        return job

    def _answered(self, job: Job, sender: PeerId) -> None:
        if sender in job.asked:
            job.answered.add(sender)
        if not job.bidding_open:
            self._assign(job)
        elif job.asked <= job.answered:
            self._close_bidding(job)

    def forget_silent(self, job: Job) -> None:
        """Drop candidates unheard of for the lifetime of a bid, unless they are at work."""
        limits, now, held = self._context.limits, self._context.now, job.held()
        for peer, candidate in list(job.candidates.items()):
            if after_ms(candidate.heard_at, limits.bid_lifetime_ms) <= now and peer not in held:
                del job.candidates[peer]

    # -- why nothing runs

    def refusals_of(self, job: Job) -> dict[PeerId, str]:
        """What peers said, and this steward's own judgement of those that have not answered."""
        refusals = dict(job.refusals)
        for opened in self._views.known():
            peer = opened.record.peer
            if peer not in refusals and peer not in job.candidates:
                reason = lacks(opened.record, job.plan.stage.needs, peer)
                if reason is not None:
                    refusals[peer] = f"{reason} (by its record)"
        return refusals
