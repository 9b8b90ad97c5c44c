"""Which blobs the rows of the journal name: these are in use, however long nobody has asked for them.

What a row means is the core's own affair. A CID stands in all of them as its text, so it is found without knowing:
in a job's spec, a receipt, an award, and in whatever a later version keeps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from meshnode.blobs import cid as cids
from protocol.durable import Table
from protocol.effects import Record

_CID = re.compile(rb"baf[a-z2-7]{56}|Qm[1-9A-HJ-NP-Za-km-z]{44}")


class References:
    """Counts in how many rows each blob is named."""

    def __init__(self, rows: Iterable[tuple[str, bytes, bytes]] = ()) -> None:
        self._of_row: dict[tuple[str, bytes], tuple[str, ...]] = {}
        self._count: Counter[str] = Counter()
        self.note(Record(*row) for row in rows)

    def __contains__(self, cid: str) -> bool:
        """Whether a row names the blob; ``cid`` in its canonical spelling."""
        return cid in self._count

    def note(self, records: Iterable[Record]) -> None:
        """These rows are written, or removed."""
        for record in records:
            if record.table == Table.POINTER:
                continue  # where others say that something is: no reason to have it
            key = (record.table, record.key)
            for cid in self._of_row.pop(key, ()):
                self._count[cid] -= 1
                if not self._count[cid]:
                    del self._count[cid]
            if record.value and (named := cids_in(record.value)):
                self._of_row[key] = named
                self._count.update(named)


def cids_in(data: bytes) -> tuple[str, ...]:
    """The CIDs that stand in ``data``, each once, in their canonical spelling."""
    found: dict[str, None] = {}
    for text in _CID.findall(data):
        try:
            found[cids.canonical(text.decode())] = None
        except ValueError:
            continue  # it only looks like one
    return tuple(found)
