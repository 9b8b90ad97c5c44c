"""The one way in which a world fails."""

from __future__ import annotations


class Violation(Exception):
    """Something happened that must never happen, or something did not that must. Names the rule that was broken."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
