"""A node for whom a day lasts minutes: what is kept for a day is forgotten while the soak still runs.

Without that, what a node keeps of the soak's jobs would grow to its end, and hide what grows and should not. All bounds
keep their values, only the times of keeping are others.

    python -m tests.soak.brief up …     is    infra up …
"""

from __future__ import annotations

from protocol import limits

KEPT_S = 100
"""A result after its job's deadline, and that deadline."""
UNUSED_S = 30.0
SWEEP_EVERY_S = 20.0
LIMITS = limits.Limits(retention_ms=KEPT_S * 1000)


def main() -> None:
    limits.DEFAULT_LIMITS = LIMITS  # before anybody takes it from there
    from meshnode import retention
    from meshnode.cli import main as infra

    retention.UNUSED_S = retention.UNUSED_PRESSED_S = UNUSED_S
    retention.SWEEP_EVERY_S = retention.SWEEP_PRESSED_EVERY_S = SWEEP_EVERY_S
    infra()


if __name__ == "__main__":
    main()
