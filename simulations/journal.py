"""A machine's journal: what its peer asked to keep, and what of it a crash takes away."""

from __future__ import annotations

from collections import deque

from protocol.effects import Record

Row = tuple[str, bytes, bytes]
"""Table, key, value."""
_Key = tuple[str, bytes]

_SYNCS_REMEMBERED = 16
"""So many of the last syncs a disk may have lied about."""


class Journal:
    """Rows by (table, key), written in transactions as SQLite does.

    What was written counts from the next ``sync`` on; of a transaction that a crash left incomplete nothing does.
    """

    __slots__ = ("_rows", "_torn", "_undo", "unsynced")

    def __init__(self) -> None:
        self._rows: dict[_Key, bytes] = {}
        self.unsynced: list[Record] = []
        """Written, and not yet to be relied on."""
        self._torn: list[Record] = []
        """On the disk, without the mark that ends a transaction."""
        self._undo: deque[list[tuple[_Key, bytes | None]]] = deque(maxlen=_SYNCS_REMEMBERED)
        """What the last syncs replaced."""

    @property
    def syncs(self) -> int:
        """How many of the latest can be taken back."""
        return len(self._undo)

    def __contains__(self, key: tuple[str, bytes]) -> bool:
        """Whether a row (table, key) is kept."""
        return key in self._rows

    def write(self, record: Record) -> None:
        self.unsynced.append(record)

    def sync(self) -> None:
        undo: list[tuple[_Key, bytes | None]] = []
        for record in self.unsynced:
            key = (str(record.table), record.key)  # on a disk there are no enumerations
            undo.append((key, self._rows.get(key)))
            self._put(key, record.value)
        if undo:
            self._undo.append(undo)
        self.unsynced.clear()

    def crash(self, torn: int = 0) -> None:
        """What was not synced is lost, though the first ``torn`` of its records have reached the disk."""
        self._torn = self.unsynced[:torn]
        self.unsynced = []

    def lose(self, count: int) -> None:
        """The disk had not done the last ``count`` syncs, whatever it had said."""
        for _ in range(min(count, len(self._undo))):
            for key, value in reversed(self._undo.pop()):
                self._put(key, value)

    def rows(self) -> tuple[Row, ...]:
        """All that is kept, in the order of (table, key); a transaction without an end is dropped on the way."""
        self._torn.clear()
        return tuple((table, key, value) for (table, key), value in sorted(self._rows.items()))

    def _put(self, key: _Key, value: bytes | None) -> None:
        if value is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = value
