"""A machine's journal: what its peer asked to keep, and what of it a crash takes away."""

from __future__ import annotations

from protocol.effects import Record

Row = tuple[str, bytes, bytes]
"""Table, key, value."""


class Journal:
    """Rows by (table, key). What was written counts from the next ``sync`` on; a crash before it loses all of that."""

    __slots__ = ("_rows", "_unsynced")

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], bytes] = {}
        self._unsynced: list[Record] = []

    @property
    def is_synced(self) -> bool:
        return not self._unsynced

    def __contains__(self, key: tuple[str, bytes]) -> bool:
        """Whether a row (table, key) is kept."""
        return key in self._rows

    def write(self, record: Record) -> None:
        self._unsynced.append(record)

    def sync(self) -> None:
        for record in self._unsynced:
            key = (str(record.table), record.key)  # on a disk there are no enumerations
            if record.value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = record.value
        self._unsynced.clear()

    def crash(self) -> None:
        """What was not synced is lost."""
        self._unsynced.clear()

    def rows(self) -> tuple[Row, ...]:
        """All that is kept, in the order of (table, key)."""
        return tuple((table, key, value) for (table, key), value in sorted(self._rows.items()))
