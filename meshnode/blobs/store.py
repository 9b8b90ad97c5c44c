"""Blobs on disk, under the node's home.

    blobs/<shard>/<cid>       content, a plain read-only file: there or not there, never half
    blobs/<shard>/<cid>.dag   its inner nodes, if it has more than one chunk; put in place before the content
    partial/<cid>[.dag]       received so far; kept over a restart
    incoming/                 being added; emptied when the store opens

One process at a time. Disk work runs in threads, a piece at a time; the index and the accounting live in the trio
thread and need no locks.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from meshnode.blobs import cid as cids
from meshnode.blobs.errors import BlobDamaged, BlobMissing, BlobTooLarge, StoreFailed, StoreFull
from meshnode.blobs.files import BlobReader, NewBlob, PartialBlob, dag_path, fsync_folder, unlink_pair
from meshnode.blobs.unixfs import Layout
from meshnode.blobs.walk import BadBlock

DEFAULT_CAPACITY = 64 << 30
"""Bytes."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class BlobRef:
    """A blob: its name, and the bytes of its content."""

    cid: str
    size: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on disk: whole blobs and partial ones, against what is allowed."""

    blobs: int
    blob_bytes: int
    partial_bytes: int
    capacity: int


def content_path(folder: Path, cid: str) -> Path:
    """Where the blob's content lies below ``folder``, the store's ``blobs``; ``cid`` in its canonical spelling."""
    return folder / cid[-3:-1] / cid  # the last character has one bit of the hash only


@contextmanager
def _disk_failures() -> Iterator[None]:
    """An error of this disk, a full one for instance, as StoreFailed: not to be taken for the source's."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(f"a blob could not be written: {error.strerror or error}") from error


class BlobStore:
    """A folder of blobs. Names may be given as CIDv1 or CIDv0; ValueError for anything else."""

    def __init__(
        self,
        root: Path,
        *,
        capacity: int = DEFAULT_CAPACITY,
        reserve: int = 0,
        durable: bool = True,
        layout: Layout = Layout(),  # noqa: B008 (immutable)
    ) -> None:
        """Open or make the store at ``root``; what a killed process left half done is swept away.

        ``reserve``: bytes that are left free on the disk, whatever the capacity.
        ``durable``: a blob that was added survives a power loss, at the price of a sync each.
        """
        self.layout = layout
        self.capacity = capacity
        self._reserve = reserve
        self._durable = durable
        self._root = root
        self._blobs_folder = root / "blobs"
        self._partial_folder = root / "partial"
        self._incoming_folder = root / "incoming"
        for folder in (self._blobs_folder, self._partial_folder, self._incoming_folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._index: dict[str, _Entry] = {}
        self._total = 0  # bytes on disk of what is in the index
        self._partials: dict[str, int] = {}  # bytes on disk; the longest untouched first
        self._receiving: set[str] = set()
        self._adding_bytes = 0
        self._moving = trio.Lock()  # held while files of whole blobs come and go
        self._sweep()

    # -- asking ----------------------------------------------------------------------------------------------------

    def has(self, cid: str) -> bool:
        """Whether the whole blob is here."""
        return cids.canonical(cid) in self._index

    def size(self, cid: str) -> int:
        """Bytes of content. Raises BlobMissing."""
        return self._entry(cid)[1].size

    def path(self, cid: str) -> Path:
        """The plain file with the content, mode 0444, to be linked or mounted, not written. Raises BlobMissing."""
        return self._content_path(self._entry(cid)[0])

    def partial(self, cid: str) -> int:
        """Bytes already on disk of a blob that is still being received; 0 if there are none."""
        return self._partials.get(cids.canonical(cid), 0)

    def usage(self) -> Usage:
        """Figures for people and for placement."""
        return Usage(len(self._index), self._total, sum(self._partials.values()), self.capacity)

    async def read(self, cid: str, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end. Raises BlobMissing."""
        path = self.path(cid)

        def pread() -> bytes:
            with path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)

        return await trio.to_thread.run_sync(pread)

    @asynccontextmanager
    async def blocks(self, cid: str, skip: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The blob's blocks in pre-order without the first ``skip``, checked.

        Raises BlobMissing. Iterating raises BlobDamaged if the disk no longer holds what the name says; the
        blob is then dropped, so that it can be fetched anew.
        """
        key, _ = self._entry(cid)
        try:
            reader = await trio.to_thread.run_sync(BlobReader, self._content_path(key), cids.parse(key), self.layout)
        except FileNotFoundError as error:
            await self.remove(key)
            raise BlobDamaged(f"blob {key} is no longer on disk: {error}") from None

        async def checked() -> AsyncGenerator[bytes, None]:
            while True:
                try:
                    block = await trio.to_thread.run_sync(lambda: reader.next(skip=skip))
                except BadBlock as error:
                    await self.remove(key)
                    raise BlobDamaged(f"blob {key} is damaged on disk: {error}") from None
                if block is None:
                    return
                yield block

        try:
            async with aclosing(checked()) as iterator:
                yield iterator
        finally:
            reader.close()

    # -- adding ----------------------------------------------------------------------------------------------------

    async def add_bytes(self, data: bytes) -> BlobRef:
        """Add ``data``. Raises StoreFull."""

        async def once() -> AsyncIterator[bytes]:
            yield data

        return await self.add_stream(once())

    async def add_file(self, path: Path) -> BlobRef:
        """Add the content of a regular file. Raises StoreFull, OSError, or ValueError for anything but a file."""
        async with await trio.open_file(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path} is not a regular file")

            async def pieces() -> AsyncGenerator[bytes, None]:
                while piece := await file.read(_PIECE_BYTES):
                    yield piece

            async with aclosing(pieces()) as source:
                return await self.add_stream(source)

    async def add_stream(self, source: AsyncIterable[bytes], limit: int | None = None) -> BlobRef:
        """Add what ``source`` yields. Raises BlobTooLarge beyond ``limit`` bytes, StoreFull, StoreFailed.

        Nothing is kept unless all of it is. Adding what is already here is fine, also at the same time.
        """
        with _disk_failures():
            adding = await trio.to_thread.run_sync(NewBlob, self._incoming_folder, self.layout)
        claimed = 0
        try:
            async for piece in source:
                if limit is not None and adding.size + len(piece) > limit:
                    raise BlobTooLarge(f"more than the {limit} bytes that are allowed")
                self._make_room(len(piece))
                self._adding_bytes += len(piece)
                claimed += len(piece)
                with _disk_failures():
                    await trio.to_thread.run_sync(adding.write, piece)
            with _disk_failures():
                dag = await trio.to_thread.run_sync(adding.finish, self._durable)
                await self._publish(adding.content, str(dag.cid), dag.size, has_dag=bool(dag.nodes))
            return BlobRef(str(dag.cid), dag.size)
        finally:
            self._adding_bytes -= claimed
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(adding.discard)

    # -- receiving -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def receive(self, cid: str) -> AsyncIterator[Incoming]:
        """Receive a blob block by block, going on from what an earlier attempt left. One receiver per blob."""
        key = cids.canonical(cid)
        if key in self._receiving:
            raise RuntimeError(f"blob {key} is already being received")
        self._receiving.add(key)
        path = self._partial_folder / key
        try:
            partial = await trio.to_thread.run_sync(PartialBlob, path, cids.parse(key), self.layout)
            self._partials.pop(key, None)
            self._partials[key] = partial.disk_bytes  # now the last to be given up
            try:
                yield Incoming(self, key, partial)
            finally:
                partial.close()
                if key in self._index or not partial.walk.blocks:
                    self._drop_partial(key)
        finally:
            self._receiving.discard(key)

    async def remove(self, cid: str) -> None:
        """Forget a blob and what there is of it in part. Files linked elsewhere and open readers are unharmed."""
        key = cids.canonical(cid)
        if key not in self._receiving:
            self._drop_partial(key)
        async with self._moving:
            entry = self._index.pop(key, None)
            if entry is not None:
                self._total -= entry.disk_bytes
                await trio.to_thread.run_sync(unlink_pair, self._content_path(key))

    # -- within the package ----------------------------------------------------------------------------------------

    def _make_room(self, count: int) -> None:
        """See that ``count`` more bytes fit, giving up idle partial blobs if need be. Raises StoreFull."""
        idle = [key for key in self._partials if key not in self._receiving]
        for key in idle:
            if count <= self._free()[0]:
                return
            self._drop_partial(key)
        free, of = self._free()
        if count > free:
            raise StoreFull(f"the blob store is full: {of} {max(0, free)} are free, {count} are needed")

    def _free(self) -> tuple[int, str]:
        """Bytes that may still be written, and of what: its capacity, or the disk less the reserve."""
        taken = self._total + sum(self._partials.values()) + self._adding_bytes
        on_disk = shutil.disk_usage(self._root).free - self._reserve
        return min((self.capacity - taken, f"of {self.capacity} bytes"), (on_disk, "of the disk's bytes"))

    async def _publish(self, content: Path, key: str, size: int, *, has_dag: bool) -> None:
        """Move finished files to their place. Afterwards the blob is there."""
        target = self._content_path(key)

        def move() -> int:
            disk_bytes = content.stat().st_size
            content.chmod(0o444)
            if not target.parent.exists():
                target.parent.mkdir()
                if self._durable:
                    fsync_folder(self._blobs_folder)
            if has_dag:
                disk_bytes += dag_path(content).stat().st_size
                dag_path(content).rename(dag_path(target))
            content.rename(target)  # from here on it exists
            if self._durable:
                fsync_folder(target.parent)
            return disk_bytes

        async with self._moving:
            if key not in self._index:
                disk_bytes = await trio.to_thread.run_sync(move)
                self._index[key] = _Entry(size, disk_bytes)
                self._total += disk_bytes

    async def _keep_block(self, key: str, partial: PartialBlob, block: bytes) -> None:
        self._make_room(len(block))
        try:
            await trio.to_thread.run_sync(partial.append, block)
        except OSError as error:  # not to be taken for the source's failure
            raise StoreFailed(f"blob {key} could not be written: {error}") from error
        self._partials[key] = partial.disk_bytes
        if partial.walk.size is not None:  # refuse now what will not fit later
            self._make_room(partial.walk.size - partial.walk.held)

    def _drop_partial(self, key: str) -> None:
        if self._partials.pop(key, None) is not None:
            unlink_pair(self._partial_folder / key)

    def _entry(self, cid: str) -> tuple[str, _Entry]:
        key = cids.canonical(cid)
        entry = self._index.get(key)
        if entry is None:
            raise BlobMissing(f"blob {key} is not in the store")
        return key, entry

    def _content_path(self, key: str) -> Path:
        return content_path(self._blobs_folder, key)

    def _sweep(self) -> None:
        for leftover in self._incoming_folder.iterdir():
            leftover.unlink()
        for shard in self._blobs_folder.iterdir():
            names = {file.name: file for file in shard.iterdir()}
            for name, file in names.items():
                if name.endswith(".dag"):
                    whole = name.removesuffix(".dag") in names
                else:
                    whole = cids.parse(name).codec == cids.RAW or f"{name}.dag" in names
                    if whole:
                        size = file.stat().st_size
                        nodes = names.get(f"{name}.dag")
                        self._index[name] = _Entry(size, size + (nodes.stat().st_size if nodes else 0))
                if not whole:
                    file.unlink()
        self._total = sum(entry.disk_bytes for entry in self._index.values())
        contents = [file for file in self._partial_folder.iterdir() if file.suffix != ".dag"]
        for file in sorted(contents, key=lambda file: file.stat().st_mtime_ns):
            dag = dag_path(file)
            self._partials[file.name] = file.stat().st_size + (dag.stat().st_size if dag.exists() else 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    size: int
    disk_bytes: int


class Incoming:
    """A blob being received, see `BlobStore.receive`. ``walk`` says what has come and which block is next."""

    def __init__(self, store: BlobStore, key: str, partial: PartialBlob) -> None:
        self.walk = partial.walk
        self._store = store
        self._key = key
        self._partial = partial

    async def append(self, block: bytes) -> None:
        """Check the next block and keep it. Raises BadBlock (nothing kept), StoreFull, StoreFailed."""
        await self._store._keep_block(self._key, self._partial, block)

    async def publish(self) -> BlobRef:
        """Make the complete blob visible in the store."""
        assert self.walk.done
        try:
            await trio.to_thread.run_sync(lambda: self._partial.finish(durable=self._store._durable))
        except OSError as error:
            raise StoreFailed(f"blob {self._key} could not be written: {error}") from error
        has_dag = cids.parse(self._key).codec == cids.DAG_PB
        await self._store._publish(self._partial.content, self._key, self.walk.held, has_dag=has_dag)
        return BlobRef(self._key, self.walk.held)
