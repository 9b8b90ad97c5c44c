"""The network: frames and streams between peers named by their libp2p peer id.

Only this package imports libp2p. `Network` owns the host and opens streams; `Links` is the control plane over it.
"""

from meshnode.net.errors import (
    BadAddress,
    DialFailed,
    FramingError,
    ListenFailed,
    NetworkError,
    NoAddress,
    ProtocolRefused,
    StreamLost,
    StreamTimedOut,
)
from meshnode.net.events import FrameReceived, GarbageReceived, LinkDown, LinkEvent, LinkUp, SendDropped
from meshnode.net.framing import FrameDecoder, encode_frame
from meshnode.net.links import LinkLimits, Links
from meshnode.net.network import Network, NetworkLimits
from meshnode.net.streams import Stream

__all__ = [
    "BadAddress",
    "DialFailed",
    "FrameDecoder",
    "FrameReceived",
    "FramingError",
    "GarbageReceived",
    "LinkDown",
    "LinkEvent",
    "LinkLimits",
    "LinkUp",
    "Links",
    "ListenFailed",
    "Network",
    "NetworkError",
    "NetworkLimits",
    "NoAddress",
    "ProtocolRefused",
    "SendDropped",
    "Stream",
    "StreamLost",
    "StreamTimedOut",
    "encode_frame",
]
