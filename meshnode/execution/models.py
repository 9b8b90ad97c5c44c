"""A model's files, laid out once per manifest and shown read-only to every task of the model."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import trio

from meshnode.blobs import cid as cids
from meshnode.execution.faults import TaskFault
from meshnode.execution.inputs import link_or_copy
from meshnode.jobs.errors import InvalidFile
from meshnode.jobs.modelfile import parse_model
from protocol.wire import Link

FILES_MAX = 10_000
_UNFINISHED = "new-"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    path: str
    link: Link
    executable: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a published model says: the command to run, and its files."""

    command: tuple[str, ...]
    files: tuple[ManifestFile, ...]
    warm: bool = False
    """Whether it stays loaded: ``serve: warm``."""


def parse_manifest(value: Any) -> Manifest:
    """Read the JSON value of a manifest, which comes from a stranger. Raises TaskFault."""
    if not isinstance(value, dict) or not isinstance(value.get("files"), list):
        raise TaskFault("the model's manifest is not an object with a model and files")
    if len(value["files"]) > FILES_MAX:
        raise TaskFault(f"the model has more than {FILES_MAX} files")
    try:
        model = parse_model(value.get("model"))  # type: ignore[arg-type]  # it checks
    except InvalidFile as error:
        raise TaskFault(f"the model cannot be used: {error}") from None
    return Manifest(model.command, tuple(_file(item) for item in value["files"]), model.warm)


def _file(item: Any) -> ManifestFile:
    match item:
        case {"path": str(path), "cid": str(cid), "size": int(size), "mode": int(mode)} if size >= 0:
            pass
        case _:
            raise TaskFault("the model's manifest lists a file without path, cid, size and mode")
    plain = PurePosixPath(path)
    if plain.is_absolute() or not plain.parts or ".." in plain.parts or str(plain) != path or not path.isprintable():
        raise TaskFault(f"the model's manifest lists a file at {path[:120]!r}, which is not a plain relative path")
    try:
        return ManifestFile(path, Link(cid=cids.canonical(cid), size=size), bool(mode & 0o100))
    except ValueError as error:
        raise TaskFault(f"the model's manifest: {path[:120]}: {error}") from None


class ModelCache:
    """Model directories under ``folder``, by the CID of their manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._making: dict[str, trio.Lock] = {}

    async def directory(self, cid: str, manifest: Manifest, content_of: Callable[[str], Path]) -> Path:
        """Where the model's files lie; their blobs must be in the store. Raises TaskFault, OSError."""
        target = self._folder / cids.canonical(cid)
        lock = self._making.setdefault(target.name, trio.Lock())
        try:
            async with lock:
                await trio.to_thread.run_sync(self._make, target, manifest, content_of)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._making.pop(target.name, None)
        return target

    def clear_unfinished(self) -> None:
        """Remove what a killed node was in the middle of laying out. Blocking."""
        for directory in self._folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(directory, ignore_errors=True)

    def sweep(self, unused_s: float) -> None:
        """Remove the directories of models that no task has asked for in so many seconds. Blocking."""
        for directory in self._folder.iterdir():
            if not directory.name.startswith(_UNFINISHED) and time.time() - directory.stat().st_mtime > unused_s:
                shutil.rmtree(directory, ignore_errors=True)

    def _make(self, target: Path, manifest: Manifest, content_of: Callable[[str], Path]) -> None:
        if target.exists():
            os.utime(target)  # in use: not to be swept
            return
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=_UNFINISHED) as temporary:
            root = Path(temporary, "model")
            root.mkdir(mode=0o755)
            for file in manifest.files:
                path = root / file.path
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if file.executable:  # a link would make the blob itself executable
                        shutil.copyfile(content_of(file.link.cid), path)
                        path.chmod(0o555)
                    else:
                        link_or_copy(content_of(file.link.cid), path)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    raise TaskFault(f"the model's manifest lists {file.path[:120]!r} twice, or as a folder") from None
            for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
                folder.chmod(0o755)  # whatever the umask: the task runs as another user
            root.rename(target)
