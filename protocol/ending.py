"""How a job ended: the body of its final decree, made from a plan, and checked by each holder before it votes.

The check looks at signed facts only, so that a steward that lies cannot end a job with what nobody computed.
"""

from __future__ import annotations

from protocol.batches import shards_in, task_count
from protocol.decrees import Entry, FinalBody
from protocol.identity import PeerId
from protocol.known_facts import KnownFacts
from protocol.plan import Plan, TaskStatus, flaw_in
from protocol.records import Award, JobSpec, Receipt
from protocol.signing import Opened
from protocol.wire import Output, Role, Task

ENDS = ("success", "failed", "cancelled")


def body_of(job: bytes, plan: Plan, status: str, error: str, *, me: PeerId, completed_at: int, clock: int) -> FinalBody:
    """The end of a job with this plan. Times are wall-clock milliseconds."""
    entries = []
    split_counts = plan.split is None or plan.split.status is TaskStatus.DONE
    for state in plan.tasks():
        if state.status is TaskStatus.DONE and (split_counts or state.task.role is Role.SPLIT):
            assert state.pin is not None
            entries.append(Entry(task=state.task, receipt=state.pin.digest))
        elif state.status is TaskStatus.FAILED:
            entries.append(Entry(task=state.task))
    final = plan.final if status == "success" else None
    keepers = sorted(final.keepers, key=lambda peer: peer != me) if final is not None else []
    return FinalBody(
        job=job,
        status=str(status),
        error=error,
        entries=tuple(entries),
        total_shards=plan.shards_known,
        succeeded=sum(shards_in(one.task, plan.shards_known) for one in entries if one.receipt is not None),
        failed=sum(shards_in(one.task, plan.shards_known) for one in entries if one.receipt is None),
        output=final.output if final is not None else None,
        keepers=tuple(keepers[:8]),
        completed_at=completed_at,
        clock=clock,
    )


def lacking(body: FinalBody, facts: KnownFacts) -> bool:
    """Whether facts that the body rests on are not known here: it can then not be checked."""
    if body.status == "cancelled" and not facts.cancelled:
        return True
    return any(entry.receipt is not None and entry.receipt not in facts.receipts for entry in body.entries)


def flaw_of(body: FinalBody, spec: Opened[JobSpec], facts: KnownFacts) -> str | None:
    """Why a job cannot have ended so; None if it can. Nothing is judged by a clock."""
    if body.job != spec.digest or body.status not in ENDS:
        return "of another job, or no end of one"
    if lacking(body, facts):
        return "it rests on receipts that are not known here"
    stage = spec.record.stages[0]
    counted: dict[Task, Opened[Receipt] | None] = {}
    for entry in body.entries:
        if entry.task in counted:
            return f"{entry.task.role} {entry.task.index} stands there twice"
        receipt = facts.receipts[entry.receipt] if entry.receipt is not None else None
        if receipt is not None and (receipt.record.task != entry.task or flaw_in(receipt.record, stage) is not None):
            return f"{entry.task.role} {entry.task.index} has a receipt that is none of its success"
        counted[entry.task] = receipt
    shards = {task.index: receipt for task, receipt in counted.items() if task.role is Role.SHARD}
    ended = {True: 0, False: 0}
    for task, receipt in counted.items():
        ended[receipt is not None] += shards_in(task, body.total_shards)
    if (body.succeeded, body.failed) != (ended[True], ended[False]):
        return "it counts other shards than it lists"
    return _unclosed(counted, facts) or _not_a_success(body, spec, counted, shards)


def _unclosed(counted: dict[Task, Opened[Receipt] | None], facts: KnownFacts) -> str | None:
    """A task read something else than what counts for the task before it."""
    split = next((receipt for task, receipt in counted.items() if task.role is Role.SPLIT), None)
    for task, receipt in counted.items():
        award = facts.awards[receipt.record.award].record if receipt is not None else None
        if award is None:
            continue
        if task.role is Role.SHARD and not _same(award.split, split.record.output if split is not None else None):
            return f"shard {task.index} read another split's output"
        if task.role is Role.MERGE and not _read_what_counts(award, counted, split.record.shards if split else 1):
            return "the merge read other outputs than those that count"
    return None


def _read_what_counts(award: Award, counted: dict[Task, Opened[Receipt] | None], shards: int) -> bool:
    """Whether a merge was given one part of each task, and the one that counts."""
    if [part.index for part in award.parts] != list(range(task_count(shards))):
        return False
    for part in award.parts:
        receipt = counted.get(Task(stage=award.stage, role=Role.SHARD, index=part.index))
        if not _same(part.output, receipt.record.output if receipt is not None else None):
            return False
    return True


def _not_a_success(
    body: FinalBody,
    spec: Opened[JobSpec],
    counted: dict[Task, Opened[Receipt] | None],
    shards: dict[int, Opened[Receipt] | None],
) -> str | None:
    """What a success must have, and an output only a success can."""
    if body.status != "success":
        return "an output of a job that is no success" if body.output is not None else None
    stage = spec.record.stages[0]
    split = counted.get(Task(role=Role.SPLIT))
    merge = counted.get(Task(role=Role.MERGE))
    total = split.record.shards if split is not None else 1
    if (split is not None) != bool(stage.split) or (merge is not None) != bool(stage.merge):
        return "a success without its split or merge, or with one that the job does not have"
    if (
        body.total_shards != total
        or sorted(shards) != list(range(task_count(total)))
        or body.failed > stage.allow_failures
    ):
        return "a success without all of its shards"
    last = merge if stage.merge else shards.get(0)
    if last is None or not _same(body.output, last.record.output) or body.output != last.record.output:
        return "an output that its last task did not make"
    return None


def _same(one: Output | None, other: Output | None) -> bool:
    """The same bytes, by whomever; both may be none."""
    return (one is None) == (other is None) and (one is None or other is None or one.sha256 == other.sha256)
