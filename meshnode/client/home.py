"""The submitter's folder: the key that signs jobs, and every signed job, written down before it is handed in.

submitter.key     32-byte Ed25519 seed, readable by its owner only
outbox/ID.signed  a signed job spec; handing it in again is the same job
api.json          written by a node whose home this is: where its API is, and the token
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from meshnode.client.errors import ClientError
from protocol.errors import RemoteProtocolError
from protocol.identity import SEED_BYTES, Ed25519Signer, Ed25519Verifier
from protocol.records import JobSpec
from protocol.show import read_signed
from protocol.signing import RecordReader

OUTBOX_KEPT_S = 7 * 24 * 3600


def default_home() -> Path:
    """``INFRA_HOME``, else ``~/.meshnode``."""
    return Path(os.environ.get("INFRA_HOME") or "~/.meshnode").expanduser()


def submitter_key(home: Path) -> Ed25519Signer:
    """The submitter's key, drawn at first use. Raises ClientError."""
    path = home / "submitter.key"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path, secrets.token_bytes(SEED_BYTES))
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ClientError(f"{path} can be read by others; run: chmod 600 {path}")
        seed = path.read_bytes()
    except OSError as error:
        raise ClientError(f"{error.filename or path}: {error.strerror}") from None
    if len(seed) != SEED_BYTES:
        raise ClientError(f"{path}: a key has {SEED_BYTES} bytes, this file has {len(seed)}")
    return Ed25519Signer(seed)


def keep_signed(home: Path, full_id: str, signed: str) -> Path:
    """Write a signed job down, for good, before anybody gets it. Entries older than a week go. Raises ClientError."""
    outbox = home / "outbox"
    path = outbox / f"{full_id}.signed"
    try:
        outbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in outbox.glob("*.signed"):
            if old.stat().st_mtime < time.time() - OUTBOX_KEPT_S:
                old.unlink(missing_ok=True)
        if not path.exists():
            _create(path, signed.encode())
    except OSError as error:
        raise ClientError(f"{error.filename or path}: {error.strerror}") from None
    return path


def signed_jobs(home: Path) -> Iterator[tuple[str, str]]:
    """Full id and alias of each job in the outbox; what is no signed job is passed over."""
    reader = RecordReader(Ed25519Verifier())
    for path in sorted((home / "outbox").glob("*.signed")):
        try:
            spec = reader.open(read_signed(path.read_text().strip()), JobSpec)
        except (RemoteProtocolError, OSError, UnicodeDecodeError):
            continue
        yield spec.digest.hex(), spec.record.alias


def _create(path: Path, content: bytes) -> None:
    """Make ``path``, whole or not at all; of two processes that try at once the first wins."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(descriptor)
        os.unlink(temporary)
