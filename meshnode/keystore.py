"""The node's home folder: its key, and who uses it now.

node.key              32-byte Ed25519 seed
journal.sqlite3       what the peer must not forget, and the name of this store: a new disk is a new holder
journal.sqlite3-mark  by which a journal that forgot something is known
blobs/  runs/  api.json  node.log  trace.bin
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from protocol.identity import SEED_BYTES, Ed25519Signer


class HomeError(Exception):
    """The home folder cannot be used; the text is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Home:
    """An opened home folder, locked against a second node."""

    path: Path
    seed: bytes

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite3"


@contextmanager
def open_home(path: Path) -> Iterator[Home]:
    """Make the folder if it is new, and lock it. Raises HomeError.

    The lock goes with the process, however it ends.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{error.filename or path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HomeError(f"{path}: another node (process {_owner(lock)}) uses this home") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        try:
            home = Home(path=path, seed=load_seed(path / "node.key"))
        except OSError as error:
            raise HomeError(f"{error.filename or path}: {error.strerror}") from None
        yield home
    finally:
        os.close(lock)


def load_seed(path: Path) -> bytes:
    """The 32-byte seed in ``path``, drawn and written there if the file is new. Raises HomeError, OSError."""
    try:
        seed = path.read_bytes()
    except FileNotFoundError:
        write_private(path, seed := secrets.token_bytes(SEED_BYTES))
    if len(seed) != SEED_BYTES:
        raise HomeError(f"{path}: a key has {SEED_BYTES} bytes, this file has {len(seed)}")
    return seed


def peer_id_at(home: Path) -> str:
    """The peer id of the node that lives, or will live, at ``home``; makes its key if there is none."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Ed25519Signer(load_seed(home / "node.key")).peer_id


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` at once and for good, readable by its owner only."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _owner(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
