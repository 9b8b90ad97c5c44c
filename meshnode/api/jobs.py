"""Jobs: hand one in, ask for it through any node, fetch its output, end it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import trio

from meshnode.api.core import Core
from meshnode.api.errors import ApiError
from meshnode.api.finding import Finder
from meshnode.api.relaying import Relay
from meshnode.blobs.errors import BlobError
from meshnode.execution.linked import TooManyLinks, linked_in
from protocol.effects import Proposal
from protocol.ending import ENDS
from protocol.errors import RemoteProtocolError
from protocol.events import CancelAsked, JobSubmitted, ProposalAsked
from protocol.identity import PeerId, public_key_of
from protocol.limits import DEFAULT_LIMITS, SHARDS_MAX
from protocol.messages import CancelReply, SubmitReply, TaskView
from protocol.records import Award, Cancel, JobPointer, JobSpec, Receipt, Vote
from protocol.show import job_name, show_details, show_hash, show_job, show_time
from protocol.show_record import ShownVotes, show_record
from protocol.signing import Signed
from protocol.wire import Link

Json = dict[str, Any]

SUBMIT_TIMEOUT_S = (DEFAULT_LIMITS.accept_timeout_ms + DEFAULT_LIMITS.hand_on_ms) / 1000 + 10
CANCEL_TIMEOUT_S = 45.0
"""Each of a few holders may take a while to say that there is no majority."""
_JOBS_ASKED_AT_ONCE = 8
_BYTES_LEFT_TO_CORE = 16 << 20
"""It gives a job one minute to be accepted, and a submitter's line may be slow."""


class Jobs:
    """Operations on jobs. ``text`` names one: a full id, the start of it, or an alias, first of ``submitter``'s own."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._finder = Finder(core)
        self._relay = Relay(core)

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

    async def submit(self, signed: str, sources: Sequence[str], *, stranger: bool = False) -> Json:
        """Take in a signed spec; its blobs come from ``sources`` unless they are here. Returns once it is accepted.

        The steward's core has them fetched once it has nothing against the job. Where this node is not the steward, or
        they are many bytes, they come here first: for a ``stranger`` within bounds and as far as policy allows.
        """
        opened = self._core.open(signed, JobSpec)
        spec, me = opened.record, self._core.node.peer_id
        try:
            peers = [_peer_id(peer) for peer in sources]
        except ValueError as error:
            raise ApiError("bad-request", str(error), "sources") from None
        size = sum(link.size for link in spec.blobs if not self._core.has(link))
        if stranger and size > DEFAULT_LIMITS.copy_bytes_max:
            allowed = DEFAULT_LIMITS.copy_bytes_max
            raise ApiError("too-large", f"the job's files have more than the {allowed} bytes allowed here", "blobs")
        if spec.steward == me and size <= _BYTES_LEFT_TO_CORE:
            reply = await self._hand_in(opened.signed, (me, *peers))
        else:
            async with self._relay.files_of(spec, peers, stranger=stranger):
                reply = await self._hand_in(opened.signed, (me,))
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

    async def _hand_in(self, spec: Signed, sources: tuple[PeerId, ...]) -> SubmitReply:
        return await self._core.ask(
            SubmitReply, lambda number: JobSubmitted(number, spec, sources), timeout_s=SUBMIT_TIMEOUT_S
        )

    async def cancel(self, signed: str) -> Json:
        """Pass on what ends a job by its submitter's word: a cancel, or the spec of a job that supersedes it.

        ``status`` is how the job ended, ``requested`` if its holders have not decided yet: ask again.
        """
        opened = self._core.open_any(signed)
        match opened.record:
            case Cancel(job=job) | JobSpec(supersedes=bytes(job)):
                submitter = opened.record.signer
            case _:
                raise ApiError("bad-request", "neither a cancel nor a job that supersedes another one", "signed")
        found = await self._finder.ask(job.hex(), submitter)
        if found.spec.record.submitter != submitter:
            raise ApiError("refused", "only the key that submitted a job can cancel it")
        steward, *holders = found.peers
        event = partial(CancelAsked, cancel=opened.signed, steward=steward, holders=tuple(holders))
        reply = await self._core.ask(CancelReply, event, timeout_s=CANCEL_TIMEOUT_S)
        if reply.status in ("unknown", "unreachable"):
            raise ApiError("no-answer", "none of the job's holders answers for it")
        name = job_name(found.spec.digest, found.spec.record.alias)
        answer = {"job_id": name, "full_id": found.spec.digest.hex(), "status": reply.status}
        if reply.status not in ENDS:
            return answer
        return answer | await self._end_of(found.spec.digest, found.peers)

    async def _end_of(self, job: bytes, peers: tuple[PeerId, ...]) -> Json:
        """What became of a job that has ended, as far as somebody says so."""
        try:
            view = (await self._finder.status(job, peers, None)).view
        except ApiError:
            return {}
        shown = show_job(view)
        return {"output_hash": shown["output_hash"], "error": shown["error"]} if view.status in ENDS else {}

    async def found(self) -> list[Json]:
        """The jobs that a search of the mesh finds, the newest first; of those nobody answers for, what is known."""
        shown: dict[bytes, Json] = {}
        slots = trio.CapacityLimiter(_JOBS_ASKED_AT_ONCE)

        async def ask(pointers: list[JobPointer]) -> None:
            async with slots:
                try:
                    shown[pointers[0].job] = show_job((await self._finder.first_answer(pointers)).view)
                except ApiError as error:
                    shown[pointers[0].job] = _unheard_of(pointers[0], error.message)

        async with trio.open_nursery() as nursery:
            for pointers in await self._finder.all():
                nursery.start_soon(ask, pointers)
        return sorted(shown.values(), key=lambda job: str(job["issued_at"]), reverse=True)

    async def one(self, text: str, submitter: PeerId | None = None) -> Json:
        return show_job((await self._finder.ask(text, submitter)).view)

    async def details(self, text: str, submitter: PeerId | None = None) -> Json:
        """The job with all its tasks, receipts and awards, gathered frame by frame."""
        found = await self._finder.ask(text, submitter, start=0)
        tasks: list[TaskView] = list(found.reply.tasks)
        awards: dict[bytes, Signed] = {signed.digest: signed for signed in found.reply.awards}
        following = found.reply.next
        while following:
            if following != len(tasks) or following > SHARDS_MAX + 1:
                raise ApiError("no-answer", "the answers of the job's steward do not fit together: ask again")
            more = await self._finder.status(found.spec.digest, found.peers, following)
            following = more.reply.next
            tasks += more.reply.tasks
            awards.update({signed.digest: signed for signed in more.reply.awards})
        try:
            receipts = [self._core.reader.open(task.receipt, Receipt) for task in tasks if task.receipt is not None]
            opened = [self._core.reader.open(signed, Award) for signed in awards.values()]
            chain = [
                ShownVotes(one, [self._core.reader.open(vote, Vote) for vote in one.votes])
                for one in found.chain.certificates
            ]
        except RemoteProtocolError as error:
            raise ApiError("no-answer", f"what the job's steward answers does not hold: {error}") from None
        record = show_record(chain, found.reply.body if found.chain.final is not None else None)
        return show_details(found.view, found.spec, tasks, receipts, opened, record)

    async def output(
        self, text: str, submitter: PeerId | None = None, *, files: bool = False, bytes_max: int | None = None
    ) -> Json:
        """The job's output, which this node has afterwards, with the ``files`` to which it links."""
        view = (await self._finder.ask(text, submitter)).view
        name, output = job_name(view.job, view.alias), view.output
        if output is None:
            reason = f": {view.error}" if view.error else ""
            raise ApiError("not-found", f"job {name} has no output: it is {view.status}{reason}")
        if bytes_max is not None and output.size > bytes_max:
            raise ApiError("too-large", f"the output has {output.size} bytes, more than the {bytes_max} allowed here")
        try:
            await self._core.node.fetch_blob(Link(cid=output.cid, size=output.size), view.keepers, view.records)
            path = self._core.node.blobs.path(output.cid)
            listed = await trio.to_thread.run_sync(linked_in, [path]) if files else []
            if bytes_max is not None and sum(link.size for link in listed) > bytes_max:
                raise ApiError("too-large", f"the output's files have more than the {bytes_max} bytes allowed here")
            for link in listed:
                await self._core.node.fetch_blob(link, view.keepers, view.records)
        except (BlobError, ValueError) as error:
            raise ApiError("no-answer", f"the output of job {name} cannot be had now: {error}") from None
        except TooManyLinks as error:
            raise ApiError("too-large", f"the output of job {name}: {error}") from None
        return {
            "job_id": name,
            "full_id": view.job.hex(),
            "cid": output.cid,
            "size": output.size,
            "output_hash": show_hash(output.sha256),
        }


def _unheard_of(pointer: JobPointer, reason: str) -> Json:
    return {
        "job_id": job_name(pointer.job, pointer.alias),
        "full_id": pointer.job.hex(),
        "status": "unknown",
        "submitter": pointer.submitter,
        "steward": pointer.steward,
        "issued_at": show_time(pointer.issued_at),
        "waiting": reason,
    }


def _peer_id(text: str) -> PeerId:
    public_key_of(text)
    return PeerId(text)
