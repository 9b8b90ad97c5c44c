"""What happens on the links to other peers, as events of the core. The only place where frames are decoded."""

from __future__ import annotations

import logging

from meshnode.net import events as links
from protocol.codec import UnknownKind
from protocol.errors import RemoteProtocolError
from protocol.events import Event, GarbageReceived, MessageReceived, PeerLost
from protocol.identity import PeerId
from protocol.limits import TEXT_CHARS_MAX
from protocol.messages import decode_message

log = logging.getLogger(__name__)

_ORDERLY_ENDS = ("idle", "closed by us")


class Hearing:
    """Turns link events into events of the core, counting what this version cannot understand."""

    def __init__(self) -> None:
        self.skipped = 0
        """Messages of kinds that a later version may know."""

    def event_of(self, happened: links.LinkEvent) -> Event | None:
        """The event that the core is to hear of, if any. Never raises, whatever the remote sent."""
        peer = PeerId(happened.peer)
        match happened:
            case links.FrameReceived(frame=frame):
                try:
                    return MessageReceived(peer, decode_message(frame))
                except UnknownKind as error:
                    self.skipped += 1
                    log.debug("%s: %s", peer, error)
                    return None
                except RemoteProtocolError as error:
                    return GarbageReceived(peer, str(error)[:TEXT_CHARS_MAX])
            case links.GarbageReceived(reason=reason):
                return GarbageReceived(peer, reason[:TEXT_CHARS_MAX])
            case links.SendDropped(reason=reason):
                return PeerLost(peer, reason[:TEXT_CHARS_MAX])
            case links.LinkDown(reason=reason) if reason not in _ORDERLY_ENDS:
                return PeerLost(peer, reason[:TEXT_CHARS_MAX])
            case _:
                return None
