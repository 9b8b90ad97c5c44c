"""What the control links report, in order for each remote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A frame came from `peer`."""

    peer: str
    frame: bytes


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The first stream with `peer`, in either direction, is open. Comes before its first frame."""

    peer: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The last stream with `peer`, in either direction, has ended. Comes after its last frame."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class GarbageReceived:
    """`peer` sent bytes that are not frames; its stream was reset and our link to it is being closed."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class SendDropped:
    """`count` frames that `send_nowait` had accepted for `peer` were not, or may not have been, delivered."""

    peer: str
    count: int
    reason: str


LinkEvent = FrameReceived | LinkUp | LinkDown | GarbageReceived | SendDropped
