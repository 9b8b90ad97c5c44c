"""A submitter's view of the mesh, through one node.

with Client.to_node("http://TOKEN@127.0.0.1:8080") as client:
    accepted = client.submit(Path("job.yaml"))
    job = client.wait(accepted.full_id)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshnode.api import requests
from meshnode.client.connection import Connection
from meshnode.client.errors import NoNode, RequestRefused
from meshnode.client.home import default_home, submitter_key
from meshnode.client.http import HttpConnection, find_api
from meshnode.client.results import ENDED, Accepted, Cancelled, Job, JobOutput, Proposal, read_result
from meshnode.client.submission import Meter, add_bundle, no_meter, submit_file
from meshnode.jobs.bundle import read_bundle
from meshnode.jobs.errors import InvalidFile
from protocol.limits import BLOBS_PER_JOB_MAX
from protocol.records import Cancel, ModelPointer
from protocol.show import show_signed
from protocol.signing import sign
from protocol.wire import Link

POLL_FIRST_S = 0.1
POLL_MAX_S = 1.0
SILENCE_S_MAX = 30.0
"""For so long a node or a steward may not answer while a job is followed."""
CANCEL_TIMEOUT_S = 30.0
"""For so long a cancel is repeated."""
MODEL_KEPT_MS = 30 * 24 * 3_600_000
"""A published model has to be published again after this."""


class Client:
    """Requests of one submitter to one node. Methods raise RequestRefused or NoNode."""

    def __init__(self, connection: Connection, home: Path | None = None) -> None:
        self._connection = connection
        self._home = home or default_home()

    @classmethod
    @contextmanager
    def to_node(cls, api: str | None = None, home: Path | None = None) -> Iterator[Client]:
        """To the node with this API, else to the one whose home this is."""
        home = home or default_home()
        with HttpConnection(*find_api(api, home)) as connection:
            yield cls(connection, home)

    @classmethod
    @contextmanager
    def to_peer(cls, address: str, home: Path | None = None) -> Iterator[Client]:
        """Straight to any node of the mesh, over libp2p; ``address`` ends in ``/p2p/PEER``."""
        from meshnode.client.peer import connect_peer  # here: libp2p takes a second to load

        with connect_peer(address) as connection:
            yield cls(connection, home)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def submit(self, path: Path, meter: Meter = no_meter) -> Accepted:
        """Hand in a job file, or a signed job from the outbox. Raises InvalidFile as well."""
        return submit_file(self._connection, path, self._home, meter)

    def job(self, job: str) -> Job:
        """``job``: a full id, the start of one, or an alias."""
        return read_result(self._connection.ask(requests.GetJob(job=job, submitter=self._submitter())), Job)

    def details(self, job: str) -> dict[str, Any]:
        """The job with its tasks, receipts, awards and spec: what ``protocol.verify`` checks."""
        return _object(self._connection.ask(requests.GetDetails(job=job, submitter=self._submitter())))

    def watch(self, job: str) -> Iterator[Job]:
        """The job whenever it has changed, until it has ended."""
        last: Job | None = None
        pause_s, heard_at = POLL_FIRST_S, time.monotonic()
        while last is None or not last.ended:
            try:
                now = self.job(job)
                heard_at = time.monotonic()
            except NoNode:
                if last is None or time.monotonic() - heard_at > SILENCE_S_MAX:
                    raise
                now = last
            if now != last:
                yield now
                last, pause_s = now, POLL_FIRST_S
            if not now.ended:
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, POLL_MAX_S)

    def wait(self, job: str) -> Job:
        """The job once it has ended."""
        *_, last = self.watch(job)
        return last

    def output(self, job: str, *, files: bool = False) -> tuple[JobOutput, Iterator[bytes]]:
        """What the job made, and its bytes; with ``files`` the node has those to which it links, for ``file``."""
        request = requests.GetOutput(job=job, submitter=self._submitter(), files=files)
        found = read_result(self._connection.ask(request), JobOutput)
        return found, self._connection.read_blob(Link(cid=found.cid, size=found.size))

    def file(self, link: Link) -> Iterator[bytes]:
        """The bytes of a file to which an output links."""
        return self._connection.read_blob(link)

    def cancel(self, job: str, timeout_s: float | None = None) -> Cancelled:
        """End a job of this submitter. Only its holders' decision ends it, so this is repeated until there is one."""
        key = submitter_key(self._home)
        found = self.job(job)
        proposal = read_result(self._connection.ask(requests.Propose()), Proposal)  # for the node's clock
        cancel = Cancel(job=bytes.fromhex(found.full_id), submitter=key.peer_id, issued_at=proposal.wall_ms)
        if found.submitter != key.peer_id:
            raise RequestRefused(
                f"job {found.job_id} was submitted with another key, {found.submitter}", code="refused"
            )
        signed = show_signed(sign(cancel, key).signed)
        last: Cancelled | None = None
        ends_at = time.monotonic() + (CANCEL_TIMEOUT_S if timeout_s is None else timeout_s)
        while True:
            try:
                last = read_result(self._connection.ask(requests.Cancel(signed=signed)), Cancelled)
            except NoNode:
                if last is None and time.monotonic() >= ends_at:
                    raise
            if last is not None and (last.status in ENDED or time.monotonic() >= ends_at):
                return last
            time.sleep(POLL_MAX_S)

    # -- what only a node of one's own answers -------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        return [read_result(job, Job) for job in _items(self._own().get("/v1/jobs"), "jobs")]

    def peers(self) -> list[dict[str, Any]]:
        return _items(self._own().get("/v1/peers"), "peers")

    def models(self) -> list[dict[str, Any]]:
        return _items(self._own().get("/v1/models"), "models")

    def model(self, name: str) -> dict[str, Any]:
        return _object(self._connection.ask(requests.Resolve(model=name)))

    def publish(self, directory: Path, meter: Meter = no_meter) -> dict[str, Any]:
        """Publish the model in ``directory`` under the submitter's key. Raises InvalidFile as well."""
        bundle = read_bundle(directory)
        if len(bundle.files) > BLOBS_PER_JOB_MAX:
            raise InvalidFile(str(directory), "", f"holds {len(bundle.files)} files, more than {BLOBS_PER_JOB_MAX}")
        key = submitter_key(self._home)
        proposal = read_result(self._connection.ask(requests.Propose()), Proposal)
        manifest, files = add_bundle(self._connection, bundle, meter)
        pointer = ModelPointer(
            publisher=key.peer_id,
            model=bundle.model.model_id,
            manifest=manifest,
            files=tuple({link.cid: link for link in files}.values()),
            keepers=(proposal.node_id,),  # type: ignore[arg-type]
            issued_at=proposal.wall_ms,
            not_after=proposal.wall_ms + MODEL_KEPT_MS,
        )
        return _object(self._own().post("/v1/models", signed=show_signed(sign(pointer, key).signed)))

    def node(self) -> dict[str, Any]:
        return _object(self._own().get("/v1/node"))

    def doctor(self) -> dict[str, Any]:
        return _object(self._own().get("/v1/doctor"))

    def _submitter(self) -> str:
        """Whose aliases are meant; "" as long as this submitter has none."""
        return submitter_key(self._home).peer_id if (self._home / "submitter.key").exists() else ""

    def _own(self) -> HttpConnection:
        if not isinstance(self._connection, HttpConnection):
            raise RequestRefused("only a node of one's own answers that")
        return self._connection


def _object(answer: object) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise RequestRefused("the node's answer is not understood: no JSON object", code="internal")
    return answer


def _items(answer: object, key: str) -> list[dict[str, Any]]:
    items = _object(answer).get(key)
    if not isinstance(items, list):
        raise RequestRefused(f"the node's answer is not understood: no {key}", code="internal")
    return items
