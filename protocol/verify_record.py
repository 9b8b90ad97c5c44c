"""Checking offline what the holders of a job decided: the chain of certificates from the signed spec to the job's end.

The spec names the first holders; a majority of each holders' votes names the next ones, or the hash of the body that
says how the job ended. So there is one end, and it is what is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from protocol.chain import Chain
from protocol.comparing import brief, differences, equal
from protocol.decrees import Entry, FinalBody
from protocol.ending import ENDS
from protocol.errors import RemoteProtocolError
from protocol.records import JobSpec, Receipt, Vote
from protocol.show import read_signed, show_hash, show_output, show_time
from protocol.show_record import ShownVotes, read_body, read_certificate, show_body, show_certificate
from protocol.signing import Opened, RecordReader
from protocol.wire import Task

Found = Callable[[str, str], None]
"""Takes the place of a problem and its sentence."""


class RecordCheck:
    """The ``record`` of one details document. ``chain`` holds as far as its certificates do."""

    def __init__(self, document: dict[str, Any], spec: Opened[JobSpec], reader: RecordReader, found: Found) -> None:
        self._document = document
        self._reader = reader
        self._found = found
        self.chain = Chain(spec, partial(reader.open, kind=Vote))
        self.body: FinalBody | None = None
        shown = document.get("record")
        if not isinstance(shown, dict):
            found("record", "is missing or no object")
            shown = {}
        certificates = shown.get("chain", [])
        if not isinstance(certificates, list):
            found("record.chain", "is no list")
            certificates = []
        for index, certificate in enumerate(certificates):
            if not self._add(f"record.chain[{index}]", certificate):
                break
        self._read_body(shown.get("final"))
        for key in shown:
            if key not in ("chain", "final"):
                found(f"record.{key}", "is no part of a record")
        self._identity()

    # -- certificates

    def _add(self, place: str, shown: object) -> bool:
        """Whether the certificate holds; those after it say nothing if it does not."""
        votes = self._votes(place, shown)
        if votes is None:
            return False
        try:
            certificate = read_certificate(shown)
            followed = self.chain.extend([certificate])
        except RemoteProtocolError as error:
            self._found(place, str(error))
            return False
        if not followed:
            self._found(f"{place}.ballot", "does not follow on what was decided before it")
            return False
        as_signed = show_certificate(ShownVotes(certificate, votes))
        for where, sentence in differences(place, shown, as_signed):
            self._found(where, sentence)
        return True

    def _votes(self, place: str, shown: object) -> list[Opened[Vote]] | None:
        votes = shown.get("votes") if isinstance(shown, dict) else None
        if not isinstance(votes, list):
            self._found(f"{place}.votes", "is missing or no list")
            return None
        opened = []
        for index, vote in enumerate(votes):
            try:
                signed = read_signed(vote.get("signed") if isinstance(vote, dict) else None)
                opened.append(self._reader.open(signed, Vote))
            except RemoteProtocolError as error:
                self._found(f"{place}.votes[{index}].signed", str(error))
        return opened if len(opened) == len(votes) else None

    # -- the end

    def _read_body(self, shown: object) -> None:
        status, ended = self._document.get("status"), self.chain.final is not None
        if status in ENDS and not ended:
            self._found("status", f"is {brief(status)}, but no certificate of its holders says so")
        if status not in ENDS and ended:
            self._found("status", f"is {brief(status)}, but its holders have certified its end")
        if shown is None:
            if ended:
                self._found("record.final", "is missing, but the job's holders have certified it")
            return
        try:
            body = read_body(shown)
        except RemoteProtocolError as error:
            self._found("record.final.encoded", str(error))
            return
        for where, sentence in differences("record.final", shown, show_body(body)):
            self._found(where, sentence)
        if not self.chain.certifies(body):
            self._found("record.final.encoded", "is not what a certificate of the job's holders names")
        else:
            self.body = body

    def _identity(self) -> None:
        """Who is shown as steward: of an ended job the one whose ballot decided that, else any that holds it."""
        steward = self._document.get("steward")
        if self.chain.final is not None:
            decided_by = self.chain.certificates[-1].ballot.peer
            if steward != decided_by:
                self._found(
                    "steward", f"is {brief(steward)}, but the job's end was decided in a ballot of {decided_by}"
                )
        elif not isinstance(steward, str) or not any(steward in one.peers for one in self.chain.configurations):
            self._found("steward", "is no holder of the job, by its spec and what its holders decided")

    # -- the end against what is shown

    def compare(self, receipts: dict[Task, tuple[str, Opened[Receipt]]]) -> None:
        """``receipts``, with their places, are those that were shown and are good."""
        body = self.body
        if body is None:
            return
        output = show_output(body.output)
        expected = {
            "status": body.status,
            "error": body.error,
            "total_shards": body.total_shards,
            "succeeded": body.succeeded,
            "failed": body.failed,
            "running": 0,
            "output_hash": output["output_hash"] if output else None,
            "output": {"cid": output["cid"], "size": output["size"]} if output else None,
            "completed_at": show_time(body.completed_at),
            "waiting": "",
            "provisional": None,
        }
        for key, value in expected.items():
            if not equal(shown := self._document.get(key), value):
                self._found(key, f"is {brief(shown)}, but by the decided end of the job it is {brief(value)}")
        counted: set[Task] = set()
        for index, entry in enumerate(body.entries):
            self._entry(f"record.final.entries[{index}]", entry, receipts)
            if entry.receipt is not None:
                counted.add(entry.task)
        for task, (place, _) in receipts.items():
            if task not in counted:
                self._found(place, "is of a task that has no receipt in the decided end of the job")

    def _entry(self, place: str, entry: Entry, receipts: dict[Task, tuple[str, Opened[Receipt]]]) -> None:
        if entry.receipt is None:
            return
        shown = receipts.get(entry.task)
        if shown is None:
            self._found(place, f"counts the receipt {show_hash(entry.receipt)}, which is not among the good receipts")
        elif shown[1].digest != entry.receipt:
            self._found(shown[0], f"is not the receipt that counts, {show_hash(entry.receipt)}, by {place}")
