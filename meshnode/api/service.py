"""The API's operations over a node, whatever the transport: values in, JSON values out, ApiError for the rest."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from meshnode import retention
from meshnode.api.errors import ApiError
from meshnode.api.ports import ApiNode
from meshnode.blobs import cid as cids
from meshnode.blobs.errors import BlobError
from meshnode.jobs.canonical import InvalidJson, loads_strict
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.modelfile import parse_model
from meshnode.node import NotAnswered
from protocol.effects import Proposal
from protocol.errors import RemoteProtocolError
from protocol.events import (
    CancelAsked,
    Event,
    JobSubmitted,
    PointerPublished,
    PointersAsked,
    ProposalAsked,
    StatusAsked,
)
from protocol.identity import Ed25519Verifier, PeerId, public_key_of
from protocol.limits import DEFAULT_LIMITS
from protocol.messages import CancelReply, LookupReply, Message, PointerStored, StatusReply, SubmitReply, TaskView
from protocol.records import Award, Cancel, Capability, JobPointer, JobSpec, ModelPointer, Receipt, Record
from protocol.show import job_name, read_signed, show_details, show_job, show_link, show_time
from protocol.signing import Opened, RecordReader, Signed
from protocol.wire import Link, Output

Json = dict[str, Any]
R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=Message | Proposal)

ASK_TIMEOUT_S = 10.0
SUBMIT_TIMEOUT_S = DEFAULT_LIMITS.accept_timeout_ms / 1000 + 10
MANIFEST_BYTES_MAX = 4 << 20
_JOBS_ASKED_AT_ONCE = 8
_STEWARDS_KEPT = 1024


class Service:
    """What a node does for its clients."""

    def __init__(self, node: ApiNode) -> None:
        self._node = node
        self._reader = RecordReader(Ed25519Verifier())
        self._stewards: OrderedDict[bytes, PeerId] = OrderedDict()

    @property
    def node(self) -> ApiNode:
        return self._node

    # -- the node itself -----------------------------------------------------------------------------------------------

    def info(self) -> Json:
        snapshot = self._node.snapshot()
        return {
            "node_id": snapshot.peer_id,
            "mesh": snapshot.mesh,
            "version": snapshot.capability.version,
            "addresses": list(snapshot.capability.addresses),
            "neighbours": list(snapshot.neighbours),
            "peers_known": len(snapshot.known),
            "mesh_size": snapshot.mesh_size,
            "clock_offset_ms": snapshot.clock_offset_ms,
            "clock_wrong": snapshot.clock_wrong,
            "jobs": len(snapshot.stewarding),
            "leases": snapshot.leases,
            "runs": snapshot.runs,
            "wall": show_time(self._node.wall()),
        }

    async def doctor(self) -> Json:
        return await self._node.doctor()

    def peers(self) -> list[Json]:
        """This node first, then all whom it knows."""
        snapshot = self._node.snapshot()
        neighbours = set(snapshot.neighbours)
        return [
            _peer(snapshot.capability, "self"),
            *(
                _peer(capability, "neighbour" if capability.peer in neighbours else "known")
                for capability in sorted(snapshot.known, key=lambda capability: capability.peer)
            ),
        ]

    # -- models --------------------------------------------------------------------------------------------------------

    async def models(self) -> list[Json]:
        """The published models that a search of the mesh finds, by name and publisher."""
        found = await self._model_pointers("")
        return [_model(pointer) for pointer in sorted(found, key=lambda one: (one.model, one.publisher))]

    async def resolve(self, text: str) -> Json:
        """The model that ``text`` means, with its manifest, which this node has afterwards."""
        pointer, link, keepers = await self._model_of(text)
        try:
            await self._node.fetch_blob(link, keepers)
            content = await self._node.blobs.read(link.cid, 0, self._node.blobs.size(link.cid))
            manifest = loads_strict(content)
            model = parse_model(manifest["model"])
        except BlobError as error:
            raise ApiError("not-found", f"the files of {text} cannot be had: {error}", "model") from None
        except (InvalidJson, InvalidFile, TypeError, KeyError) as error:
            raise ApiError("bad-request", f"{text} is not a model: {error}", "model") from None
        found = _model(pointer) if pointer else {"name": model.model_id, "publisher": None, "keepers": list(keepers)}
        return {**found, "manifest": {"cid": link.cid, "size": len(content)}, "content": manifest}

    async def publish(self, signed: str) -> Json:
        """Make a model findable under its name. Its files must be at this node, and are kept here."""
        opened = self._open(signed, ModelPointer)
        pointer = opened.record
        if self._node.peer_id not in pointer.keepers:
            raise ApiError("bad-request", "the pointer does not name this node as a keeper of the files", "keepers")
        for link in (pointer.manifest, *pointer.files):
            if not self._has(link):
                raise ApiError("bad-request", f"blob {link.cid} of the model is not at this node", "files")
        for link in (pointer.manifest, *pointer.files):
            retention.keep_until(self._node.blobs, link.cid, pointer.not_after / 1000)
        await self._ask(PointerStored, lambda number: PointerPublished(number, opened.signed))
        return _model(pointer)

    async def _model_of(self, text: str) -> tuple[ModelPointer | None, Link, Sequence[PeerId]]:
        try:
            cid = cids.canonical(text)
        except ValueError:
            pointer = await self._named_model(text)
            return pointer, pointer.manifest, pointer.keepers
        if self._node.blobs.has(cid):
            return None, Link(cid=cid, size=self._node.blobs.size(cid)), (self._node.peer_id,)
        known = [capability.peer for capability in self._node.snapshot().known]
        return None, Link(cid=cid, size=MANIFEST_BYTES_MAX), known[:15]

    async def _named_model(self, text: str) -> ModelPointer:
        publisher, _, name = text.rpartition("/")
        found = [one for one in await self._model_pointers(name) if one.model == name]
        if publisher:
            found = [one for one in found if one.publisher.startswith(publisher)]
        if not found:
            raise ApiError("not-found", f"no model {text!r} is published in this mesh", "model")
        if len(found) > 1:
            choices = ", ".join(sorted(f"{one.publisher}/{one.model}" for one in found)[:4])
            raise ApiError("ambiguous", f"{len(found)} publishers have a model {name!r}: say {choices}", "model")
        return found[0]

    async def _model_pointers(self, name: str) -> list[ModelPointer]:
        """The newest of each publisher and name that is neither expired nor withdrawn."""
        newest: dict[tuple[str, str], ModelPointer] = {}
        for pointer in await self._search("model", name, ModelPointer):
            key = (pointer.publisher, pointer.model)
            if key not in newest or newest[key].issued_at < pointer.issued_at:
                newest[key] = pointer
        now = self._node.wall()
        return [pointer for pointer in newest.values() if not pointer.withdrawn and pointer.not_after > now]

    # -- handing in ----------------------------------------------------------------------------------------------------

    async def propose(self, durability: int) -> Json:
        proposal = await self._ask(Proposal, lambda number: ProposalAsked(number, durability))
        return {
            "mesh": proposal.mesh,
            "node_id": self._node.peer_id,
            "steward": proposal.steward,
            "holders": [{"node_id": holder.peer, "store": holder.store.hex()} for holder in proposal.holders],
            "wall_ms": proposal.wall_ms,
            "notes": list(proposal.notes),
        }

    async def submit(self, signed: str, sources: Sequence[str], *, bytes_max: int | None = None) -> Json:
        """Take in a signed spec; its blobs come from ``sources`` unless they are here. Returns once it is accepted.

        ``bytes_max`` bounds what is fetched for it.
        """
        opened = self._open(signed, JobSpec)
        missing = [link for link in opened.record.blobs if not self._has(link)]
        if bytes_max is not None and sum(link.size for link in missing) > bytes_max:
            raise ApiError("too-large", f"the job's files have more than the {bytes_max} bytes allowed here", "blobs")
        for link in missing:
            try:
                await self._node.fetch_blob(link, [_peer_id(peer) for peer in sources])
            except (BlobError, ValueError) as error:
                raise ApiError("bad-request", f"a file of the job cannot be had: {error}", "blobs") from None
        own = (self._node.peer_id,)
        reply = await self._ask(
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
        opened = self._open(signed, Cancel)
        job = opened.record.job
        pointer = await self._find(job.hex())
        if pointer.submitter != opened.record.submitter:
            raise ApiError("refused", "only the key that submitted a job can cancel it")
        reply = await self._ask(CancelReply, lambda number: CancelAsked(number, opened.signed, pointer.steward))
        if reply.status in ("unknown", "unreachable"):
            raise ApiError("no-answer", f"the job's steward, {pointer.steward}, does not answer for it")
        return {"job_id": job_name(job, pointer.alias), "full_id": job.hex(), "status": reply.status}

    # -- asking --------------------------------------------------------------------------------------------------------

    async def jobs(self) -> list[Json]:
        """The jobs that a search of the mesh finds, newest first; those whose steward is silent as ``unknown``."""
        newest: dict[bytes, JobPointer] = {}
        for pointer in await self._search("job", "", JobPointer):
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

    async def job(self, text: str) -> Json:
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
            spec = self._reader.open(reply.spec, JobSpec)
            receipts = [self._reader.open(task.receipt, Receipt) for task in tasks if task.receipt is not None]
            opened = [self._reader.open(signed, Award) for signed in awards.values()]
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
            await self._node.fetch_blob(Link(cid=output.cid, size=output.size), keepers, records)
        except (BlobError, ValueError) as error:
            raise ApiError("no-answer", f"the output of job {name} cannot be had now: {error}") from None

    async def _ask_about(self, text: str, page: int | None) -> StatusReply:
        """What the steward of the job that ``text`` means says."""
        known = self._known(text)
        if known is not None:
            reply = await self._ask(StatusReply, lambda number: StatusAsked(number, known, self._stewards[known], page))
            if reply.view is not None:
                return reply
            del self._stewards[known]
        pointer = await self._find(text)
        return await self._status(pointer.job, pointer.steward, page)

    async def _status(self, job: bytes, steward: PeerId, page: int | None) -> StatusReply:
        reply = await self._ask(StatusReply, lambda number: StatusAsked(number, job, steward, page))
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
        for pointer in await self._search("job", text, JobPointer):
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

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def _ask(self, kind: type[M], make_event: Callable[[int], Event], *, timeout_s: float = ASK_TIMEOUT_S) -> M:
        try:
            answer = await self._node.ask(make_event, timeout_s)
        except NotAnswered as error:
            raise ApiError("no-answer", str(error)) from None
        if not isinstance(answer, kind):
            raise ApiError("refused", getattr(answer, "reason", "") or f"the node answered {type(answer).__name__}")
        return answer

    async def _search(self, what: str, text: str, kind: type[R]) -> list[R]:
        reply = await self._ask(LookupReply, lambda number: PointersAsked(number, what, text))
        found = []
        for signed in reply.pointers:
            try:
                found.append(self._reader.open(signed, kind).record)
            except RemoteProtocolError:
                continue  # what another peer keeps need not be true
        return found

    def _open(self, signed: str, kind: type[R]) -> Opened[R]:
        try:
            return self._reader.open(read_signed(signed), kind)
        except RemoteProtocolError as error:
            raise ApiError("bad-request", str(error), "signed") from None

    def _has(self, link: Link) -> bool:
        try:
            return self._node.blobs.has(link.cid)
        except ValueError as error:
            raise ApiError("bad-request", str(error), "blobs") from None


def _peer_id(text: str) -> PeerId:
    public_key_of(text)
    return PeerId(text)


def _peer(capability: Capability, relation: str) -> Json:
    return {
        "node_id": capability.peer,
        "relation": relation,
        "addresses": list(capability.addresses),
        "cpu": capability.cpu_milli / 1000,
        "memory_bytes": capability.memory_bytes,
        "isolation": list(capability.isolation),
        "labels": dict(capability.labels),
        "version": capability.version,
        "incarnation": capability.incarnation,
        "not_after": show_time(capability.not_after),
    }


def _model(pointer: ModelPointer) -> Json:
    return {
        "name": pointer.model,
        "publisher": pointer.publisher,
        "manifest": show_link(pointer.manifest),
        "files": len(pointer.files),
        "size": sum(link.size for link in pointer.files),
        "keepers": list(pointer.keepers),
        "issued_at": show_time(pointer.issued_at),
        "not_after": show_time(pointer.not_after),
    }
