"""What the node must not forget, on disk: rows of (table, key, value) that the peer wrote and only the peer reads.

SQLite keeps them, in its write-ahead mode with every commit synced: a transaction that was being written when the
power went is recognised by its checksums and left out, one that was committed is there. Nothing is repaired or begun
anew behind the operator's back: rows that cannot be trusted would let this node break promises it has signed.

The journal also says which store it is (``store``): others hold this node to its promises by that name. A journal that
has forgotten something that was synced is another store, so it gets another name; its rows are still true. What tells
is the mark beside it, see ``meshnode.mark``.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import trio

from meshnode.mark import STORE_ID_BYTES, Mark, Marked, read_mark
from protocol.effects import Record

log = logging.getLogger(__name__)

FORMAT = 2
"""Kept as SQLite's ``user_version``."""

LOG_BYTES_KEPT = 8 << 20
"""A log that one large commit has made longer is cut to this when it has been folded into the file."""

Row = tuple[str, bytes, bytes]
T = TypeVar("T")

_WAL = "-wal"
_MARK = "-mark"
_ROWS = """
CREATE TABLE rows ("table" TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY ("table", key))
    WITHOUT ROWID
"""
_META = "CREATE TABLE meta (store BLOB NOT NULL, commits INTEGER NOT NULL)"
"""One row. Each opening counts as a commit."""


class JournalFailed(Exception):
    """The journal cannot be read or written; the text is one sentence that names the file and says why."""


class Journal:
    """An open journal. Made by ``Journal.open``."""

    def __init__(self, path: Path, connection: sqlite3.Connection, mark: Mark) -> None:
        self.store = mark.marked.store
        """Its name: another one after every loss that was noticed."""
        self._path = path
        self._connection = connection
        self._mark = mark
        self._one_at_a_time = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Journal]:
        """Open the journal at ``path`` until the block is left; a new one is made if there is no file.

        Raises JournalFailed: for a file that is damaged, is no journal or is in use.
        """
        connection, mark = await trio.to_thread.run_sync(_open, path)
        try:
            yield cls(path, connection, mark)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_close, path, connection, mark)

    async def rows(self) -> list[Row]:
        """All rows, ordered by table and key. Raises JournalFailed."""
        return await self._in_thread(_rows)

    async def commit(self, records: Iterable[Record]) -> None:
        """Apply the records in order, all or none; they are on disk when this returns.

        Raises JournalFailed: it is then unknown, until the journal is opened again, whether they are kept.
        """
        batch = tuple(records)
        await self._in_thread(lambda connection: _apply(connection, self._mark, batch))

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A slow disk holds up whoever waits for it, and nobody else."""

        def run() -> T:
            with _explained(self._path):
                return work(self._connection)

        return await trio.to_thread.run_sync(run, limiter=self._one_at_a_time)


def _open(path: Path) -> tuple[sqlite3.Connection, Mark]:
    """Open the file, made first if there is none, check it from end to end, and hold it against its mark."""
    with _explained(path):
        if is_new := not path.exists():
            _create(path)
        # each call may come from another thread, never two at once
        connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            # nobody else may write, nor hold up the moment when the log is folded into the file
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _check(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
            return connection, _begin(connection, path, is_new)
        except BaseException:
            connection.close()
            raise


def _close(path: Path, connection: sqlite3.Connection, mark: Mark) -> None:
    with _explained(path):
        connection.close()
        mark.close()


def _create(path: Path) -> None:
    """Make an empty journal that is whole from the moment it has its name."""
    if (log := path.with_name(path.name + _WAL)).exists():
        raise JournalFailed(f"{path}: is missing, but its write-ahead log {log.name} is here: put the journal back")
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
        fresh.chmod(0o600)
        connection.execute("PRAGMA auto_vacuum = FULL")  # pages that are free go back to the disk with each commit
        connection.execute(_ROWS)
        _add_meta(connection)
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _add_meta(connection: sqlite3.Connection) -> None:
    """What format 2 has and format 1 had not: both are made, or neither."""
    connection.execute("BEGIN")
    connection.execute(_META)
    connection.execute("INSERT INTO meta VALUES (?, 0)", (secrets.token_bytes(STORE_ID_BYTES),))
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _begin(connection: sqlite3.Connection, path: Path, is_new: bool) -> Mark:
    """Count the opening, under a new name if the journal is not what its mark says it was."""
    if _format_of(connection) == 1:
        _add_meta(connection)
    mark_path, file_number = path.with_name(path.name + _MARK), path.stat().st_ino
    before = read_mark(mark_path)
    store, commits = connection.execute("SELECT store, commits FROM meta").fetchone()
    if lost := _lost(before, Marked(store, file_number, commits), is_new):
        log.warning("%s: %s; the node goes on with what is there, but other nodes will see a new one", path, lost)
        store, commits = secrets.token_bytes(STORE_ID_BYTES), max(commits, before.commits if before else 0)
    connection.execute("UPDATE meta SET store = ?, commits = ?", (store, commits + 1))
    return Mark.write(mark_path, Marked(store, file_number, commits + 1))


def _lost(before: Marked | None, found: Marked, is_new: bool) -> str | None:
    """What makes the journal another store than the one it was, in a few words."""
    if is_new:
        return "was missing" if before else None
    if before is None:
        return "has no mark beside it" if found.commits else None  # never opened, it never had one
    if (before.store, before.file_number) != (found.store, found.file_number):
        return "is not the file that was here before, but a copy of it or another one"
    if found.commits < before.commits:
        return f"{before.commits - found.commits} commits that were synced are gone from it"
    return None


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = _format_of(connection)
    if found not in (1, FORMAT):
        raise JournalFailed(f"{path}: is no journal of format {FORMAT}" + (f" but of format {found}" if found else ""))
    (verdict, *_) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise JournalFailed(f"{path}: is damaged ({' '.join(verdict.split())}); put a good copy in its place")


def _format_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _rows(connection: sqlite3.Connection) -> list[Row]:
    return connection.execute('SELECT "table", key, value FROM rows ORDER BY "table", key').fetchall()


def _apply(connection: sqlite3.Connection, mark: Mark, records: Iterable[Record]) -> None:
    commits = mark.marked.commits + 1
    connection.execute("BEGIN IMMEDIATE")
    try:
        for record in records:
            if record.value is None:
                connection.execute('DELETE FROM rows WHERE "table" = ? AND key = ?', (record.table, record.key))
            else:
                connection.execute("REPLACE INTO rows VALUES (?, ?, ?)", (record.table, record.key, record.value))
        connection.execute("UPDATE meta SET commits = ?", (commits,))
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # most failures have rolled it back already
            connection.execute("ROLLBACK")
        raise
    mark.advance(commits)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Every failure of SQLite or the disk as one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what makes it an extended one
        raise JournalFailed(f"{path}: {_SENTENCES.get(code, error)}") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise JournalFailed(f"{path}: {_SENTENCES[sqlite3.SQLITE_FULL] if full else error.strerror}") from error


_SENTENCES = {
    sqlite3.SQLITE_FULL: "the disk is full; make room and start the node again, it has kept all that it acknowledged",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written; nothing is acknowledged that was not kept",
    sqlite3.SQLITE_CORRUPT: "is damaged; put a good copy in its place",
    sqlite3.SQLITE_NOTADB: "is damaged or no journal at all; put a good copy in its place",
    sqlite3.SQLITE_BUSY: "another program uses it",
    sqlite3.SQLITE_READONLY: "cannot be written: it is read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
}
