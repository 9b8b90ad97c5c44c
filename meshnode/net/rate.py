"""A token bucket: how long to wait so that a long-run rate holds while short bursts pass. No clock here."""

from __future__ import annotations


class TokenBucket:
    """`rate` tokens flow in per second, up to `burst`. Spending may go into debt, which the spender waits out."""

    def __init__(self, rate: float, burst: float, *, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def spend(self, tokens: float, *, now: float) -> float:
        """Take `tokens` and return the seconds to wait before going on (0 while within the burst)."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - tokens
        self._at = now
        return max(0.0, -self._tokens / self._rate)
