"""How records are shown to people: as JSON values, with the signed bytes beside what was read from them.

Hashes are ``0x`` and hex digits, times RFC 3339 in UTC with milliseconds, durations milliseconds. ``signed`` is the
base64 of the 64 bytes of the signature followed by the bytes that it covers. What is shown is a function of the signed
bytes (and, for names of tasks, of the spec), so ``verify`` can show it again and compare.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from protocol.batches import shards_in, shards_per_task
from protocol.errors import RemoteProtocolError
from protocol.fitness import PRICE_UNITS
from protocol.identity import SIGNATURE_BYTES
from protocol.messages import JobView, TaskView
from protocol.records import Award, JobSpec, Part, Receipt, StageSpec
from protocol.signing import Opened, Signed
from protocol.wire import Ballot, Holder, Link, Needs, Output, Range, Role, Task

Json = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # the end of the year 9999
_SHORT_ID_DIGITS = 8


# -- names ----------------------------------------------------------------------------------------------------


def short_id(job: bytes) -> str:
    """The first digits of a job's full id: ``bd92-e3f1``."""
    digits = job.hex()[:_SHORT_ID_DIGITS]
    return f"{digits[:4]}-{digits[4:]}"


def job_name(job: bytes, alias: str) -> str:
    """What users call a job: the alias its submitter gave it, else its short id."""
    return alias or short_id(job)


def task_name(name: str, spec: JobSpec, task: Task) -> str:
    """What users call a task of the job called ``name``.

    ``bd92-e3f1-06`` and ``bd92-e3f1.split`` in a job of one stage; in a graph the stage stands in between, as in
    ``bd92-e3f1.asr-03``, and ``bd92-e3f1.summary`` is the only shard of a stage that is not split.
    """
    stage = spec.stages[task.stage] if task.stage < len(spec.stages) else None
    single = len(spec.stages) == 1
    prefix = name if single else f"{name}.{stage.name if stage else task.stage}"
    if task.role is not Role.SHARD:
        return f"{prefix}.{task.role.value}"
    if not single and stage is not None and not stage.split:
        return prefix
    return f"{prefix}-{task.index:02d}"


# -- values ---------------------------------------------------------------------------------------------------


def show_hash(digest: bytes) -> str:
    return f"0x{digest.hex()}"


def show_time(wall_ms: int) -> str:
    """RFC 3339; a time that no calendar has is shown as its milliseconds."""
    if not 0 <= wall_ms <= _LAST_MS:
        return f"{wall_ms} ms"
    return (_EPOCH + timedelta(milliseconds=wall_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_signed(signed: Signed) -> str:
    return base64.b64encode(signed.signature + signed.payload).decode("ascii")


def read_signed(text: object) -> Signed:
    """The inverse of ``show_signed``, strict: one text for each value. Raises RemoteProtocolError."""
    data = read_base64(text)
    if len(data) <= SIGNATURE_BYTES:
        raise RemoteProtocolError("too short for a signature and what it covers")
    return Signed(payload=data[SIGNATURE_BYTES:], signature=data[:SIGNATURE_BYTES])


def read_base64(text: object) -> bytes:
    """Bytes by their one base64 text. Raises RemoteProtocolError."""
    if not isinstance(text, str):
        raise RemoteProtocolError("not base64 text")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("not base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise RemoteProtocolError("not the canonical base64 of its bytes")
    return data


# -- records --------------------------------------------------------------------------------------------------


def show_receipt(opened: Opened[Receipt], name: str, spec: JobSpec) -> Json:
    """A receipt of a task of the job called ``name``; a failed one also says its ``error``."""
    receipt = opened.record
    shown: Json = {
        "job_id": task_name(name, spec, receipt.task),
        "shard_index": receipt.task.index if receipt.task.role is Role.SHARD else None,
        "latency_ms": receipt.latency_ms,
        "output_hash": show_hash(receipt.output.sha256) if receipt.output else None,
        "node_id": receipt.worker,
        "status": "success" if receipt.success else "failed",
        "attempt": receipt.attempt,
        "input_hash": show_hash(receipt.input_hash),
        "image": receipt.image,
        "queued_ms": receipt.queued_ms,
        "pull_ms": receipt.pull_ms,
        "transfer_ms": receipt.transfer_ms,
        "run_ms": receipt.run_ms,
        "started_at": show_time(receipt.started_at),
    }
    if not receipt.success:
        shown["error"] = receipt.error
    return {**shown, "signed": show_signed(opened.signed)}


def show_award(opened: Opened[Award]) -> Json:
    award = opened.record
    return {
        "award": show_hash(opened.digest),
        "full_id": award.job.hex(),
        "steward": award.steward,
        "ballot": show_ballot(award.ballot),
        "holders": [show_holder(holder) for holder in award.holders],
        "node_id": award.worker,
        "stage": award.stage,
        "role": award.role.value,
        "ranges": [_range(tasks) for tasks in award.ranges],
        "attempt": award.attempt,
        "shards": award.shards,
        "split": show_output(award.split),
        "split_receipt": _digest(award.split_receipt),
        "parts": [_part(part) for part in award.parts],
        "price": show_price(award.price),
        "why": award.why,
        "lease_ms": award.lease_ms,
        "nonce": award.nonce,
        "issued_at": show_time(award.issued_at),
        "not_after": show_time(award.not_after),
        "signed": show_signed(opened.signed),
    }


def show_spec(opened: Opened[JobSpec]) -> Json:
    spec = opened.record
    return {
        "full_id": opened.digest.hex(),
        "alias": spec.alias,
        "mesh": spec.mesh,
        "submitter": spec.submitter,
        "nonce": spec.nonce.hex(),
        "issued_at": show_time(spec.issued_at),
        "not_after": show_time(spec.not_after),
        "deadline_ms": spec.deadline_ms,
        "priority": spec.priority,
        "durability": spec.durability,
        "holders": [show_holder(holder) for holder in spec.holders],
        "steward": spec.steward,
        "supersedes": spec.supersedes.hex() if spec.supersedes is not None else None,
        "input": show_link(spec.input),
        "blobs": [show_link(link) for link in spec.blobs],
        "stages": [_stage(stage) for stage in spec.stages],
        "signed": show_signed(opened.signed),
    }


def show_link(link: Link) -> Json:
    return {"cid": link.cid, "size": link.size}


# -- jobs -----------------------------------------------------------------------------------------------------


def show_job(view: JobView) -> Json:
    """A job as its steward sees it now; ``provisional`` is how it would end if a majority of its holders answered."""
    provisional = view.provisional_output
    return {
        "job_id": job_name(view.job, view.alias),
        "full_id": view.job.hex(),
        "model": view.model,
        "status": view.status,
        "merge_status": view.merge_status,
        "total_shards": view.total_shards,
        "succeeded": view.succeeded,
        "failed": view.failed,
        "running": view.running,
        "output_hash": show_hash(view.output.sha256) if view.output else None,
        "output": {"cid": view.output.cid, "size": view.output.size} if view.output else None,
        "submitter": view.submitter,
        "steward": view.steward,
        "issued_at": show_time(view.issued_at),
        "completed_at": show_time(view.completed_at) if view.completed_at else None,
        "error": view.error,
        "waiting": view.waiting,
        "refusals": [{"node_id": refusal.peer, "reason": refusal.reason} for refusal in view.refusals],
        "keepers": list(view.keepers),
        "provisional": {
            "status": view.provisional,
            "output_hash": show_hash(provisional.sha256) if provisional else None,
            "by": view.steward,
        }
        if view.provisional
        else None,
    }


def show_details(
    view: JobView,
    spec: Opened[JobSpec],
    tasks: Iterable[TaskView],
    receipts: Iterable[Opened[Receipt]],
    awards: Iterable[Opened[Award]],
    record: Json,
) -> Json:
    """A job with everything that ``verify`` needs to check it offline; ``record`` as ``show_record`` has it."""
    name = job_name(view.job, view.alias)
    return {
        **show_job(view),
        "tasks": [_task(task, name, spec.record, view.total_shards) for task in tasks],
        "receipts": [show_receipt(receipt, name, spec.record) for receipt in receipts],
        "awards": [show_award(award) for award in awards],
        "record": record,
        "spec": show_spec(spec),
    }


def _task(view: TaskView, name: str, spec: JobSpec, total_shards: int) -> Json:
    several = {"shards": shards_in(view.task, total_shards)} if shards_per_task(total_shards) > 1 else {}
    return {
        "job_id": task_name(name, spec, view.task),
        "stage": view.task.stage,
        "role": view.task.role.value,
        "shard_index": view.task.index if view.task.role is Role.SHARD else None,
        **several,
        "status": view.status,
        "tries": [
            {
                "node_id": attempt.worker,
                "attempt": attempt.attempt,
                "award": show_hash(attempt.award),
                "outcome": attempt.outcome,
                "reason": attempt.reason,
                "why": attempt.why,
            }
            for attempt in view.tries
        ],
    }


# -- parts of records -----------------------------------------------------------------------------------------


def _stage(stage: StageSpec) -> Json:
    return {
        "name": stage.name,
        "model": stage.model,
        "manifest": show_link(stage.manifest),
        "needs": _needs(stage.needs),
        "split": stage.split,
        "merge": stage.merge,
        "settings": stage.settings.decode("utf-8", "backslashreplace"),
        "shard_count": stage.shard_count,
        "max_shards": stage.max_shards,
        "timeout_ms": stage.timeout_ms,
        "attempts": stage.attempts,
        "max_lost": stage.max_lost,
        "allow_failures": stage.allow_failures,
    }


def _needs(needs: Needs) -> Json:
    return {
        "cpu_milli": needs.cpu_milli,
        "memory_bytes": needs.memory_bytes,
        "isolation": needs.isolation,
        "image": needs.image,
        "max_price": show_price(needs.max_price),
        "placement": {
            "labels": dict(needs.placement.labels),
            "only": list(needs.placement.only),
            "avoid": list(needs.placement.avoid),
            "near_input": needs.placement.near_input,
            "spread": needs.placement.spread,
        },
    }


def show_price(price: int | None) -> float | None:
    """For one CPU and second, in the mesh's unit."""
    return None if price is None else price / PRICE_UNITS


def show_ballot(ballot: Ballot) -> Json:
    return {"config": ballot.config, "epoch": ballot.epoch, "node_id": ballot.peer}


def show_holder(holder: Holder) -> Json:
    return {"node_id": holder.peer, "store": holder.store.hex()}


def _range(tasks: Range) -> list[int]:
    return [tasks.start, tasks.stop]


def show_output(output: Output | None) -> Json | None:
    return {"cid": output.cid, "size": output.size, "output_hash": show_hash(output.sha256)} if output else None


def _digest(digest: bytes | None) -> str | None:
    return None if digest is None else show_hash(digest)


def _part(part: Part) -> Json:
    return {"shard_index": part.index, "output": show_output(part.output), "receipt": _digest(part.receipt)}
