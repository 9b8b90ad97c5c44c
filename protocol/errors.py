"""What can go wrong in the core.

ProtocolError
├── LocalProtocolError    we, or the driver of this peer, broke the rules: a bug, it may end the process
└── RemoteProtocolError   somebody else broke them: it is counted and noted, and never leaves ``Peer.handle``
"""


class ProtocolError(Exception):
    """Base of both kinds; never raised itself."""


class LocalProtocolError(ProtocolError):
    """This side asked for something the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """Bytes or a message of a remote party that the protocol does not allow."""
