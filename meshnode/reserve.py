"""Room that a node leaves free on the disk of its home, so that what it has accepted can be kept to its end.

Below the reserve it takes no new work, and says so; its blobs stop growing at half of it; the journal may use it all.
A quota that the file system does not show as free space is met only when it is hit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

LOOK_EVERY_S = 2.0


class Reserve:
    """Looks after the free space of one disk."""

    def __init__(self, folder: Path, size: int) -> None:
        self.low: str | None = None
        """Why no new work is taken; None while there is room."""
        self._folder = folder
        self._size = size

    def look(self) -> bool:
        """Measure; whether ``low`` is another one now. There is room again when an eighth more than ``size`` is free.

        Raises OSError.
        """
        before = self.low
        wanted = self._size if before is None else self._size + self._size // 8
        self.low = None
        if shutil.disk_usage(self._folder).free < wanted:
            self.low = f"this node's disk is nearly full: less than {self._size >> 20} MiB are free"
        return self.low != before
