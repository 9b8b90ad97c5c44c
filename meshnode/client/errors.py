"""The two ways in which a request to a node fails. What a user's own file gets wrong is ``InvalidFile``."""

from __future__ import annotations


class ClientError(Exception):
    """Base; ``str()`` is one sentence."""


class RequestRefused(ClientError):
    """A node answered, and said no. ``code`` is the API's, ``place`` the argument at fault."""

    def __init__(self, message: str, *, code: str = "bad-request", place: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.place = place


class NoNode(ClientError):
    """No node answers."""
