"""How far the journal beside it had come: a file by which a journal that forgot something is known when it is opened.

    1 STORE FILE COMMITS    one line: version, store id in hex, the journal's inode, its number of commits

The mark never says more than was synced: it is written after each commit, and synced itself when the journal is opened
and closed, so that a commit costs one sync and not two. Noticed is

* an older copy in the journal's place, a lost tail of its log, a journal that was removed or belongs to another home;
* a home that was copied or restored as a whole, by the journal's new inode: also one that was only moved to another
  disk, because nobody can tell whether the first goes on somewhere.

Not noticed is a home set back below the file system (a snapshot of a disk or of a virtual machine) or restored to the
very inode it had, nor what a power cut took of the journal, against the disk's word, along with the mark's own latest
commits.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from meshnode.keystore import write_private

STORE_ID_BYTES = 16

_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Marked:
    """What a mark says of its journal."""

    store: bytes
    file_number: int
    commits: int

    def as_line(self) -> bytes:
        """Always of one length, so that it can be written over itself."""
        return b"1 %s %0*d %0*d\n" % (self.store.hex().encode(), _DIGITS, self.file_number, _DIGITS, self.commits)


class Mark:
    """An open mark. Made by ``Mark.write``."""

    def __init__(self, descriptor: int, marked: Marked) -> None:
        self.marked = marked
        self._descriptor = descriptor

    @classmethod
    def write(cls, path: Path, marked: Marked) -> Mark:
        """Begin a mark at ``path``; it is on disk when this returns. Raises OSError."""
        write_private(path, marked.as_line())
        return cls(os.open(path, os.O_WRONLY | os.O_CLOEXEC), marked)

    def advance(self, commits: int) -> None:
        """So many are synced now. Handed to the system, which brings it to the disk when it likes. Raises OSError."""
        self.marked = replace(self.marked, commits=commits)
        os.pwrite(self._descriptor, self.marked.as_line(), 0)

    def close(self) -> None:
        """An orderly end: the mark is on disk afterwards. Raises OSError."""
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)


def read_mark(path: Path) -> Marked | None:
    """What the file says; None if there is none, or none that can be read. Raises OSError."""
    try:
        version, store, file_number, commits = path.read_bytes().split()
        marked = Marked(bytes.fromhex(store.decode()), int(file_number), int(commits))
    except (FileNotFoundError, ValueError):
        return None
    return marked if version == b"1" and len(marked.store) == STORE_ID_BYTES else None
