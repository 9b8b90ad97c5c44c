"""What the node must not forget, on disk: rows of (table, key, value) that the peer wrote and only the peer reads.

SQLite keeps them, in its write-ahead mode with every commit synced: a transaction that was being written when the
power went is recognised by its checksums and left out, one that was committed is there. Nothing is repaired or begun
anew behind the operator's back: rows that cannot be trusted would let this node break promises it has signed.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import trio

from protocol.effects import Record

FORMAT = 1
"""Kept as SQLite's ``user_version``."""

Row = tuple[str, bytes, bytes]
T = TypeVar("T")

_WAL = "-wal"
_SCHEMA = """
CREATE TABLE rows ("table" TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY ("table", key))
    WITHOUT ROWID
"""


class JournalFailed(Exception):
    """The journal cannot be read or written; the text is one sentence that names the file and says why."""


class Journal:
    """An open journal. Made by ``Journal.open``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._one_at_a_time = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Journal]:
        """Open the journal at ``path`` until the block is left; a new one is made if there is no file.

        Raises JournalFailed: for a file that is damaged, is no journal or is in use.
        """
        connection = await trio.to_thread.run_sync(_connect, path)
        try:
            yield cls(path, connection)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(connection.close)

    async def rows(self) -> list[Row]:
        """All rows, ordered by table and key. Raises JournalFailed."""
        return await self._in_thread(_rows)

    async def commit(self, records: Iterable[Record]) -> None:
        """Apply the records in order, all or none; they are on disk when this returns.

        Raises JournalFailed: it is then unknown, until the journal is opened again, whether they are kept.
        """
        batch = tuple(records)
        await self._in_thread(lambda connection: _apply(connection, batch))

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A slow disk holds up whoever waits for it, and nobody else."""

        def run() -> T:
            with _explained(self._path):
                return work(self._connection)

        return await trio.to_thread.run_sync(run, limiter=self._one_at_a_time)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file, made first if there is none, and check it from end to end."""
    with _explained(path):
        if not path.exists():
            _create(path)
        # each call may come from another thread, never two at once
        connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            # nobody else may write, nor hold up the moment when the log is folded into the file
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _check(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def _create(path: Path) -> None:
    """Make an empty journal that is whole from the moment it has its name."""
    if (log := path.with_name(path.name + _WAL)).exists():
        raise JournalFailed(f"{path}: is missing, but its write-ahead log {log.name} is here: put the journal back")
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
        fresh.chmod(0o600)
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found != FORMAT:
        raise JournalFailed(f"{path}: is no journal of format {FORMAT}" + (f" but of format {found}" if found else ""))
    (verdict, *_) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise JournalFailed(f"{path}: is damaged ({' '.join(verdict.split())}); put a good copy in its place")


def _rows(connection: sqlite3.Connection) -> list[Row]:
    return connection.execute('SELECT "table", key, value FROM rows ORDER BY "table", key').fetchall()


def _apply(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for record in records:
            if record.value is None:
                connection.execute('DELETE FROM rows WHERE "table" = ? AND key = ?', (record.table, record.key))
            else:
                connection.execute("REPLACE INTO rows VALUES (?, ?, ?)", (record.table, record.key, record.value))
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # most failures have rolled it back already
            connection.execute("ROLLBACK")
        raise


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
