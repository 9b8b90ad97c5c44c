"""The earlier job that a job takes the place of: which one is meant, and its end once the new one is accepted.

The new job's spec names the old one and is signed by the same submitter: so it is a cancel of it.
"""

from __future__ import annotations

import re
from pathlib import Path

from meshnode.api import requests
from meshnode.client.connection import Connection
from meshnode.client.errors import ClientError
from meshnode.client.home import signed_jobs
from meshnode.client.results import Cancelled, Job, read_result
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.jobfile import JobFile
from protocol.identity import PeerId


def superseded_by(connection: Connection, job: JobFile, home: Path, submitter: PeerId) -> bytes:
    """The full id of the job that ``job`` is to take the place of. Raises InvalidFile.

    One that was never accepted is not known to any node, but lies in the outbox.
    """
    text = job.supersedes
    assert text is not None
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return bytes.fromhex(text)
    try:
        found = read_result(connection.ask(requests.GetJob(job=text, submitter=submitter)), Job)
    except ClientError as error:
        digits = text.replace("-", "").lower()
        kept = [one for one, alias in signed_jobs(home) if alias == text or (digits and one.startswith(digits))]
        if len(kept) != 1:
            raise InvalidFile(job.file, "supersedes", str(error)) from None
        return bytes.fromhex(kept[0])
    if found.submitter != submitter:
        raise InvalidFile(
            job.file, "supersedes", f"job {found.job_id} was submitted with another key, {found.submitter}"
        )
    return bytes.fromhex(found.full_id)


def end_superseded(connection: Connection, signed: str, full_id: str) -> str:
    """Ask for the end of the old job; what came of it, in one sentence."""
    try:
        ended = read_result(connection.ask(requests.Cancel(signed=signed)), Cancelled)
    except ClientError as error:
        return f"job {full_id}, which it supersedes, could not be asked to end: {error}"
    if ended.status == "requested":
        return f"job {ended.job_id}, which it supersedes, is asked to end; no majority of its holders answers"
    how = "is cancelled" if ended.status == "cancelled" else f"had already finished: {ended.status}"
    return f"job {ended.job_id}, which it supersedes, {how}"
