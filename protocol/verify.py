"""Checking a finished job offline: is everything that ``infra job --details`` showed what was signed?

Nothing but the document and the keys inside its peer ids is needed. Every receipt, award and spec is shown again from
its signed bytes and compared; then the records are held against each other: who was allowed to award what to whom,
which output each task read, which one is the job's, and that its holders decided so (``verify_record``). What only the
steward says (tries, refusals) cannot be proven and is not looked at, except where it contradicts a signed record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from protocol.batches import shards_in, shards_of, task_count
from protocol.chain import Chain
from protocol.comparing import brief, differences, equal
from protocol.errors import RemoteProtocolError
from protocol.fitness import excludes, too_dear
from protocol.identity import Verifier
from protocol.limits import TASKS_MAX
from protocol.records import Award, JobSpec, Receipt, Record, StageSpec
from protocol.show import (
    job_name,
    read_signed,
    show_award,
    show_hash,
    show_receipt,
    show_spec,
    show_time,
    task_name,
)
from protocol.signing import Opened, RecordReader
from protocol.verify_record import RecordCheck
from protocol.wire import Output, Role, Task

R = TypeVar("R", bound=Record)

_PROBLEMS_MAX = 1_000


class Problem(NamedTuple):
    """One thing that does not hold: where in the document, and a sentence."""

    place: str
    sentence: str


def verify(document: object, verifier: Verifier) -> list[Problem]:
    """Everything wrong with a details document, in its order; empty if all of it holds. Never raises."""
    if not isinstance(document, dict):
        return [Problem("", "not what `infra job --details --json` prints: a JSON object was expected")]
    check = _Check(document, RecordReader(verifier))
    check.run()
    return check.problems


class _Check:
    """One document on its way through the checks. Later checks use only records that the earlier ones accepted."""

    def __init__(self, document: dict[str, Any], reader: RecordReader) -> None:
        self._document = document
        self._reader = reader
        self._awards: dict[bytes, Award] = {}
        self._receipts: dict[Task, tuple[str, Opened[Receipt]]] = {}
        self._name = ""
        self.problems: list[Problem] = []

    def run(self) -> None:
        spec = self._open("spec", self._document.get("spec"), JobSpec, show_spec)
        if spec is None:
            return
        self._name = job_name(spec.digest, spec.record.alias)
        self._identity(spec)
        record = RecordCheck(self._document, spec, self._reader, self._found)
        self._read_awards(spec, record.chain)
        self._read_receipts(spec)
        record.compare(self._receipts)
        for stage, _ in enumerate(spec.record.stages):
            self._ancestry(spec.record, stage)
        self._tasks(spec.record)
        self._totals(spec.record)

    # -- what is signed

    def _identity(self, spec: Opened[JobSpec]) -> None:
        record = spec.record
        self._same("full_id", spec.digest.hex(), "the hash of the signed spec")
        self._same("job_id", self._name, "the spec's alias or the short form of its hash")
        self._same("submitter", record.submitter, "who signed the spec")
        self._same("issued_at", show_time(record.issued_at), "what the spec says")
        self._same("model", record.stages[0].model, "what the spec says")
        holders = [holder.peer for holder in record.holders]
        if record.steward not in holders:
            self._found("spec.steward", "is none of the spec's holders")

    def _read_awards(self, spec: Opened[JobSpec], chain: Chain) -> None:
        for index, shown in enumerate(self._list("awards")):
            place = f"awards[{index}]"
            opened = self._open(place, shown, Award, show_award)
            if opened is None:
                continue
            award = opened.record
            if opened.digest in self._awards:
                self._found(place, "is the same award as an earlier one")
            elif award.job != spec.digest:
                self._found(f"{place}.full_id", "is an award of another job")
            elif not chain.has_held(award.steward):
                self._found(f"{place}.steward", "never held the job, so it had nothing to award")
            elif award.ballot.peer != award.steward:
                self._found(f"{place}.ballot", "is not the ballot of the steward that signed")
            elif award.stage >= len(spec.record.stages):
                self._found(f"{place}.stage", "is a stage that the spec does not have")
            else:
                self._awards[opened.digest] = award

    def _read_receipts(self, spec: Opened[JobSpec]) -> None:
        def show(opened: Opened[Receipt]) -> dict[str, Any]:
            return show_receipt(opened, self._name, spec.record)

        for index, shown in enumerate(self._list("receipts")):
            place = f"receipts[{index}]"
            opened = self._open(place, shown, Receipt, show)
            if opened is None:
                continue
            receipt = opened.record
            if receipt.job != spec.digest:
                self._found(place, "is a receipt of another job")
            elif receipt.task in self._receipts:
                self._found(place, f"is a second receipt of the task in {self._receipts[receipt.task][0]}")
            else:
                self._receipts[receipt.task] = (place, opened)
                self._against_award(place, receipt, spec.record)

    def _against_award(self, place: str, receipt: Receipt, spec: JobSpec) -> None:
        award = self._awards.get(receipt.award)
        if award is None:
            self._found(place, f"names the award {show_hash(receipt.award)}, which is not among the good awards")
            return
        if receipt.worker != award.worker:
            self._found(f"{place}.node_id", f"is not the worker of the award, {award.worker}")
        if receipt.attempt != award.attempt:
            self._found(f"{place}.attempt", f"is not the attempt of the award, {award.attempt}")
        covered = any(tasks.start <= receipt.task.index < tasks.stop for tasks in award.ranges)
        if (receipt.task.stage, receipt.task.role) != (award.stage, award.role) or not covered:
            self._found(f"{place}.job_id", "is not one of the tasks that the award gave")
        if receipt.success != (receipt.output is not None):
            self._found(f"{place}.output_hash", "a success has an output, a failure none")
        needs = spec.stages[award.stage].needs
        excluded = excludes(needs.placement, award.worker)
        if excluded is not None:
            self._found(f"{place}.node_id", f"is {excluded}")
        dear = too_dear(award.price, needs)
        if dear is not None:
            self._found(place, f"was awarded for more than the job pays: {dear}")

    # -- who read what

    def _ancestry(self, spec: JobSpec, stage: int) -> None:
        split = self._receipts.get(Task(stage=stage, role=Role.SPLIT))
        merge = self._receipts.get(Task(stage=stage, role=Role.MERGE))
        if split is not None and not spec.stages[stage].split:
            self._found(split[0], "is the receipt of a split in a stage that has none")
        if merge is not None and not spec.stages[stage].merge:
            self._found(merge[0], "is the receipt of a merge in a stage that has none")
        for place, opened in self._shards(stage):
            award = self._awards.get(opened.record.award)
            if award is not None:
                self._shard_read(place, opened.record, award, spec.stages[stage], split)
        if merge is not None:
            award = self._awards.get(merge[1].record.award)
            if award is not None:
                self._merge_read(merge[0], merge[1].record, award, stage, split)

    def _shard_read(
        self,
        place: str,
        receipt: Receipt,
        award: Award,
        stage: StageSpec,
        split: tuple[str, Opened[Receipt]] | None,
    ) -> None:
        if not stage.split:
            if award.split is not None or receipt.upstream or receipt.task.index:
                self._found(place, "reads a split's output in a stage that has no split")
            return
        if split is None:
            self._found(place, "reads the output of a split whose receipt is missing")
            return
        made = split[1].record
        if not _same(award.split, made.output) or award.shards != made.shards:
            self._found(place, f"its award names another split's output than {split[0]}")
        if award.split_receipt is None or receipt.upstream != (award.split_receipt,):
            self._found(place, "does not name the split's receipt that its award names")
        if receipt.task.index >= task_count(made.shards):
            self._found(place, f"is task {receipt.task.index} of a split that made {task_count(made.shards)}")

    def _merge_read(
        self,
        place: str,
        receipt: Receipt,
        award: Award,
        stage: int,
        split: tuple[str, Opened[Receipt]] | None,
    ) -> None:
        if split is not None and len(award.parts) != task_count(split[1].record.shards):
            self._found(place, f"merged {len(award.parts)} parts of {task_count(split[1].record.shards)}")
        if [part.index for part in award.parts] != list(range(len(award.parts))):
            self._found(place, "merged parts that are not each shard once, in order")
        for part in award.parts:
            task = Task(stage=stage, role=Role.SHARD, index=part.index)
            shard = self._receipts.get(task)
            if part.output is None:
                if shard is not None and shard[1].record.success:
                    self._found(place, f"left out shard {part.index}, which succeeded in {shard[0]}")
            elif shard is None:
                self._found(place, f"merged shard {part.index}, whose receipt is missing")
            elif not _same(part.output, shard[1].record.output):
                self._found(place, f"merged another output of shard {part.index} than that of {shard[0]}")
        if receipt.upstream != tuple(part.receipt for part in award.parts if part.receipt is not None):
            self._found(place, "does not name the receipts of the parts that its award lists")

    # -- what is shown about the whole

    def _tasks(self, spec: JobSpec) -> None:
        known = {task_name(self._name, spec, task): found for task, found in self._receipts.items()}
        seen: set[str] = set()
        for index, shown in enumerate(self._list("tasks")):
            place = f"tasks[{index}]"
            if not isinstance(shown, dict) or not isinstance(name := shown.get("job_id"), str):
                self._found(place, "is no task: an object with a job_id was expected")
                continue
            if name in seen:
                self._found(f"{place}.job_id", "stands there twice")
            seen.add(name)
            found = known.get(name)
            status = shown.get("status")
            if found is None:
                if status == "success":
                    self._found(f"{place}.status", "is success, but no good receipt says so")
                continue
            self._task_as_signed(place, shown, found[1].record)
        for name, (place, _) in known.items():
            if name not in seen:
                self._found(place, "is a receipt of a task that is not listed")

    def _task_as_signed(self, place: str, shown: dict[str, Any], receipt: Receipt) -> None:
        task = receipt.task
        expected = {
            "stage": task.stage,
            "role": task.role.value,
            "shard_index": task.index if task.role is Role.SHARD else None,
        }
        for key, value in expected.items():
            if not equal(shown.get(key), value):
                self._found(f"{place}.{key}", f"is {brief(shown.get(key))}, but the receipt says {brief(value)}")
        # A failed try does not fail its task: that may be running again, or have been given up.
        if receipt.success != (shown.get("status") == "success"):
            self._found(f"{place}.status", f"is {brief(shown.get('status'))}, but the receipt says otherwise")
        tries = shown.get("tries")
        for index, attempt in enumerate(tries if isinstance(tries, list) else []):
            if isinstance(attempt, dict) and attempt.get("award") == show_hash(receipt.award):
                for key, value in (("node_id", receipt.worker), ("attempt", receipt.attempt)):
                    if not equal(attempt.get(key), value):
                        self._found(f"{place}.tries[{index}].{key}", f"is not {brief(value)}, as the receipt says")

    def _totals(self, spec: JobSpec) -> None:
        status, last = self._document.get("status"), len(spec.stages) - 1
        if status not in ("queued", "running", "success", "failed", "cancelled"):
            self._found("status", f"{brief(status)} is no status of a job")
        total, whole = 0, True
        for stage, record in enumerate(spec.stages):
            split = self._receipts.get(Task(stage=stage, role=Role.SPLIT))
            total += 1 if not record.split else split[1].record.shards if split else 0
            whole = whole and (not record.split or (split is not None and split[1].record.success))
        if whole:
            self._same("total_shards", total, "what the splits made")
        shards = [shard.record for stage in range(last + 1) for _, shard in self._shards(stage)]
        succeeded = sum(shards_in(shard.task, total) for shard in shards if shard.success)
        self._same("succeeded", succeeded, "the number of shards with a receipt of success")
        failed = self._failed(total)
        self._same("failed", failed, "the number of shards listed as failed")
        if status == "success":
            allowed = sum(stage.allow_failures for stage in spec.stages)
            if succeeded + failed != total or failed > allowed:
                self._found(
                    "status",
                    f"is success with {succeeded} of {total} shards, {allowed} of which may have failed",
                )
        self._result(spec, last, status)

    def _failed(self, total: int) -> int:
        """How many of ``total`` shards are listed as failed."""
        failed = 0
        for task in self._list("tasks"):
            if isinstance(task, dict) and (task.get("role"), task.get("status")) == (Role.SHARD.value, "failed"):
                index = task.get("shard_index")
                if isinstance(index, int) and 0 <= index < TASKS_MAX:
                    failed += len(shards_of(index, total))
        return failed

    def _result(self, spec: JobSpec, last: int, status: object) -> None:
        strategy = spec.stages[last].merge
        merges = strategy not in ("", "none")  # "none" lists the outputs: a task, but no merge to speak of
        found = self._receipts.get(Task(stage=last, role=Role.MERGE if strategy else Role.SHARD))
        output = found[1].record.output if found is not None else None
        merged = self._document.get("merge_status")
        if (merged == "none") == merges or merged not in ("none", "pending", "success", "failed"):
            self._found(
                "merge_status",
                f"{brief(merged)} does not fit a job {'with' if merges else 'without'} a merge",
            )
        elif merges and (merged == "success") != (output is not None):
            self._found("merge_status", f"is {merged}, but the receipts say otherwise")
        if status == "success" and output is None:
            self._found("status", "is success, but the receipt of the final output is missing")
        if status == "success" or self._document.get("output_hash") is not None:
            shown = show_hash(output.sha256) if output is not None else None
            self._same("output_hash", shown, "what the last task's receipt says")
        if status == "success" or self._document.get("output") is not None:
            link = {"cid": output.cid, "size": output.size} if output is not None else None
            self._same("output", link, "what the last task's receipt says")

    # -- helpers

    def _found(self, place: str, sentence: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(Problem(place, sentence))

    def _shards(self, stage: int) -> list[tuple[str, Opened[Receipt]]]:
        return [
            found for task, found in sorted(self._receipts.items()) if task.stage == stage and task.role is Role.SHARD
        ]

    def _list(self, key: str) -> list[Any]:
        value = self._document.get(key)
        if isinstance(value, list):
            return value
        self._found(key, "is missing or no list")
        self._document = {**self._document, key: []}
        return []

    def _same(self, key: str, expected: object, source: str) -> None:
        if not equal(shown := self._document.get(key), expected):
            self._found(key, f"is {brief(shown)}, but {source} is {brief(expected)}")

    def _open(
        self, place: str, shown: object, kind: type[R], show: Callable[[Opened[R]], dict[str, Any]]
    ) -> Opened[R] | None:
        """The record behind ``shown``, if its signature holds, after comparing what is shown with what is signed."""
        if not isinstance(shown, dict):
            self._found(place, "is missing or no object")
            return None
        try:
            opened = self._reader.open(read_signed(shown.get("signed")), kind)
        except RemoteProtocolError as error:
            self._found(f"{place}.signed", str(error))
            return None
        for where, sentence in differences(place, shown, show(opened)):
            self._found(where, sentence)
        return opened


def _same(one: Output | None, other: Output | None) -> bool:
    """The same bytes. By whom does not matter: a task whose output was lost runs again, and gets another receipt."""
    return one is not None and other is not None and one.sha256 == other.sha256
