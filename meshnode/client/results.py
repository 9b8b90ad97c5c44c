"""What a node answers, as frozen values. Fields that a later node adds are skipped."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from meshnode.client.errors import RequestRefused

T = TypeVar("T", bound=msgspec.Struct)

ENDED = ("success", "failed", "cancelled")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all results."""

    def as_json(self) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value


class Blob(Result, frozen=True, kw_only=True):
    cid: str
    size: int


class Holder(Result, frozen=True, kw_only=True):
    node_id: str
    store: str


class Proposal(Result, frozen=True, kw_only=True):
    """Who could hold a job; ``wall_ms`` is the node's clock, by which the job is dated."""

    mesh: str
    node_id: str
    steward: str
    holders: tuple[Holder, ...]
    wall_ms: int
    notes: tuple[str, ...] = ()


class ResolvedModel(Result, frozen=True, kw_only=True):
    """A published model; ``content`` is its manifest."""

    name: str
    publisher: str | None = None
    manifest: Blob
    keepers: tuple[str, ...] = ()
    content: dict[str, Any]


class Accepted(Result, frozen=True, kw_only=True):
    """A job that was taken in; ``notes`` say what cannot be promised."""

    job_id: str
    full_id: str
    steward: str
    copies: int
    pointers: int
    notes: tuple[str, ...] = ()


class Refusal(Result, frozen=True, kw_only=True):
    node_id: str
    reason: str


class Provisional(Result, frozen=True, kw_only=True):
    """How a job would end, as one peer sees it: its holders have not decided so, and may decide otherwise."""

    status: str
    output_hash: str | None = None
    by: str


class Job(Result, frozen=True, kw_only=True):
    """A job as its steward sees it now."""

    job_id: str
    full_id: str
    status: str
    model: str = ""
    merge_status: str = "pending"
    total_shards: int = 0
    succeeded: int = 0
    failed: int = 0
    running: int = 0
    output_hash: str | None = None
    output: Blob | None = None
    submitter: str = ""
    steward: str = ""
    issued_at: str = ""
    completed_at: str | None = None
    error: str = ""
    waiting: str = ""
    refusals: tuple[Refusal, ...] = ()
    keepers: tuple[str, ...] = ()
    provisional: Provisional | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class JobOutput(Result, frozen=True, kw_only=True):
    """A job's output, which the node that answered has."""

    job_id: str
    full_id: str
    cid: str
    size: int
    output_hash: str


class Cancelled(Result, frozen=True, kw_only=True):
    """``status`` is ``cancelled``, what the job had ended with before, or ``requested``: no majority has decided."""

    job_id: str
    full_id: str
    status: str
    output_hash: str | None = None
    error: str = ""


def read_result(answer: object, kind: type[T]) -> T:
    """The typed form of a node's answer. Raises RequestRefused if it is none."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"the node's answer is not understood: {error}", code="internal") from None
