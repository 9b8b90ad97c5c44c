"""Job file + model + proposal → the job spec that the submitter signs. Pure: the same arguments, the same spec."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from meshnode.client.results import Proposal
from meshnode.jobs.canonical import canonical_json
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.jobfile import JobFile
from meshnode.jobs.modelfile import ModelFile
from meshnode.jobs.settings import StageSettings
from meshnode.tasks.splitmerge.plugins import is_plugin, label
from protocol import codec, limits
from protocol.identity import PeerId
from protocol.limits import DEFAULT_LIMITS
from protocol.records import JobSpec, StageSpec
from protocol.wire import Holder, Link, Needs, Placement

DEADLINE_S_MAX = DEFAULT_LIMITS.retention_ms // 1000


def compile_spec(
    job: JobFile,
    model: ModelFile,
    settings: StageSettings,
    proposal: Proposal,
    *,
    manifest: Link,
    job_input: Link,
    blobs: Iterable[Link],
    submitter: PeerId,
    nonce: bytes,
    supersedes: bytes | None = None,
) -> JobSpec:
    """The spec. ``blobs`` are the files of input and model, ``supersedes`` is the job whose place it takes.

    Raises InvalidFile for what no spec can hold.
    """
    deadline_ms = math.ceil(job.deadline_s * 1000)
    if job.deadline_s > DEADLINE_S_MAX:
        raise InvalidFile(job.file, "deadline_s", f"must be at most {DEADLINE_S_MAX}, got {job.deadline_s:g}")
    unique = tuple({link.cid: link for link in (job_input, manifest, *blobs)}.values())
    if len(unique) > limits.BLOBS_PER_JOB_MAX:
        raise InvalidFile(
            job.file, "", f"brings along {len(unique)} files with its model, more than {limits.BLOBS_PER_JOB_MAX}"
        )
    spec = JobSpec(
        mesh=proposal.mesh,
        submitter=submitter,
        alias=job.job_id or "",
        nonce=nonce,
        issued_at=proposal.wall_ms,
        not_after=proposal.wall_ms + deadline_ms + DEFAULT_LIMITS.retention_ms,
        deadline_ms=deadline_ms,
        priority=job.priority,
        durability=job.durability,
        holders=tuple(
            Holder(peer=PeerId(holder.node_id), store=bytes.fromhex(holder.store)) for holder in proposal.holders
        ),
        steward=PeerId(proposal.steward),
        supersedes=supersedes,
        input=job_input,
        blobs=unique,
        stages=(_stage(job.file, model, settings, manifest),),
    )
    size = len(codec.encode(spec))
    if size > limits.RECORD_BYTES_MAX:
        raise InvalidFile(job.file, "", f"is too large: signed, it has {size} bytes of {limits.RECORD_BYTES_MAX}")
    return spec


def _stage(file: str, model: ModelFile, settings: StageSettings, manifest: Link) -> StageSpec:
    split = "" if settings.split.mode == "none" else settings.split.mode
    parameters = canonical_json(
        {
            "params": dict(settings.params),
            "split": settings.split.as_json() if split else {},
            "merge": _merge(settings) if split else {},
        }
    )
    if len(parameters) > limits.SETTINGS_BYTES_MAX:
        raise InvalidFile(
            file, "params", f"are too large: {len(parameters)} bytes of {limits.SETTINGS_BYTES_MAX}; use a file"
        )
    for key, value, low, high in (
        ("shard_count", settings.shard_count or 0, 0, limits.SHARDS_MAX),
        ("max_lost", settings.max_lost, 1, limits.ATTEMPTS_MAX),
    ):
        if not low <= value <= high:
            raise InvalidFile(file, key, f"must be from {low} to {high}, got {value}")
    return StageSpec(
        name=model.model_id,
        model=model.model_id,
        manifest=manifest,
        needs=Needs(
            cpu_milli=math.ceil(settings.cpu * 1000),
            memory_bytes=settings.memory_bytes,
            isolation=settings.isolation or "",
            image=model.image or "",
            max_price=settings.max_price,
            placement=_placement(file, settings),
        ),
        split=split,
        merge=settings.merge if split else "",
        settings=parameters,
        shard_count=settings.shard_count or 0,
        max_shards=min(settings.max_shards or limits.SHARDS_MAX, limits.SHARDS_MAX),
        timeout_ms=max(1, math.ceil(settings.timeout_s * 1000)),
        attempts=settings.attempts,
        max_lost=settings.max_lost,
        allow_failures=settings.allow_failures,
    )


def _merge(settings: StageSettings) -> dict[str, str]:
    """The value of ``merge`` in the merge program's input."""
    merge = {"strategy": settings.merge, "key": settings.merge_key, "prefer": settings.prefer}
    return {name: value for name, value in merge.items() if value is not None}


def _placement(file: str, settings: StageSettings) -> Placement:
    """Where the tasks may run: only on nodes that have the plug-ins which the job needs."""
    plugins = [("splits", settings.split.mode), ("merges", settings.merge)]
    labels = {**dict(label(*plugin) for plugin in plugins if is_plugin(plugin[1])), **settings.placement.labels}
    if len(labels) > limits.LABELS_MAX:
        raise InvalidFile(file, "placement.labels", f"with the plug-ins these are more than {limits.LABELS_MAX}")
    return msgspec.structs.replace(settings.placement, labels=labels)
