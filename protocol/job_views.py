"""A job as others are shown it: a summary in one message, and its tasks in as many frames as it takes."""

from __future__ import annotations

from protocol.context import clipped
from protocol.decrees import FinalBody
from protocol.identity import PeerId
from protocol.job import Job
from protocol.limits import DETAILS_BYTES_MAX, REASON_CHARS_SHOWN_MAX, RECEIPTS_PER_MESSAGE_MAX, TRIES_SHOWN_MAX
from protocol.messages import JobView, RefusalView, TaskView
from protocol.plan import TaskState, TaskStatus
from protocol.signing import Signed
from protocol.wire import Role


def _merge_status(job: Job) -> str:
    if not job.plan.stage.merge or job.plan.stage.merge == "none":
        return "none"
    merge = job.plan.merge
    if job.body is not None:
        merged = any(entry.task.role is Role.MERGE and entry.receipt is not None for entry in job.body.entries)
        return "success" if merged else "failed"
    if merge is not None and merge.status is TaskStatus.DONE:
        return "success"
    return "pending"


def summary_of(job: Job, refusals: dict[PeerId, str], limit: int) -> JobView:
    """The job in one message. ``refusals`` are peers' reasons; at most ``limit`` are shown.

    Of one that has ended it says what its holders decided, and nothing else.
    """
    plan, record, body = job.plan, job.record, job.body
    if body is not None:
        return _ended(job, body)
    waiting = _waiting(job, refusals)
    wish, final = job.wish, plan.final
    provisional = wish.status if wish is not None else "success" if final is not None else ""
    return JobView(
        job=job.digest,
        alias=record.alias,
        submitter=record.submitter,
        steward=job.ballot.peer,
        model=plan.stage.model,
        status=job.status,
        merge_status=_merge_status(job),
        total_shards=plan.shards_known,
        succeeded=plan.count(TaskStatus.DONE),
        failed=plan.count(TaskStatus.FAILED),
        running=plan.count(TaskStatus.AWARDED),
        issued_at=record.issued_at,
        waiting=waiting,
        refusals=tuple(
            RefusalView(peer=peer, reason=clipped(reason, REASON_CHARS_SHOWN_MAX))
            for peer, reason in list(refusals.items())[:limit]
        )
        if waiting
        else (),
        provisional=provisional,
        provisional_output=final.output if final is not None and provisional == "success" else None,
        keepers=tuple(final.keepers)[:8] if final is not None else (),
    )


def _ended(job: Job, body: FinalBody) -> JobView:
    record = job.record
    return JobView(
        job=job.digest,
        alias=record.alias,
        submitter=record.submitter,
        steward=job.kept.chain.certificates[-1].ballot.peer,
        model=job.plan.stage.model,
        status=body.status,
        merge_status=_merge_status(job),
        total_shards=body.total_shards,
        succeeded=body.succeeded,
        failed=body.failed,
        running=0,
        output=body.output,
        error=body.error,
        issued_at=record.issued_at,
        completed_at=body.completed_at,
        keepers=tuple(dict.fromkeys([*body.keepers, *job.kept.chain.current.peers]))[:8],
    )


def _waiting(job: Job, refusals: dict[PeerId, str]) -> str:
    if job.status.ended or job.given or not job.plan.ready():
        return ""
    if job.candidates:
        return "waiting for a peer that has bid to take the next task"
    if refusals:
        return f"no peer can run it: {len(refusals)} of {len(refusals)} peers heard from refuse"
    return "waiting for bids"


def details_of(job: Job, start: int) -> tuple[tuple[TaskView, ...], tuple[Signed, ...], int]:
    """Tasks from ``start`` on, the awards that their receipts name, and where to go on (0: these are the last).

    As many as fit ``DETAILS_BYTES_MAX``, at least one.
    """
    states = job.plan.tasks()
    views: list[TaskView] = []
    awards: dict[bytes, Signed] = {}
    size = 0
    for state in states[start : start + RECEIPTS_PER_MESSAGE_MAX]:
        pin = state.pin if state.status is TaskStatus.DONE else None
        view = TaskView(
            task=state.task,
            status=_status_of(job, state),
            tries=tuple(one.view() for one in state.tries[-TRIES_SHOWN_MAX:]),
            receipt=pin.signed if pin is not None else None,
        )
        size += weight_of(view)
        if pin is not None and pin.record.award not in awards:
            award = job.kept.facts.awards[pin.record.award].signed
            size += len(award.payload)
            if size <= DETAILS_BYTES_MAX or not views:
                awards[award.digest] = award
        if size > DETAILS_BYTES_MAX and views:
            break
        views.append(view)
    following = start + len(views)
    return tuple(views), tuple(awards.values()), following if following < len(states) else 0


def weight_of(view: TaskView) -> int:
    """About the bytes of a task in a message, never less: a page of tasks is asked for often, and long to encode."""
    size = 80
    for one in view.tries:
        size += 112 + len(one.worker) + len(one.reason.encode()) + len(one.why.encode())
    return size + (len(view.receipt.payload) + 100 if view.receipt is not None else 0)


def _status_of(job: Job, state: TaskState) -> str:
    match state.status:
        case TaskStatus.AWARDED:
            return "running"
        case TaskStatus.DONE | TaskStatus.FAILED:
            return state.status
        case _:
            return "cancelled" if job.status.ended else "queued"
