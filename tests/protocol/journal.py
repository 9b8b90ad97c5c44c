"""A journal as a driver keeps it."""

from __future__ import annotations

from protocol.effects import Record

Journal = dict[tuple[str, bytes], bytes]


def keep(journal: Journal, record: Record) -> None:
    """Do as a driver does."""
    if record.value is None:
        journal.pop((record.table, record.key), None)
    else:
        journal[record.table, record.key] = record.value
