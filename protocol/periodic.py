"""What a role does again and again, but only while there is something to do: an idle peer sleeps."""

from __future__ import annotations

from collections.abc import Callable

from protocol.context import Context
from protocol.timers import Timer


class Periodic:
    """Runs ``action`` at jittered intervals. ``pace`` says how long they are, None for not before the next ``wake``.

    Whatever may give the action something to do, or make it more urgent, calls ``wake``; once too often is harmless.
    """

    def __init__(self, context: Context, action: Callable[[], None], pace: Callable[[], int | None]) -> None:
        self._context = context
        self._action = action
        self._pace = pace
        self._pace_ms = 0
        self._timer: Timer | None = None

    def wake(self) -> None:
        """See whether the action is to run, and plan it; what is planned already only comes sooner, never later."""
        pace_ms = self._pace()
        if pace_ms is None:
            return
        if self._timer is not None and self._timer.pending:
            if self._pace_ms <= pace_ms:
                return
            self._timer.cancel()
        self._pace_ms = pace_ms
        self._timer = self._context.after_jittered(pace_ms, self._run)

    def _run(self) -> None:
        self._action()
        self.wake()
