"""The few ways the network fails, and the one place where the library's many ways become ours.

    NetworkError
    ├── ListenFailed         an address could not be listened on
    ├── BadAddress           a multiaddress or peer id that cannot be used
    ├── DialFailed           no connection to the peer could be made
    │   └── NoAddress        and none could be tried: no address of the peer is known
    ├── ProtocolRefused      the peer answered, but does not speak this protocol
    ├── StreamLost           the stream or its connection ended before it was closed
    │   └── StreamTimedOut   because nothing moved for too long
    └── FramingError         the remote sent bytes that are not frames

Nothing above this package needs to know that there is a library underneath.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import multiaddr.exceptions
import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.exceptions import HostException
from libp2p.network.exceptions import RateLimitError, SwarmException
from libp2p.peer.peerdata import PeerDataError
from libp2p.peer.peerinfo import InvalidAddrError
from libp2p.peer.peerstore import PeerStoreError
from libp2p.protocol_muxer.exceptions import ProtocolNotSupportedError
from libp2p.rcmgr.exceptions import ResourceManagerException
from libp2p.security.exceptions import HandshakeFailure
from libp2p.transport.exceptions import OpenConnectionError, UpgradeFailure

from meshnode.net.yamux import FrameTimedOut


class NetworkError(Exception):
    """Base of everything this package raises for what a remote or the wire did."""


class ListenFailed(NetworkError):
    """An address could not be listened on."""


class BadAddress(NetworkError):
    """A multiaddress or a peer id that cannot be used."""


class DialFailed(NetworkError):
    """No connection to the peer could be made."""


class NoAddress(DialFailed):
    """No address of the peer is known, so nothing was tried."""


class ProtocolRefused(NetworkError):
    """The peer answered, but does not speak the protocol."""


class StreamLost(NetworkError):
    """The stream, or the connection under it, ended before it was closed."""


class StreamTimedOut(StreamLost):
    """The stream made no progress for too long."""


class FramingError(NetworkError):
    """The remote sent bytes that are not frames."""


# First match wins, so narrow classes stand above the classes they derive from.
_TABLE: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[NetworkError]], ...] = (
    (ProtocolNotSupportedError, ProtocolRefused),
    ((multiaddr.exceptions.Error, InvalidAddrError), BadAddress),
    ((PeerStoreError, PeerDataError), NoAddress),
    (
        (
            SwarmException,
            HostException,
            OpenConnectionError,
            UpgradeFailure,
            HandshakeFailure,
            ResourceManagerException,
            RateLimitError,
        ),
        DialFailed,
    ),
    ((trio.TooSlowError, FrameTimedOut), StreamTimedOut),
    ((BaseLibp2pError, trio.BrokenResourceError, trio.ClosedResourceError, OSError, EOFError), StreamLost),
)


def translate(error: Exception) -> NetworkError | None:
    """Our error for one of the library's, or None if it is not one of the library's (a bug, then)."""
    if isinstance(error, NetworkError):
        return error
    # A cause that says more than what the library wrapped it in.
    if isinstance(error.__cause__, FrameTimedOut):
        return StreamTimedOut(_sentence(error.__cause__))
    for theirs, ours in _TABLE:
        if isinstance(error, theirs):
            return ours(_sentence(error))
    return None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the library's errors as ours, with `what` (a peer, a protocol) put in front of the reason."""
    try:
        yield
    except NetworkError:
        raise
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        raise type(ours)(f"{what}: {ours}") from error


def _sentence(error: BaseException) -> str:
    said = str(error)
    if not said and error.__cause__ is not None:
        said = str(error.__cause__)
    return said or type(error).__name__
