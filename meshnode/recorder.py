"""The node's trace on disk: ``trace.bin`` in its home, which ``infra replay`` feeds to a peer again.

A replay starts where the node started, so a trace that is full ends; the latest two starts are kept. Each entry is
handed to the system at once: a node that is killed leaves all that its peer had handled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from protocol import trace
from protocol.clock import Instant
from protocol.effects import Effect
from protocol.events import Event

log = logging.getLogger(__name__)

FILE_NAME = "trace.bin"
PREVIOUS_NAME = "trace.previous.bin"
"""Of the start before this one."""


class Recorder:
    """Appends to the trace until it is full. When it fails the trace ends there, and the node goes on."""

    def __init__(self, file: FileIO, bytes_max: int) -> None:
        self._file = file
        self._left = bytes_max

    @classmethod
    def begin(cls, home: Path, start: trace.Start, bytes_max: int) -> Recorder:
        """Begin the trace of a peer made of ``start``; at most ``bytes_max`` are written. Raises OSError."""
        path = home / FILE_NAME
        if path.exists():
            path.replace(home / PREVIOUS_NAME)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        recorder = cls(FileIO(descriptor, "wb"), bytes_max)
        recorder._append(trace.encode_start(start))
        return recorder

    def close(self) -> None:
        """The trace ends here."""
        self._file.close()

    def add(self, now: Instant, event: Event, effects: Sequence[Effect] | None) -> None:
        """One call of ``Peer.handle``; ``effects`` is None if it raised."""
        if self._file.closed:
            return
        try:
            self._append(trace.encode_entry(now, event, effects))
        except Exception:
            log.exception("the trace ends here")
            self.close()

    def _append(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            log.warning("the trace is full: it ends here")
            self.close()
        elif (written := self._file.write(data)) != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were taken")
