"""From a signed spec to "accepted": its record at a majority of its holders, its blobs on two peers that signed for
them, its pointers placed.

The same bytes handed in again, to whichever peer, are the same job: they are passed on to the holders that the spec
names, first to the steward, and whoever of them looks after the job answers as the first one did. A holder that is
asked because the steward is gone takes the job in itself, under a ballot of its own.
"""

from __future__ import annotations

from functools import partial

import msgspec

from protocol.clock import Instant, after_ms
from protocol.clock_check import ClockCheck
from protocol.context import Context, clipped
from protocol.decrees import majority
from protocol.effects import FetchBlobs, Proposal, Reply
from protocol.errors import RemoteProtocolError
from protocol.events import JobSubmitted, ProposalAsked
from protocol.facts import Accepted
from protocol.holding import promise_to_keep
from protocol.identity import PeerId
from protocol.job_record import JobRecord
from protocol.lead import Lead
from protocol.leadership import Leadership
from protocol.membership import Membership
from protocol.messages import Create, Created, HoldAnswer, HoldRequest, PointerStored, Submit, SubmitReply
from protocol.pointers import Placement, Pointers
from protocol.record_keeper import RecordKeeper
from protocol.records import MERGES, SPLITS, Held, JobPointer, JobSpec
from protocol.signing import Opened
from protocol.steward import Steward
from protocol.timers import Timer
from protocol.views import Views
from protocol.wire import Holder

Asker = tuple[PeerId, int]
"""Who wants to know: another peer and its number, or this peer and a client's request."""

_LATE = "no majority of the job's holders has its record, or its files took too long"


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
        #: Holders that have the record, and those that will not have it.
        self.created: dict[PeerId, None] = {}
        self.refused: dict[PeerId, str] = {}
        self.placement: Placement | None = None
        #: Whether as many keep its pointers as can.
        self.placed = False
        self.notes: list[str] = []


class HandOn:
    """A submission of a client on its way to the job's holders, one after the other."""

    def __init__(self, request: int, spec: Opened[JobSpec], message: Submit, ends_at: Instant) -> None:
        self.request = request
        self.spec = spec
        self.message = message
        self.ends_at = ends_at
        self.tried = 0
        self.steward: PeerId | None = None
        self.timer: Timer | None = None


class Intake:
    """Takes jobs in, for this peer as their steward."""

    def __init__(
        self,
        context: Context,
        views: Views,
        membership: Membership,
        clocks: ClockCheck,
        pointers: Pointers,
        keeper: RecordKeeper,
        leadership: Leadership,
        steward: Steward,
    ) -> None:
        self._context = context
        self._views = views
        self._membership = membership
        self._clocks = clocks
        self._pointers = pointers
        self._keeper = keeper
        self._leadership = leadership
        self._steward = steward
        self._submissions: dict[bytes, Submission] = {}
        self._fetches: dict[int, Submission] = {}
        self._handed_on: dict[int, HandOn] = {}
        views.on_gone.append(self._on_gone)

    @property
    def submission_count(self) -> int:
        return len(self._submissions)

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
        if self._is_mine(spec):
            self._take_in(asker, spec, event.sources)
        else:
            self._hand_on(event, spec)

    def _is_mine(self, spec: Opened[JobSpec]) -> bool:
        """Whether this peer is the one to answer: it knows the answer, leads the job, or is to be its first steward."""
        record = self._keeper.find(spec.digest)
        if record is None:
            return spec.record.steward == self._context.me
        known = record.final is not None or record.facts.accepted is not None
        return known or self._leadership.find(spec.digest) is not None

    def _hand_on(self, event: JobSubmitted, spec: Opened[JobSpec]) -> None:
        sources = tuple(dict.fromkeys([self._context.me, *event.sources]))
        records = [self._membership.own, *(self._views.record_of(peer) for peer in event.sources)]
        number = self._context.new_id()
        message = Submit(
            number=number,
            spec=event.spec,
            sources=sources,
            records=tuple(opened.signed for opened in records if opened is not None),
        )
        ends_at = after_ms(self._context.now, self._context.limits.accept_timeout_ms)
        if len(self._handed_on) >= self._context.limits.submissions_max:
            self._answer([(self._context.me, event.request)], _refusal("busy taking in other jobs: try again soon"))
            return
        self._handed_on[number] = HandOn(event.request, spec, message, ends_at)
        self._try_next(number)

    def _try_next(self, number: int) -> None:
        """The steward that the spec names, then its other holders, and round again until time is up."""
        handed = self._handed_on.get(number)
        if handed is None:
            return
        record = handed.spec.record
        if self._is_mine(handed.spec):
            del self._handed_on[number]
            self._take_in((self._context.me, handed.request), handed.spec, handed.message.sources)
            return
        holders = dict.fromkeys([record.steward, *(one.peer for one in record.holders)])
        others = [peer for peer in holders if peer != self._context.me]
        if not others or self._context.now >= handed.ends_at:
            reason = "not accepted: no majority of the job's holders answers; the same job can be handed in again"
            self._handed_over(number, _refusal(reason))
            return
        handed.steward = others[handed.tried % len(others)]
        handed.tried += 1
        handed.timer = self._context.after(self._context.limits.hand_on_ms, lambda: self._try_next(number))
        self._context.send(handed.steward, handed.message)

    def _try_soon(self, number: int) -> None:
        handed = self._handed_on[number]
        assert handed.timer is not None
        handed.timer.cancel()
        pause_ms = self._context.limits.renew_interval_ms
        handed.timer = self._context.after(pause_ms, lambda: self._try_next(number))

    def on_submit(self, sender: PeerId, message: Submit) -> None:
        spec = self._context.open(message.spec, JobSpec)
        self._membership.learn_all(message.records, sender)
        self._take_in((sender, message.number), spec, message.sources)

    def on_submit_reply(self, sender: PeerId, message: SubmitReply) -> None:
        handed = self._handed_on.get(message.number)
        if handed is None or handed.steward != sender:
            return
        if message.again:
            self._try_soon(message.number)
        else:
            self._handed_over(message.number, message)

    def on_peer_lost(self, peer: PeerId) -> None:
        for number in [number for number, handed in self._handed_on.items() if handed.steward == peer]:
            self._try_soon(number)

    def _handed_over(self, number: int, reply: SubmitReply) -> None:
        handed = self._handed_on.pop(number)
        if handed.timer is not None:
            handed.timer.cancel()
        self._context.emit(Reply(handed.request, reply))

    # -- taking in

    def _take_in(self, asker: Asker, spec: Opened[JobSpec], sources: tuple[PeerId, ...]) -> None:
        record = self._keeper.find(spec.digest)
        if record is not None and (record.final is not None or record.facts.accepted is not None):
            self._answer([asker], _reply_of(record))
            return
        submission = self._submissions.get(spec.digest)
        if submission is None:
            if record is not None and self._leadership.find(spec.digest) is None:
                reply = _refusal("another holder takes the job in: try again soon")
                self._answer([asker], msgspec.structs.replace(reply, again=True))
                return
            reason = self._refuses(spec, is_known=record is not None)
            if reason is not None:
                self._answer([asker], _refusal(reason))
                return
            submission = self._begin(spec, sources)
        if asker not in submission.askers and len(submission.askers) < self._context.limits.askers_max:
            submission.askers.append(asker)

    def _refuses(self, spec: Opened[JobSpec], *, is_known: bool) -> str | None:
        """Why this peer does not look after a job, in one sentence."""
        context, record = self._context, spec.record
        limits, stage = context.limits, record.stages[0]
        mine = next((holder for holder in record.holders if holder.peer == context.me), None)
        if mine is None or mine.store != context.profile.store:
            return "the spec names holders that are not this node's store"
        reason = None if is_known else self._keeper.refuses(spec)
        if reason is not None:
            return reason
        if len(record.stages) > 1:
            return "job graphs of several stages are not supported by this version"
        if not (_is_known(stage.split, SPLITS) and _is_known(stage.merge, MERGES)):
            return f"split {stage.split!r} with merge {stage.merge!r} is not supported by this version"
        if stage.split and not stage.merge:
            return "a split needs a merge"
        if any(one.timeout_ms > record.not_after - record.issued_at for one in record.stages):
            return "a stage's timeout is longer than the job is kept"
        if len(self._submissions) >= limits.submissions_max:
            return "busy taking in other jobs: try again soon"
        return self._steward.full()

    def _begin(self, spec: Opened[JobSpec], sources: tuple[PeerId, ...]) -> Submission:
        context = self._context
        timer = context.after(context.limits.accept_timeout_ms, lambda: self._give_up(spec.digest, _LATE))
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
        self._record(submission)
        record = submission.spec.record
        others = [holder.peer for holder in record.holders if holder.peer != self._context.me]
        for peer in others:
            self._context.send(peer, Create(spec=submission.spec.signed))
        others += [one.record.peer for one in self._views.known() if one.record.peer not in others]
        submission.candidates = [peer for peer in others if peer in self._views]
        if sum(link.size for link in record.blobs) > self._context.limits.copy_bytes_max:
            submission.notes.append(
                "the files are too large to be copied before acceptance: this node has the only copy"
            )
            submission.candidates = []
        self._seek_copies(submission)
        pause_ms = self._context.limits.intake_retry_ms
        self._context.after(pause_ms, partial(self._ask_again, submission, pause_ms))
        return True

    def _record(self, submission: Submission) -> None:
        """This peer's own record, and that it keeps the files; its steward asks the others next."""
        spec, context = submission.spec, self._context
        record = self._keeper.find(spec.digest)
        if record is None:
            record = self._keeper.create(spec)
            if spec.record.steward == context.me:
                self._leadership.begin(record)
        if self._leadership.find(spec.digest) is None:
            self._leadership.campaign(record)
        submission.held[context.me] = None
        submission.created[context.me] = None
        lead = self._leadership.find(spec.digest)
        if lead is not None:
            self._steward.note_kept(lead, promise_to_keep(context, spec))

    def on_created(self, sender: PeerId, message: Created) -> None:
        submission = self._submissions.get(message.job)
        if submission is None:
            return
        holders = {holder.peer: holder.store for holder in submission.spec.record.holders}
        if not message.reason and holders.get(sender) == message.store:
            submission.created[sender] = None
            self._accept_if_safe(submission)
        elif sender in holders and sender not in submission.created:
            submission.refused[sender] = message.reason or "it has another disk than the one that the spec names"
            if len(holders) - len(submission.refused) < majority(len(holders)):
                self._give_up(message.job, f"a holder refuses its record: {submission.refused[sender]}")

    def _seek_copies(self, submission: Submission) -> None:
        """Ask for as many further copies as are still missing; with none to be had, say so and go on."""
        wanted = 1 + submission.spec.record.durability
        while len(submission.held) + len(submission.asked) < wanted and submission.candidates:
            peer = submission.candidates.pop(0)
            submission.asked[peer] = None
            self._ask_to_hold(submission, peer)
            self._context.after(self._context.limits.hold_timeout_ms, partial(self._unheard, submission, peer))
        if not submission.asked and submission.placement is None:
            if len(submission.held) < wanted and not submission.notes:
                copies = len(submission.held)
                submission.notes.append(f"{copies} of {wanted} copies of the files could be made")
            self._place_pointers(submission)

    def _ask_to_hold(self, submission: Submission, peer: PeerId) -> None:
        records = (self._membership.own.signed,)
        self._context.send(peer, HoldRequest(spec=submission.spec.signed, sources=(self._context.me,), records=records))

    def _ask_again(self, submission: Submission, pause_ms: int) -> None:
        """Whoever has not answered, less and less often: the question or the answer may be lost."""
        if self._submissions.get(submission.spec.digest) is not submission:
            return
        for holder in submission.spec.record.holders:
            if holder.peer not in submission.created and holder.peer not in submission.refused:
                self._context.send(holder.peer, Create(spec=submission.spec.signed))
        for peer in submission.asked:
            self._ask_to_hold(submission, peer)
        longer_ms = min(2 * pause_ms, self._context.limits.hold_timeout_ms)
        self._context.after(longer_ms, partial(self._ask_again, submission, longer_ms))

    def on_hold_answer(self, sender: PeerId, message: HoldAnswer) -> bool:
        """False if it was not this role that asked."""
        submission = self._submissions.get(message.job)
        if submission is None or sender not in submission.asked:
            return False
        if message.held is not None:
            held = self._context.open(message.held, Held).record
            if held.job != message.job or held.peer != sender:
                raise RemoteProtocolError("a promise that is not the sender's, or not for this job")
            submission.held[sender] = None
            lead = self._leadership.find(message.job)
            if lead is not None:
                self._steward.note_kept(lead, message.held)
        del submission.asked[sender]
        self._seek_copies(submission)
        return True

    def _unheard(self, submission: Submission, peer: PeerId) -> None:
        """A peer that was asked to keep a copy is gone, or takes too long: the next one is asked."""
        if submission.asked.pop(peer, self) is None and submission.spec.digest in self._submissions:
            self._seek_copies(submission)

    def _on_gone(self, peer: PeerId) -> None:
        for submission in list(self._submissions.values()):
            self._unheard(submission, peer)

    def _place_pointers(self, submission: Submission) -> None:
        submission.placement = self.place_pointer(submission.spec, submission.spec.record.holders)
        if not self._views:
            self._placed(submission)
        else:
            self._context.after(self._context.limits.lookup_timeout_ms, lambda: self._placed(submission))

    def place_pointer(self, spec: Opened[JobSpec], holders: tuple[Holder, ...]) -> Placement:
        """Have it known that this peer looks after a job."""
        pointer = JobPointer(
            job=spec.digest,
            submitter=spec.record.submitter,
            alias=spec.record.alias,
            holders=holders,
            steward=self._context.me,
            issued_at=self._context.wall,
            not_after=spec.record.not_after,
        )
        return self._pointers.place(self._context.sign(pointer))

    def on_pointer_stored(self, message: PointerStored) -> None:
        for submission in list(self._submissions.values()):
            placement = submission.placement
            if placement is None or placement.pointer.digest != message.pointer:
                continue
            if len(placement.confirmed) >= min(2, len(self._views)):
                self._placed(submission)

    def _placed(self, submission: Submission) -> None:
        submission.placed = True
        self._accept_if_safe(submission)

    def on_elected(self, lead: Lead) -> None:
        """This peer may look after a job that it is taking in."""
        submission = self._submissions.get(lead.record.job)
        if submission is not None:
            self._accept_if_safe(submission)

    def _accept_if_safe(self, submission: Submission) -> None:
        """ "Accepted" is said once a majority of the holders has the record, and nothing more is waited for."""
        spec = submission.spec
        lead = self._leadership.find(spec.digest)
        if spec.digest not in self._submissions or not submission.placed or lead is None or not lead.elected:
            return
        if len(submission.created) < majority(len(spec.record.holders)):
            return
        del self._submissions[spec.digest]
        submission.timer.cancel()
        placement = submission.placement
        accepted = Accepted(
            copies=len(submission.held),
            pointers=1 + (len(placement.confirmed) if placement is not None else 0),
            notes=tuple(clipped(note) for note in submission.notes),
        )
        self._steward.note_accepted(lead, accepted)
        if not lead.acting:
            lead.acting = True
            self._steward.take_up(lead)
        self._answer(submission.askers, _reply_of(lead.record))

    def _give_up(self, job: bytes, reason: str) -> None:
        submission = self._submissions.pop(job, None)
        if submission is None:
            return
        submission.timer.cancel()
        lead = self._leadership.find(job)
        if lead is not None and not lead.acting and len(submission.created) < 2:
            self._leadership.abandon(lead)
        elif lead is not None and not lead.acting:
            lead.acting = True  # others have the record, and would look after it
            self._steward.take_up(lead)
        self._answer(submission.askers, _refusal(f"not accepted: {reason}"))

    def _answer(self, askers: list[Asker], reply: SubmitReply) -> None:
        for peer, number in askers:
            if peer == self._context.me:
                self._context.emit(Reply(number, reply))
            else:
                self._context.send(peer, msgspec.structs.replace(reply, number=number))


def _reply_of(record: JobRecord) -> SubmitReply:
    """What is answered whenever an accepted job is handed in."""
    accepted = record.facts.accepted or Accepted(copies=len(record.facts.held))
    return SubmitReply(
        number=0, accepted=True, copies=accepted.copies, pointers=accepted.pointers, notes=accepted.notes
    )


def _refusal(reason: str) -> SubmitReply:
    return SubmitReply(number=0, accepted=False, reason=clipped(reason))


def _is_known(name: str, built_in: tuple[str, ...]) -> bool:
    """Whether it is none, built in, or a plug-in: its name has a dot, and the job is placed by its label."""
    return name in ("", *built_in) or "." in name
