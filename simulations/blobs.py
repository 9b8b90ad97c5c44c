"""What the blobs of a world are, and what a task makes of them: names and sizes without bytes.

A blob is named by what it was made from, so the same task over the same input gives the same output on every machine,
and the output of a whole job can be told in advance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from protocol import batches
from protocol.effects import StartRun
from protocol.limits import CONTENT_BYTES_MAX
from protocol.records import JobSpec, StageSpec
from protocol.wire import Link, Output, Role

_JSON_BYTES = 2_000


def _cid_of(digest: bytes) -> str:
    return "sim" + digest.hex()[:32]


class Blob(msgspec.Struct, frozen=True):
    """An immutable object: its name, its size, the blobs it links to."""

    output: Output
    links: tuple[str, ...] = ()
    content: bytes = b""
    """What its SHA-256 is of; left out where that is long, or refers to other blobs."""

    @property
    def link(self) -> Link:
        return Link(cid=self.output.cid, size=self.output.size)


class Library:
    """All blobs that were ever made in a world. Who has which is up to the machines' disks."""

    def __init__(self) -> None:
        self._blobs: dict[str, Blob] = {}
        self._parts: dict[str, int] = {}
        self._shards: dict[str, int] = {}
        """How many shards a split's output lists."""

    def make(self, *made_from: object, size: int, links: tuple[str, ...] = ()) -> Blob:
        """The blob made from these things; the same one each time."""
        content = repr((made_from, links)).encode()
        digest = hashlib.sha256(content).digest()
        cid = _cid_of(digest)
        blob = self._blobs.get(cid)
        if blob is None:
            small = not links and max(size, len(content)) <= CONTENT_BYTES_MAX
            output = Output(cid=cid, size=size, sha256=digest)
            blob = self._blobs[cid] = Blob(output, links, content if small else b"")
        return blob

    def job_input(self, name: str, *, parts: int, photo_bytes: int) -> Blob:
        """A job's input object, which links to one file that splits into ``parts``."""
        photo = self.make("photo", name, size=photo_bytes)
        blob = self.make("input", name, size=_JSON_BYTES, links=(photo.output.cid,))
        self._parts[blob.output.cid] = parts
        return blob

    def name_of(self, content: bytes) -> str:
        """The CID of a blob with this content."""
        return _cid_of(hashlib.sha256(content).digest())

    def link(self, cid: str) -> Link:
        return self._blobs[cid].link

    def size(self, cid: str) -> int:
        return self._blobs[cid].output.size

    def with_links(self, cids: Iterable[str]) -> tuple[str, ...]:
        """These blobs and all that they link to, each once."""
        found = dict.fromkeys(cids)
        ahead = list(found)
        while ahead:
            for cid in self._blobs[ahead.pop()].links:
                if cid not in found:
                    found[cid] = None
                    ahead.append(cid)
        return tuple(found)

    # -- the work

    def split(self, stage: StageSpec, job_input: str) -> Blob:
        parts = self._parts[job_input]
        shards = min(stage.shard_count or parts, parts, stage.max_shards)
        tile_bytes = self.size(self._blobs[job_input].links[0]) // shards
        tiles = (
            self.make("tiles", stage.settings, job_input, i, size=tile_bytes * len(batches.shards_of(i, shards)))
            for i in range(batches.task_count(shards))
        )
        links = tuple(tile.output.cid for tile in tiles)
        split = self.make("split", stage.settings, job_input, size=_JSON_BYTES * len(links), links=links)
        self._shards[split.output.cid] = shards
        return split

    def shard(self, stage: StageSpec, shard_input: str) -> Blob:
        return self.make("shard", stage.manifest.cid, stage.settings, shard_input, size=_JSON_BYTES)

    def merge(self, stage: StageSpec, outputs: tuple[str, ...]) -> Blob:
        return self.make("merge", stage.merge, outputs, size=_JSON_BYTES * len(outputs))

    def shard_input(self, run: StartRun) -> str:
        return run.input.cid if run.split is None else self._blobs[run.split.cid].links[run.task.index]

    def reads(self, run: StartRun) -> tuple[str, ...]:
        """The blobs a run needs on its machine's disk."""
        match run.task.role:
            case Role.SPLIT:
                return self.with_links((run.input.cid,))
            case Role.SHARD:
                model = self.with_links((run.stage.manifest.cid,))
                if run.split is None:
                    return (*model, *self.with_links((run.input.cid,)))
                return (*model, run.split.cid, self.shard_input(run))
            case Role.MERGE:
                return tuple(part.output.cid for part in run.parts if part.output is not None)

    def output_of(self, run: StartRun) -> Blob:
        """What an honest machine makes of a task."""
        match run.task.role:
            case Role.SPLIT:
                return self.split(run.stage, run.input.cid)
            case Role.SHARD:
                return self.shard(run.stage, self.shard_input(run))
            case Role.MERGE:
                return self.merge(run.stage, self.reads(run))

    def shards_of(self, split: Blob) -> int:
        return self._shards[split.output.cid]

    def total_shards(self, spec: JobSpec) -> int:
        stage = spec.stages[0]
        return self.shards_of(self.split(stage, spec.input.cid)) if stage.split else 1

    def expected(self, spec: JobSpec) -> tuple[tuple[Output, ...], Output]:
        """What the job's inputs imply: the outputs of its shard tasks, and the final output."""
        stage = spec.stages[0]
        if not stage.split:
            whole = self.shard(stage, spec.input.cid).output
            return (whole,), whole
        split = self.split(stage, spec.input.cid)
        shards = tuple(self.shard(stage, cid).output for cid in split.links)
        return shards, self.merge(stage, tuple(output.cid for output in shards)).output
