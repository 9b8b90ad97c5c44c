"""Finding the job that a text means, and hearing from those who keep its record.

Anyone can sign a pointer that names itself as a job's steward, so a pointer is a hint and no more. An answer comes
with the spec, which names the first holders, and with the chain of what they and the later ones decided: the node's
core takes it from one of these only, and an end of the job is believed if the chain certifies it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from protocol.chain import Chain
from protocol.decrees import FinalBody
from protocol.ending import ENDS
from protocol.errors import RemoteProtocolError
from protocol.events import StatusAsked
from protocol.identity import PeerId
from protocol.messages import JobView, StatusReply
from protocol.records import JobPointer, JobSpec, Vote
from protocol.signing import Opened

_PEERS_KEPT = 1024
_POINTERS_TRIED = 8
"""Of one job: how many are followed."""
_ASKED_AT_ONCE = 4
"""Peers that one question goes to, one after the other: the core follows a few hints more on its way."""
_ASKED_MAX = 16
ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a holder of a job said, with the spec and the chain by which it may speak."""

    spec: Opened[JobSpec]
    chain: Chain
    view: JobView
    reply: StatusReply
    peers: tuple[PeerId, ...]
    """Whom to ask next time: the job's steward, then its holders."""


class Finder:
    """Finds jobs through one node, and remembers whom to ask about those it found."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._peers: OrderedDict[bytes, tuple[PeerId, ...]] = OrderedDict()

    async def ask(self, text: str, submitter: PeerId | None, start: int | None = None) -> Answer:
        """What the steward of the job that ``text`` means says; with a page of its tasks if one is asked for.

        ``text`` is a full id, the start of one, or an alias; of several jobs with one alias the newest is meant.
        """
        if re.fullmatch(r"[0-9a-f]{64}", text) and (peers := self._peers.get(bytes.fromhex(text))):
            try:
                return await self.status(bytes.fromhex(text), peers, start)
            except ApiError:
                self._peers.pop(bytes.fromhex(text), None)  # perhaps others answer now
        pointers = await self._core.search("job", text, JobPointer, submitter)
        return await self.first_answer(_meant(text, submitter, pointers), start)

    async def first_answer(self, pointers: list[JobPointer], start: int | None = None) -> Answer:
        """About the job of these pointers, the newest first: from one of its stewards, or else of its holders."""
        return await self.status(pointers[0].job, _peers_in(pointers), start)

    async def all(self) -> list[list[JobPointer]]:
        """The pointers that a search of the mesh finds, job by job, the newest first."""
        jobs: dict[bytes, list[JobPointer]] = {}
        for pointer in _newest_first(await self._core.search("job", "", JobPointer)):
            jobs.setdefault(pointer.job, []).append(pointer)
        return list(jobs.values())

    async def status(self, job: bytes, peers: tuple[PeerId, ...], start: int | None) -> Answer:
        """What the first of ``peers`` that may speak for ``job`` says. Raises ApiError if none does."""
        problem = ApiError("no-answer", "nobody answers for the job")
        for at in range(0, len(peers), _ASKED_AT_ONCE):
            steward, *holders = peers[at : at + _ASKED_AT_ONCE]
            event = partial(StatusAsked, job=job, steward=steward, start=start, holders=tuple(holders))
            reply = await self._core.ask(StatusReply, event, timeout_s=ANSWER_TIMEOUT_S)
            try:
                answer = self._believed(job, reply)
            except ApiError as error:
                problem = error
                continue
            self._peers[job] = answer.peers
            self._peers.move_to_end(job)
            if len(self._peers) > _PEERS_KEPT:
                self._peers.popitem(last=False)
            return answer
        raise ApiError("no-answer", f"{problem.message}; asked were {', '.join(peers)}")

    def _believed(self, job: bytes, reply: StatusReply) -> Answer:
        """The answer, if spec and chain bear it out. Raises ApiError."""
        view, body = reply.view, reply.body
        if view is None or reply.spec is None:
            raise ApiError("no-answer", "none of the job's holders answers for it")
        try:
            spec = self._core.reader.open(reply.spec, JobSpec)
            chain = Chain(spec, partial(self._core.reader.open, kind=Vote))
            chain.extend(reply.chain)
        except RemoteProtocolError as error:
            raise ApiError("no-answer", f"what is answered about the job does not hold: {error}") from None
        record = spec.record
        told = (view.job, view.alias, view.submitter)
        if told != (job, record.alias, record.submitter) or spec.digest != job:
            raise ApiError("no-answer", "what is answered is about another job")
        if not chain.has_held(view.steward):
            raise ApiError("no-answer", f"{view.steward}, which is said to be the job's steward, does not hold it")
        shown = (
            view.status,
            view.error,
            view.output,
            view.total_shards,
            view.succeeded,
            view.failed,
            view.completed_at,
        )
        if chain.final is None:
            holds = view.status not in ENDS
        else:
            holds = body is not None and chain.certifies(body) and shown == _end_of(body)
        if not holds:
            raise ApiError("no-answer", "what is answered about the job's end is not what its holders decided")
        peers = [view.steward, *(holder.peer for holder in [*chain.current.holders, *record.holders])]
        me = self._core.node.peer_id
        if chain.final is not None and me in peers:
            peers.insert(0, me)  # of a job that has ended all say the same
        return Answer(spec, chain, view, reply, tuple(dict.fromkeys(peers))[:_ASKED_MAX])


def _end_of(body: FinalBody) -> tuple[object, ...]:
    return body.status, body.error, body.output, body.total_shards, body.succeeded, body.failed, body.completed_at


def _peers_in(pointers: list[JobPointer]) -> tuple[PeerId, ...]:
    """Whom pointers of one job name: a steward of each, then a holder of each, and so on.

    Anyone can place a pointer to peers that do not answer: so one pointer's names come not all at once.
    """
    named = [[pointer.steward, *(holder.peer for holder in pointer.holders)] for pointer in pointers[:_POINTERS_TRIED]]
    in_turn = (peer for peers in zip_longest(*named) for peer in peers if peer is not None)
    return tuple(dict.fromkeys(in_turn))[:_ASKED_MAX]


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
