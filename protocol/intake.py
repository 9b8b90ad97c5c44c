"""From a signed spec to "accepted": checked, its blobs on two peers that signed for them, its pointers placed.

The same bytes handed in again, to whichever peer, are the same job: a peer that is not the steward named in the spec
passes them on to it, and the steward answers as it did before.
"""

from __future__ import annotations

from functools import partial

import msgspec

from protocol.clock_check import ClockCheck
from protocol.context import Context, clipped
from protocol.effects import FetchBlobs, Proposal, Reply
from protocol.errors import RemoteProtocolError
from protocol.events import JobSubmitted, ProposalAsked
from protocol.identity import PeerId
from protocol.membership import Membership
from protocol.messages import HoldAnswer, HoldRequest, PointerStored, Submit, SubmitReply
from protocol.pointers import Placement, Pointers
from protocol.records import Held, JobPointer, JobSpec
from protocol.signing import Opened
from protocol.steward import Steward
from protocol.timers import Timer
from protocol.views import Views
from protocol.wire import Holder

Asker = tuple[PeerId, int]
"""Who wants to know: another peer and its number, or this peer and a client's request."""

SPLITS = ("", "tile", "batch", "range")
MERGES = ("", "concat-json", "none")


class Submission:
    """A job on its way to being accepted."""

    def __init__(self, spec: Opened[JobSpec], sources: tuple[PeerId, ...], timer: Timer) -> None:
        self.spec = spec
        self.sources = sources
        self.timer = timer
        self.askers: list[Asker] = []
        #: Peers that could keep a copy and have not been asked yet, best first.
        self.candidates: list[PeerId] = []
        self.asked: dict[PeerId, None] = {}
        self.held: dict[PeerId, None] = {}
        self.placement: Placement | None = None
        self.notes: list[str] = []


class Intake:
    """Takes jobs in, for this peer as their steward."""

    def __init__(
        self,
        context: Context,
        views: Views,
        membership: Membership,
        clocks: ClockCheck,
        pointers: Pointers,
        steward: Steward,
    ) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._clocks = clocks
        self._pointers = pointers
        self._steward = steward
        self._submissions: dict[bytes, Submission] = {}
        self._fetches: dict[int, Submission] = {}
        self._answers: dict[bytes, SubmitReply] = {}
        self._forwarded: dict[int, tuple[int, PeerId, Timer]] = {}
        views.on_gone.append(self._on_gone)

    @property
    def submission_count(self) -> int:
        return len(self._submissions)

    def restore(self, job: bytes, accepted: SubmitReply) -> None:
        """What was accepted before a restart is answered as it was then."""
        self._answers[job] = accepted

    # -- what a client asks first

    def propose(self, event: ProposalAsked) -> None:
        """This peer as steward, and two witnesses if the mesh has them: one, three or five holders, never two."""
        wanted = 2 if event.durability == 1 else 4
        known = list(self._views.known())
        self._context.rng.shuffle(known)
        known.sort(key=lambda opened: not self._views.is_active(opened.record.peer))
        witnesses = known[: wanted if len(known) >= wanted else 2 if len(known) >= 2 else 0]
        me = Holder(peer=self._context.me, store=self._context.profile.store)
        holders = (me, *(Holder(peer=one.record.peer, store=one.record.store) for one in witnesses))
        notes = [] if witnesses else ["the mesh has fewer than three peers: the job's record has one holder only"]
        if reason := self._clocks.wrong():
            notes.append(reason)
        self._context.emit(
            Reply(
                event.request,
                Proposal(self._context.profile.mesh, self._context.me, holders, self._context.wall, tuple(notes)),
            )
        )

    # -- handing in

    def on_submitted(self, event: JobSubmitted) -> None:
        """A client's own hand-in; passed on if the spec names another steward."""
        asker = (self._context.me, event.request)
        try:
            spec = self._context.open(event.spec, JobSpec)
        except RemoteProtocolError as error:
            self._answer([asker], _refusal(f"not a job spec: {error}"))
            return
        if spec.record.steward == self._context.me:
            self._take_in(asker, spec, event.sources)
        else:
            self._forward(event, spec)

    def _forward(self, event: JobSubmitted, spec: Opened[JobSpec]) -> None:
        steward, number = spec.record.steward, self._context.new_id()
        timer = self._context.after(
            self._context.limits.accept_timeout_ms,
            lambda: self._forward_answered(number, steward, _refusal("the job's steward does not answer")),
        )
        self._forwarded[number] = (event.request, steward, timer)
        sources = tuple(dict.fromkeys([self._context.me, *event.sources]))
        records = [self._membership.own, *(self._views.record_of(peer) for peer in event.sources)]
        self._context.send(
            steward,
            Submit(
                number=number,
                spec=event.spec,
                sources=sources,
                records=tuple(opened.signed for opened in records if opened is not None),
            ),
        )

    def on_submit(self, sender: PeerId, message: Submit) -> None:
        spec = self._context.open(message.spec, JobSpec)
        self._membership.learn_all(message.records, sender)
        self._take_in((sender, message.number), spec, message.sources)

    def on_submit_reply(self, sender: PeerId, message: SubmitReply) -> None:
        self._forward_answered(message.number, sender, message)

    def _forward_answered(self, number: int, by: PeerId, reply: SubmitReply) -> None:
        request, steward, timer = self._forwarded.get(number, (0, None, None))
        if timer is not None and steward == by:
            del self._forwarded[number]
            timer.cancel()
            self._context.emit(Reply(request, reply))

    # -- taking in

    def _take_in(self, asker: Asker, spec: Opened[JobSpec], sources: tuple[PeerId, ...]) -> None:
        accepted = self._answers.get(spec.digest)
        if accepted is not None and self._steward.find(spec.digest) is not None:
            self._answer([asker], accepted)
            return
        submission = self._submissions.get(spec.digest)
        if submission is None:
            reason = self._refuses(spec.record)
            if reason is not None:
                self._answer([asker], _refusal(reason))
                return
            submission = self._begin(spec, sources)
        if asker not in submission.askers and len(submission.askers) < self._context.limits.askers_max:
            submission.askers.append(asker)

    def _refuses(self, record: JobSpec) -> str | None:
        """Why this peer does not look after a job, in one sentence."""
        context, wall = self._context, self._context.wall
        limits, stage = context.limits, record.stages[0]
        if record.steward != context.me:
            return "the spec names another steward"
        mine = next((holder for holder in record.holders if holder.peer == context.me), None)
        if mine is None or mine.store != context.profile.store:
            return "the spec names holders that are not this node's store"
        if record.mesh != context.profile.mesh:
            return f"the job is for mesh {record.mesh!r}, this is {context.profile.mesh!r}"
        if record.issued_at > wall + limits.clock_skew_ms:
            return f"the job is dated {(record.issued_at - wall) // 1000} s in the future: check the clocks"
        if record.not_after <= wall:
            return "the job has expired"
        if record.not_after > wall + limits.clock_skew_ms + 2 * limits.retention_ms:
            return f"the job would be kept for more than {2 * limits.retention_ms // 3_600_000} h"
        if len(record.stages) > 1:
            return "job graphs of several stages are not supported by this version"
        if stage.split not in SPLITS or stage.merge not in MERGES:
            return f"split {stage.split!r} with merge {stage.merge!r} is not supported by this version"
        if stage.split and not stage.merge:
            return "a split needs a merge"
        if any(one.timeout_ms > record.not_after - record.issued_at for one in record.stages):
            return "a stage's timeout is longer than the job is kept"
        if len(self._submissions) >= limits.submissions_max:
            return "busy taking in other jobs: try again soon"
        return (
            self._clocks.wrong()
            or context.profile.policy.refuses_job(record)
            or context.storage_low
            or self._steward.full()
        )

    def _begin(self, spec: Opened[JobSpec], sources: tuple[PeerId, ...]) -> Submission:
        context = self._context
        timer = context.after(context.limits.accept_timeout_ms, lambda: self._give_up(spec.digest, "took too long"))
        submission = Submission(spec, sources, timer)
        self._submissions[spec.digest] = submission
        number = context.new_id()
        self._fetches[number] = submission
        context.emit(FetchBlobs(number, spec.record.blobs, sources, spec.record.not_after))
        return submission

    def on_fetched(self, fetch: int, failure: str | None) -> bool:
        """This peer's own copy arrived, or cannot be had; False if the fetch was not this role's."""
        submission = self._fetches.pop(fetch, None)
        if submission is None:
            return False
        if failure is not None:
            self._give_up(submission.spec.digest, f"its files could not be fetched: {failure}")
            return True
        submission.held[self._context.me] = None
        record = submission.spec.record
        others = [holder.peer for holder in record.holders if holder.peer != self._context.me]
        others += [one.record.peer for one in self._views.known() if one.record.peer not in others]
        submission.candidates = [peer for peer in others if peer in self._views]
        if sum(link.size for link in record.blobs) > self._context.limits.copy_bytes_max:
            submission.notes.append(
                "the files are too large to be copied before acceptance: this node has the only copy"
            )
            submission.candidates = []
        self._seek_copies(submission)
        return True

    def _seek_copies(self, submission: Submission) -> None:
        """Ask for as many further copies as are still missing; with none to be had, say so and go on."""
        wanted = 1 + submission.spec.record.durability
        records = (self._membership.own.signed,)
        while len(submission.held) + len(submission.asked) < wanted and submission.candidates:
            peer = submission.candidates.pop(0)
            submission.asked[peer] = None
            request = HoldRequest(spec=submission.spec.signed, sources=(self._context.me,), records=records)
            self._context.send(peer, request)
            self._context.after(self._context.limits.hold_timeout_ms, partial(self._unheard, submission, peer))
        if not submission.asked and submission.placement is None:
            if len(submission.held) < wanted and not submission.notes:
                copies = len(submission.held)
                submission.notes.append(f"{copies} of {wanted} copies of the files could be made")
            self._place_pointers(submission)

    def on_hold_answer(self, sender: PeerId, message: HoldAnswer) -> None:
        submission = self._submissions.get(message.job)
        if submission is None or sender not in submission.asked:
            return
        if message.held is not None:
            held = self._context.open(message.held, Held).record
            if held.job != message.job or held.peer != sender:
                raise RemoteProtocolError("a promise that is not the sender's, or not for this job")
            submission.held[sender] = None
        del submission.asked[sender]
        self._seek_copies(submission)

    def _unheard(self, submission: Submission, peer: PeerId) -> None:
        """A peer that was asked to keep a copy is gone, or takes too long: the next one is asked."""
        if submission.asked.pop(peer, self) is None and submission.spec.digest in self._submissions:
            self._seek_copies(submission)

    def _on_gone(self, peer: PeerId) -> None:
        for submission in list(self._submissions.values()):
            self._unheard(submission, peer)

    def _place_pointers(self, submission: Submission) -> None:
        record = submission.spec.record
        pointer = self._context.sign(
            JobPointer(
                job=submission.spec.digest,
                submitter=record.submitter,
                alias=record.alias,
                holders=record.holders,
                steward=self._context.me,
                issued_at=self._context.wall,
                not_after=record.not_after,
            )
        )
        submission.placement = self._pointers.place(pointer)
        wanted = min(2, len(self._views))
        if wanted == 0:
            self._accept(submission)
        else:
            self._context.after(self._context.limits.lookup_timeout_ms, lambda: self._accept(submission))

    def on_pointer_stored(self, message: PointerStored) -> None:
        for submission in list(self._submissions.values()):
            placement = submission.placement
            if placement is None or placement.pointer.digest != message.pointer:
                continue
            if len(placement.confirmed) >= min(2, len(self._views)):
                self._accept(submission)

    def _accept(self, submission: Submission) -> None:
        if self._submissions.pop(submission.spec.digest, None) is None:
            return
        submission.timer.cancel()
        placement = submission.placement
        reply = SubmitReply(
            number=0,
            accepted=True,
            copies=len(submission.held),
            pointers=1 + (len(placement.confirmed) if placement is not None else 0),
            notes=tuple(clipped(note) for note in submission.notes),
        )
        self._answers[submission.spec.digest] = reply
        while len(self._answers) > self._context.limits.jobs_max:
            del self._answers[next(iter(self._answers))]
        self._steward.adopt(submission.spec, list(submission.held), reply)
        self._answer(submission.askers, reply)

    def _give_up(self, job: bytes, reason: str) -> None:
        submission = self._submissions.pop(job, None)
        if submission is not None:
            submission.timer.cancel()
            self._answer(submission.askers, _refusal(f"not accepted: {reason}"))

    def _answer(self, askers: list[Asker], reply: SubmitReply) -> None:
        for peer, number in askers:
            if peer == self._context.me:
                self._context.emit(Reply(number, reply))
            else:
                self._context.send(peer, msgspec.structs.replace(reply, number=number))


def _refusal(reason: str) -> SubmitReply:
    return SubmitReply(number=0, accepted=False, reason=clipped(reason))
