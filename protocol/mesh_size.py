"""How many peers there are, without counting them: a k-minimum-values sketch that travels with shuffles.

Every peer hashes to a number that is uniform over 63 bits and changes with the epoch; the k smallest numbers of the
whole mesh merge like a set union, and their density tells the size (Bar-Yossef et al., RANDOM 2002; the unbiased
estimate (k - 1) / v_k is Beyer et al., SIGMOD 2007). With k = 32 the standard error is about 18 %. Peers that leave
drop out with the next epoch.
"""

from __future__ import annotations

import hashlib

from protocol.identity import PeerId
from protocol.limits import SKETCH_VALUES_MAX

_SPAN = 1 << 63


def sketch_value(peer: PeerId, epoch: int) -> int:
    """Where ``peer`` falls in ``epoch``: uniform in [0, 2**63)."""
    return int.from_bytes(hashlib.blake2b(f"{epoch}/{peer}".encode(), digest_size=8).digest(), "big") >> 1


class MeshSize:
    """The estimate of one peer, over the current epoch and the one before it."""

    def __init__(self, me: PeerId, epoch: int) -> None:
        self._me = me
        self._epoch = epoch
        self._values: tuple[int, ...] = (sketch_value(me, epoch),)
        self._previous: tuple[int, ...] = ()

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def values(self) -> tuple[int, ...]:
        """The smallest values seen in this epoch, ascending."""
        return self._values

    def turn_to(self, epoch: int) -> None:
        """Start collecting anew when the epoch has changed."""
        if epoch != self._epoch:
            self._previous = self._values if epoch == self._epoch + 1 else ()
            self._epoch = epoch
            self._values = (sketch_value(self._me, epoch),)

    def add(self, peer: PeerId) -> None:
        self.merge(self._epoch, (sketch_value(peer, self._epoch),))

    def merge(self, epoch: int, values: tuple[int, ...]) -> None:
        """Take in another peer's sketch; one of another epoch says nothing about this one."""
        if epoch != self._epoch or values == self._values:
            return
        full = len(self._values) == SKETCH_VALUES_MAX
        if not full or any(value < self._values[-1] for value in values):
            self._values = tuple(sorted({*self._values, *values})[:SKETCH_VALUES_MAX])

    def estimate(self, epoch: int) -> int:
        """Peers in the mesh, this one included, as far as is known in ``epoch``; at least 1."""
        values, previous = self._values, self._previous
        if epoch != self._epoch:
            values, previous = (), values if epoch == self._epoch + 1 else ()
        return max(1, _estimate(values), _estimate(previous))


def _estimate(values: tuple[int, ...]) -> int:
    if len(values) < SKETCH_VALUES_MAX:
        return len(values)
    return (SKETCH_VALUES_MAX - 1) * _SPAN // max(values[-1], 1)
