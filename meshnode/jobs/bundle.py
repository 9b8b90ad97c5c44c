"""A model's directory as the list of what is published."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidFile, render
from .modelfile import FILE_NAME, ModelFile, load_model

FILES_MAX = 10_000
BYTES_MAX = 16 * 2**30
SKIPPED = frozenset({"__pycache__", ".git"})


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a model. ``path`` is relative to its directory, with slashes; ``mode`` is 0o644 or 0o755."""

    path: str
    size: int  # bytes
    mode: int
    source: Path


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model and its files, sorted by path."""

    model: ModelFile
    files: tuple[BundleFile, ...]

    def manifest(self, cids: Mapping[str, str]) -> dict[str, Any]:
        """Return the JSON value that is published, given the CID of each file's bytes by its path.

        The same directory gives the same value on every machine: nothing in it depends on times, owners, the
        order of the directory or the umask.
        """
        return {
            "model": self.model.value,
            "files": [
                {"path": file.path, "size": file.size, "mode": file.mode, "cid": cids[file.path]} for file in self.files
            ],
        }


def read_bundle(directory: Path) -> Bundle:
    """Read the model in ``directory``; raise InvalidFile for what cannot be published.

    ``__pycache__`` and ``.git`` are left out. A symbolic link to a file inside the directory counts as that file; one
    that leads outside is refused, as it would publish what its author did not put there.
    """
    model = load_model(directory)
    root = directory.resolve()
    files: list[BundleFile] = []
    total = 0
    for path in _walk(root):
        file = _read_file(path, root)
        files.append(file)
        total += file.size
        if len(files) > FILES_MAX:
            raise InvalidFile(str(directory), "", f"holds more than {FILES_MAX} files")
        if total > BYTES_MAX:
            raise InvalidFile(str(directory), "", f"holds more than {BYTES_MAX} bytes")
    return Bundle(model, tuple(sorted(files, key=lambda file: file.path)))


def _walk(root: Path) -> Iterator[Path]:
    def fail(problem: OSError) -> None:
        raise InvalidFile(str(problem.filename), "", f"cannot be read: {problem.strerror}")

    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        links = [name for name in folders if Path(folder, name).is_symlink()]  # os.walk does not follow these
        yield from (Path(folder, name) for name in [*names, *links])


def _read_file(path: Path, root: Path) -> BundleFile:
    name = path.relative_to(root).as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidFile(FILE_NAME, "", f"the file name {render(name)} beside it is not UTF-8") from None
    try:
        target = path.resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError):
        raise InvalidFile(name, "", "is a symbolic link to nothing") from None
    if not target.is_relative_to(root):
        raise InvalidFile(name, "", "is a symbolic link that leaves the model's directory")
    if stat.S_ISDIR(status.st_mode):
        raise InvalidFile(name, "", "is a symbolic link to a directory; only links to files can be published")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidFile(name, "", "is not a regular file")
    mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    return BundleFile(name, status.st_size, mode, target)
