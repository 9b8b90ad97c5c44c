"""How often something may happen: a token bucket in virtual time."""

from __future__ import annotations

from protocol.clock import NS_PER_S, Instant


class TokenBucket:
    """``per_s`` tokens a second, at most a second's worth saved up."""

    __slots__ = ("_per_s", "_tokens", "_updated")

    def __init__(self, per_s: int, now: Instant) -> None:
        self._per_s = per_s
        self._tokens = per_s * NS_PER_S
        self._updated = now

    def take(self, now: Instant) -> bool:
        """Use up one token; False if there is none."""
        self._tokens = min(self._tokens + (now - self._updated) * self._per_s, self._per_s * NS_PER_S)
        self._updated = now
        if self._tokens < NS_PER_S:
            return False
        self._tokens -= NS_PER_S
        return True
