"""Finding the job that a text means, and hearing from its steward.

Anyone can sign a pointer that names itself as a job's steward, so a pointer is a hint and no more: what an answer says
is believed if it comes with the spec, and from one of the holders that the spec names.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from protocol.errors import RemoteProtocolError
from protocol.events import StatusAsked
from protocol.identity import PeerId
from protocol.messages import JobView, StatusReply
from protocol.records import JobPointer, JobSpec
from protocol.signing import Opened

_STEWARDS_KEPT = 1024
_POINTERS_TRIED = 4
"""Of one job: how many that say they are its steward are asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job's steward said, with the spec by which it may speak."""

    steward: PeerId
    spec: Opened[JobSpec]
    view: JobView
    reply: StatusReply


class Finder:
    """Finds jobs through one node, and remembers who is steward of those it found."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._stewards: OrderedDict[bytes, PeerId] = OrderedDict()

    async def ask(self, text: str, submitter: PeerId | None, start: int | None = None) -> Answer:
        """What the steward of the job that ``text`` means says; with a page of its tasks if one is asked for.

        ``text`` is a full id, the start of one, or an alias; of several jobs with one alias the newest is meant.
        """
        if re.fullmatch(r"[0-9a-f]{64}", text) and (steward := self._stewards.get(bytes.fromhex(text))):
            try:
                return await self.status(bytes.fromhex(text), steward, start)
            except ApiError:
                self._stewards.pop(bytes.fromhex(text), None)  # perhaps another one answers now
        pointers = await self._core.search("job", text, JobPointer, submitter)
        return await self.first_answer(_meant(text, submitter, pointers), start)

    async def first_answer(self, pointers: list[JobPointer], start: int | None = None) -> Answer:
        """From whoever of those that are said to be steward is."""
        problem = ApiError("no-answer", "nobody answers for the job")
        for pointer in pointers[:_POINTERS_TRIED]:
            try:
                return await self.status(pointer.job, pointer.steward, start)
            except ApiError as error:
                problem = error
        raise problem

    async def all(self) -> list[list[JobPointer]]:
        """The pointers that a search of the mesh finds, job by job, the newest first."""
        jobs: dict[bytes, list[JobPointer]] = {}
        for pointer in _newest_first(await self._core.search("job", "", JobPointer)):
            jobs.setdefault(pointer.job, []).append(pointer)
        return list(jobs.values())

    async def status(self, job: bytes, steward: PeerId, start: int | None) -> Answer:
        """What ``steward`` says about ``job``. Raises ApiError if that is nothing to be believed."""
        reply = await self._core.ask(StatusReply, lambda number: StatusAsked(number, job, steward, start))
        if reply.view is None or reply.spec is None:
            raise ApiError("no-answer", f"the job's steward, {steward}, does not answer for it")
        try:
            spec = self._core.reader.open(reply.spec, JobSpec)
        except RemoteProtocolError as error:
            raise ApiError("no-answer", f"what the job's steward, {steward}, answers does not hold: {error}") from None
        view, record = reply.view, spec.record
        told = (view.job, view.alias, view.submitter)
        if told != (job, record.alias, record.submitter) or spec.digest != job:
            raise ApiError("no-answer", f"{steward} answers about another job")
        if steward not in [holder.peer for holder in record.holders]:
            raise ApiError("no-answer", f"{steward} does not hold the job")
        self._stewards[job] = steward
        self._stewards.move_to_end(job)
        if len(self._stewards) > _STEWARDS_KEPT:
            self._stewards.popitem(last=False)
        return Answer(steward, spec, view, reply)


def _meant(text: str, submitter: PeerId | None, pointers: list[JobPointer]) -> list[JobPointer]:
    """The pointers of the job that ``text`` means, the newest first. Raises ApiError if that is none or several."""
    named = [pointer for pointer in pointers if pointer.alias == text]
    named = [pointer for pointer in named if pointer.submitter == submitter] or named
    digits = text.replace("-", "").lower()
    found = named or [pointer for pointer in pointers if digits and pointer.job.hex().startswith(digits)]
    if not found:
        raise ApiError("not-found", f"no job {text!r} is known in this mesh", "job")
    choices = len({pointer.submitter for pointer in named} if named else {pointer.job for pointer in found})
    if choices > 1:
        ids = ", ".join(dict.fromkeys(pointer.job.hex()[:16] for pointer in _newest_first(found)[:4]))
        raise ApiError("ambiguous", f"{text!r} may mean {choices} jobs: give more of the id, {ids}", "job")
    return _newest_first(found)


def _newest_first(pointers: list[JobPointer]) -> list[JobPointer]:
    return sorted(pointers, key=lambda pointer: -pointer.issued_at)
