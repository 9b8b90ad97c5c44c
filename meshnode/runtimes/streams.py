"""What is kept of a task's stdout and stderr. Both are always read to the end, so that the task never blocks on us."""


class Head:
    """Keeps the first `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.truncated = False

    def feed(self, chunk: bytes) -> None:
        room = self._limit - len(self._kept)
        self._kept += chunk[:room]
        self.truncated |= len(chunk) > room

    def __bytes__(self) -> bytes:
        return bytes(self._kept)


class Tail:
    """Keeps the last `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    def feed(self, chunk: bytes) -> None:
        self._kept += chunk
        if len(self._kept) > 2 * self._limit:  # trimmed seldom, not at every chunk
            del self._kept[: -self._limit]

    def clear(self) -> None:
        self._kept.clear()

    def text(self) -> str:
        return self._kept[-self._limit :].decode("utf-8", errors="replace")
