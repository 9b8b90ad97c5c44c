"""What is asked of a node, whatever the way to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from meshnode.api.requests import AnyRequest
from protocol.wire import Link

Progress = Callable[[int], None]
"""Called with the number of bytes that were just moved."""


class Connection(Protocol):
    """A way to one node. Methods raise RequestRefused or NoNode."""

    def ask(self, request: AnyRequest) -> Any:
        """The node's answer, as a JSON value."""
        ...

    def add_file(self, path: Path, progress: Progress | None = None) -> Link:
        """Make a file available to the node as a blob, streamed. Raises OSError."""
        ...

    def add_bytes(self, data: bytes) -> Link:
        """Make a small blob available to the node."""
        ...

    def blob_size(self, cid: str) -> int | None:
        """The size of a blob that the node has; None if it has none."""
        ...

    def read_blob(self, blob: Link) -> Iterator[bytes]:
        """The bytes of a blob that the node has, piece by piece."""
        ...
