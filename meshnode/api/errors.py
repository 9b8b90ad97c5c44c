"""The one error that a request ends in."""

from __future__ import annotations

from typing import Any, Literal

Code = Literal["bad-request", "unauthorized", "not-found", "ambiguous", "refused", "too-large", "no-answer", "internal"]

STATUS: dict[Code, int] = {
    "bad-request": 400,
    "unauthorized": 401,
    "not-found": 404,
    "ambiguous": 409,
    "refused": 409,
    "too-large": 413,
    "no-answer": 504,
    "internal": 500,
}
"""The HTTP status of each code."""


class ApiError(Exception):
    """A request that was not carried out. ``message`` is one sentence; ``place`` names the argument at fault."""

    def __init__(self, code: Code, message: str, place: str = "") -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.place = place

    def as_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "place": self.place}}
