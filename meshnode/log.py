"""The node's log: one line per entry, in a file that cannot grow without bound, and warnings on stderr.

What remote peers said ends up here, so everything that could forge a line or drive a terminal is escaped.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE_BYTES_MAX = 8 << 20
_FILES_KEPT = 2
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


class _PlainFormatter(logging.Formatter):
    """Escapes what is not printable in the message; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


@contextmanager
def logging_to(path: Path, *, level: int = logging.INFO, warn_on_stderr: bool = True) -> Iterator[None]:
    """Log to ``path`` while the block runs, and warnings to stderr as well."""
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            path, maxBytes=_FILE_BYTES_MAX, backupCount=_FILES_KEPT, encoding="utf-8", errors="backslashreplace"
        )
    ]
    handlers[0].setFormatter(_PlainFormatter(_FORMAT, "%Y-%m-%dT%H:%M:%S"))
    if warn_on_stderr:
        console = logging.StreamHandler(sys.stderr)
        console.setLevel(logging.WARNING)
        console.setFormatter(_PlainFormatter("%(levelname)s: %(message)s"))
        handlers.append(console)
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
