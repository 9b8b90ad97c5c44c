"""Jobs: hand one in, ask for it through any node, fetch its output, end it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import trio

from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from meshnode.blobs.errors import BlobError
from protocol.effects import Proposal
from protocol.errors import RemoteProtocolError
from protocol.events import CancelAsked, JobSubmitted, ProposalAsked, StatusAsked
from protocol.identity import PeerId, public_key_of
from protocol.limits import DEFAULT_LIMITS
from protocol.messages import CancelReply, StatusReply, SubmitReply, TaskView
from protocol.records import Award, Cancel, JobPointer, JobSpec, Receipt
from protocol.show import job_name, show_details, show_job, show_link, show_time
from protocol.signing import Signed
from protocol.wire import Link, Output

Json = dict[str, Any]

SUBMIT_TIMEOUT_S = DEFAULT_LIMITS.accept_timeout_ms / 1000 + 10
_JOBS_ASKED_AT_ONCE = 8
_STEWARDS_KEPT = 1024


class Jobs:
    """Operations on jobs. ``text`` names a job: a full id, the start of one, or an alias."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._stewards: OrderedDict[bytes, PeerId] = OrderedDict()

    async def propose(self, durability: int) -> Json:
        proposal = await self._core.ask(Proposal, lambda number: ProposalAsked(number, durability))
        return {
            "mesh": proposal.mesh,
            "node_id": self._core.node.peer_id,
            "steward": proposal.steward,
            "holders": [{"node_id": holder.peer, "store": holder.store.hex()} for holder in proposal.holders],
            "wall_ms": proposal.wall_ms,
            "notes": list(proposal.notes),
        }

    async def submit(self, signed: str, sources: Sequence[str], *, bytes_max: int | None = None) -> Json:
        """Take in a signed spec; its blobs come from ``sources`` unless they are here. Returns once it is accepted.

        ``bytes_max`` bounds what is fetched for it.
        """
        opened = self._core.open(signed, JobSpec)
        missing = [link for link in opened.record.blobs if not self._core.has(link)]
        if bytes_max is not None and sum(link.size for link in missing) > bytes_max:
            raise ApiError("too-large", f"the job's files have more than the {bytes_max} bytes allowed here", "blobs")
        for link in missing:
            try:
                await self._core.node.fetch_blob(link, [_peer_id(peer) for peer in sources])
            except (BlobError, ValueError) as error:
                raise ApiError("bad-request", f"a file of the job cannot be had: {error}", "blobs") from None
        own = (self._core.node.peer_id,)
        reply = await self._core.ask(
            SubmitReply, lambda number: JobSubmitted(number, opened.signed, own), timeout_s=SUBMIT_TIMEOUT_S
        )
        if not reply.accepted:
            raise ApiError("refused", reply.reason)
        return {
            "job_id": job_name(opened.digest, opened.record.alias),
            "full_id": opened.digest.hex(),
            "steward": opened.record.steward,
            "copies": reply.copies,
            "pointers": reply.pointers,
            "notes": list(reply.notes),
        }

    async def cancel(self, signed: str) -> Json:
        """Pass on a cancel that the job's submitter signed."""
        opened = self._core.open(signed, Cancel)
        job = opened.record.job
        pointer = await self._find(job.hex())
        if pointer.submitter != opened.record.submitter:
            raise ApiError("refused", "only the key that submitted a job can cancel it")
        reply = await self._core.ask(CancelReply, lambda number: CancelAsked(number, opened.signed, pointer.steward))
        if reply.status in ("unknown", "unreachable"):
            raise ApiError("no-answer", f"the job's steward, {pointer.steward}, does not answer for it")
        return {"job_id": job_name(job, pointer.alias), "full_id": job.hex(), "status": reply.status}

    async def found(self) -> list[Json]:
        """The jobs that a search of the mesh finds, newest first; those whose steward is silent as ``unknown``."""
        newest: dict[bytes, JobPointer] = {}
        for pointer in await self._core.search("job", "", JobPointer):
            if pointer.job not in newest or newest[pointer.job].issued_at < pointer.issued_at:
                newest[pointer.job] = pointer
        shown: dict[bytes, Json] = {}
        slots = trio.CapacityLimiter(_JOBS_ASKED_AT_ONCE)

        async def ask(pointer: JobPointer) -> None:
            async with slots:
                shown[pointer.job] = await self._summary(pointer)

        async with trio.open_nursery() as nursery:
            for pointer in newest.values():
                nursery.start_soon(ask, pointer)
        return sorted(shown.values(), key=lambda job: str(job["issued_at"]), reverse=True)

    async def _summary(self, pointer: JobPointer) -> Json:
        try:
            return show_job((await self._status(pointer.job, pointer.steward, None)).view)  # type: ignore[arg-type]
        except ApiError:
            return {
                "job_id": job_name(pointer.job, pointer.alias),
                "full_id": pointer.job.hex(),
                "status": "unknown",
                "submitter": pointer.submitter,
                "steward": pointer.steward,
                "issued_at": show_time(pointer.issued_at),
                "waiting": "its steward does not answer",
            }

    async def one(self, text: str) -> Json:
        reply = await self._ask_about(text, None)
        assert reply.view is not None
        return show_job(reply.view)

    async def details(self, text: str) -> Json:
        """The job with all its tasks, receipts and awards, gathered page by page."""
        reply = await self._ask_about(text, 0)
        assert reply.view is not None
        tasks: list[TaskView] = list(reply.tasks)
        awards: dict[bytes, Signed] = {signed.digest: signed for signed in reply.awards}
        for page in range(1, reply.pages):
            more = await self._status(reply.view.job, self._stewards[reply.view.job], page)
            tasks += more.tasks
            awards.update({signed.digest: signed for signed in more.awards})
        try:
            if reply.spec is None:
                raise RemoteProtocolError("the spec is missing")
            spec = self._core.reader.open(reply.spec, JobSpec)
            receipts = [self._core.reader.open(task.receipt, Receipt) for task in tasks if task.receipt is not None]
            opened = [self._core.reader.open(signed, Award) for signed in awards.values()]
        except RemoteProtocolError as error:
            raise ApiError("no-answer", f"what the job's steward answered does not hold: {error}") from None
        return show_details(reply.view, spec, tasks, receipts, opened)

    async def output(self, text: str) -> Json:
        """The job's output, which this node has afterwards."""
        reply = await self._ask_about(text, None)
        view = reply.view
        assert view is not None
        name = job_name(view.job, view.alias)
        if view.output is None:
            reason = f": {view.error}" if view.error else ""
            raise ApiError("not-found", f"job {name} has no output: it is {view.status}{reason}")
        await self._fetch_output(name, view.output, view.keepers, view.records)
        return {
            "job_id": name,
            "full_id": view.job.hex(),
            **show_link(Link(cid=view.output.cid, size=view.output.size)),
            "output_hash": f"0x{view.output.sha256.hex()}",
        }

    async def _fetch_output(
        self, name: str, output: Output, keepers: Sequence[PeerId], records: Sequence[Signed]
    ) -> None:
        try:
            await self._core.node.fetch_blob(Link(cid=output.cid, size=output.size), keepers, records)
        except (BlobError, ValueError) as error:
            raise ApiError("no-answer", f"the output of job {name} cannot be had now: {error}") from None

    async def _ask_about(self, text: str, page: int | None) -> StatusReply:
        """What the steward of the job that ``text`` means says."""
        known = self._known(text)
        if known is not None:
            reply = await self._core.ask(
                StatusReply, lambda number: StatusAsked(number, known, self._stewards[known], page)
            )
            if reply.view is not None:
                return reply
            del self._stewards[known]
        pointer = await self._find(text)
        return await self._status(pointer.job, pointer.steward, page)

    async def _status(self, job: bytes, steward: PeerId, page: int | None) -> StatusReply:
        reply = await self._core.ask(StatusReply, lambda number: StatusAsked(number, job, steward, page))
        if reply.view is None:
            raise ApiError("no-answer", f"the job's steward, {steward}, does not answer for it")
        self._stewards[job] = steward
        self._stewards.move_to_end(job)
        if len(self._stewards) > _STEWARDS_KEPT:
            self._stewards.popitem(last=False)
        return reply

    def _known(self, text: str) -> bytes | None:
        """The job of a full id whose steward is known already."""
        if not re.fullmatch(r"[0-9a-f]{64}", text):
            return None
        job = bytes.fromhex(text)
        return job if job in self._stewards else None

    async def _find(self, text: str) -> JobPointer:
        """The one job that ``text`` means: by alias, or by the start of its id."""
        newest: dict[bytes, JobPointer] = {}
        digits = text.replace("-", "").lower()
        for pointer in await self._core.search("job", text, JobPointer):
            if pointer.alias != text and not (digits and pointer.job.hex().startswith(digits)):
                continue
            if pointer.job not in newest or newest[pointer.job].issued_at < pointer.issued_at:
                newest[pointer.job] = pointer
        if not newest:
            raise ApiError("not-found", f"no job {text!r} is known in this mesh", "job")
        if len(newest) > 1:
            latest = sorted(newest.values(), key=lambda pointer: -pointer.issued_at)
            choices = ", ".join(pointer.job.hex()[:16] for pointer in latest[:4])
            raise ApiError("ambiguous", f"{text!r} may mean {len(newest)} jobs: give more of the id, {choices}", "job")
        return next(iter(newest.values()))


def _peer_id(text: str) -> PeerId:
    public_key_of(text)
    return PeerId(text)
