"""Reading what a stranger's task left in its output directory, without being led out of it.

Every step goes through an open directory and `O_NOFOLLOW`: a name is never resolved twice, so swapping a folder for a
symbolic link between two looks gains nothing, not even for a process that should be dead already.
"""

import errno
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from meshnode.runtimes.base import OUTPUT_FILES_MAX

DEPTH_MAX = 32
# A file system may set aside more than a file's length (XFS while it grows); this much is not held against a task.
PREALLOCATED_BYTES_MAX = 64 << 20

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class OutputRefused(Exception):
    """The output holds something that is not a plain file. The message names it."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One regular file; `path` is relative to the output directory, with `/` between its parts."""

    root: Path
    path: str
    size: int

    def open(self) -> BinaryIO:
        """The file for reading. Raises OutputRefused when it is no longer the plain file that was collected."""
        *folders, name = self.path.split("/")
        directory = os.open(self.root, _DIRECTORY)
        try:
            for folder in folders:
                below = os.open(folder, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = below
            # O_NONBLOCK: opening a fifo that took the file's place must not wait for a writer
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
        except OSError as error:
            raise OutputRefused(f"output {self.path!r} changed: {error.strerror}") from None
        finally:
            os.close(directory)
        try:
            _require_plain(os.fstat(descriptor), self.path)
        except OutputRefused:
            os.close(descriptor)
            raise
        return os.fdopen(descriptor, "rb")


def collect_output(output_dir: Path) -> list[OutputFile]:
    """All files below `output_dir`, sorted by path.

    Raises OutputRefused for symbolic links, devices, sockets, fifos, files with more than one hard link, names that are
    not UTF-8 text or hold control characters, more than OUTPUT_FILES_MAX files or more than DEPTH_MAX levels.
    """
    files: list[OutputFile] = []
    with _opened(output_dir) as directory:
        for path, status in _files_below(directory, "", 1):
            if len(files) == OUTPUT_FILES_MAX:
                raise OutputRefused(f"the output has more than {OUTPUT_FILES_MAX} files")
            files.append(OutputFile(output_dir, path, status.st_size))
    return sorted(files, key=lambda file: file.path)


def reclaim(output_dir: Path) -> None:
    """Make files and folders below `output_dir` the node's own again: owned by it, readable, removable."""
    with _opened(output_dir) as directory:
        _reclaim(directory, 1)


def exceeds(output_dir: Path, bytes_max: int) -> bool:
    """Whether `output_dir` holds more than `bytes_max` bytes in all, too many entries, or folders too deep.

    Meant for a directory that is being written: what cannot be looked at now is skipped.
    """
    size = allocated = entries = 0
    try:
        with _opened(output_dir) as directory:
            for depth, status in _entries_below(directory, 1):
                entries += 1
                if entries > OUTPUT_FILES_MAX or depth > DEPTH_MAX:
                    return True
                if stat.S_ISREG(status.st_mode):
                    size += status.st_size
                    allocated += status.st_blocks * 512
    except OSError:
        pass
    return size > bytes_max or allocated > 2 * bytes_max + PREALLOCATED_BYTES_MAX


def remove_tree(path: Path) -> None:
    """Remove a folder a stranger's task could write, however it is built. No error when it is not there."""
    try:
        empty_folder(path)
        os.rmdir(path)
    except FileNotFoundError:
        pass


def empty_folder(path: Path, *, within_s: float = math.inf) -> None:
    """Remove all that is in a folder a stranger's task could write. Raises OSError if it goes on writing for too long.

    Deep trees are the trap: recursion and path names both end somewhere. So folders are moved up before they are
    emptied.
    """
    with _opened(path) as root:
        fresh, deadline = 0, time.monotonic() + within_s
        while names := os.listdir(root):
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"{path} does not stay empty")
            for name in names:
                if not _is_folder(root, name):
                    os.unlink(name, dir_fd=root)
                    continue
                with _opened(name, _HANDLE, below=root) as handle:
                    os.chmod(f"/proc/self/fd/{handle}", 0o700)
                with _opened(name, below=root) as below:
                    for child in os.listdir(below):
                        if _is_folder(below, child):
                            while os.access(f"moved-{fresh}", os.F_OK, dir_fd=root, follow_symlinks=False):
                                fresh += 1
                            os.rename(child, f"moved-{fresh}", src_dir_fd=below, dst_dir_fd=root)
                        else:
                            os.unlink(child, dir_fd=below)
                os.rmdir(name, dir_fd=root)


def _is_folder(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _entries_below(directory: int, depth: int) -> Iterator[tuple[int, os.stat_result]]:
    with os.scandir(directory) as found:
        names = [entry.name for entry in islice(found, OUTPUT_FILES_MAX + 1)]
    for name in names:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            yield depth, status
            if stat.S_ISDIR(status.st_mode):
                with _opened(name, below=directory) as below:
                    yield from _entries_below(below, depth + 1)
        except OSError:
            continue


@contextmanager
def _opened(name: str | Path, flags: int = _DIRECTORY, *, below: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, flags, dir_fd=below)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _files_below(directory: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    if depth > DEPTH_MAX:
        raise OutputRefused(f"output {prefix!r} is more than {DEPTH_MAX} folders deep")
    for name in os.listdir(directory):
        path = prefix + name
        if not name.isprintable():  # False for control characters and for the surrogates of undecodable bytes
            raise OutputRefused(f"output name {path!r} is not printable UTF-8 text")
        with _opened(name, _HANDLE, below=directory) as handle:
            status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            with _opened(name, below=directory) as below:
                yield from _files_below(below, path + "/", depth + 1)
        else:
            _require_plain(status, path)
            yield path, status


def _require_plain(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a file")
        raise OutputRefused(f"output {path!r} is {kind}, only plain files and folders are taken")
    if status.st_nlink != 1:
        raise OutputRefused(f"output {path!r} has {status.st_nlink} hard links, only plain files are taken")


def _reclaim(directory: int, depth: int) -> None:
    for name in os.listdir(directory):
        with _opened(name, _HANDLE, below=directory) as handle:
            status = os.fstat(handle)
            is_folder = stat.S_ISDIR(status.st_mode)
            # A file with a second name may be someone else's, reached by a hard link: leave it as it is.
            if not is_folder and (not stat.S_ISREG(status.st_mode) or status.st_nlink != 1):
                continue
            # A handle of O_PATH cannot be chmod'ed itself, its name in /proc can, and leads to no other file.
            held = f"/proc/self/fd/{handle}"
            if os.geteuid() == 0:
                os.chown(held, 0, os.getegid())
            os.chmod(held, 0o755 if is_folder else 0o644)
            if is_folder and depth <= DEPTH_MAX:
                with _opened(name, below=directory) as below:
                    _reclaim(below, depth + 1)
