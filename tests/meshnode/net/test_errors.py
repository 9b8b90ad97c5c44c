"""Every exception class that the parts of the library we call define is one of ours after translation."""

import importlib
import pkgutil

import libp2p
import multiaddr.exceptions
import pytest
import trio
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.protocol_muxer.exceptions import ProtocolNotSupportedError
from libp2p.transport.exceptions import OpenConnectionError

from meshnode.net import (
    BadAddress,
    DialFailed,
    NetworkError,
    ProtocolRefused,
    StreamLost,
    StreamTimedOut,
)
from meshnode.net.errors import translate, translated

# What stream, swarm and host calls run through. The rest of the library (kad, pubsub, relay...) is not used.
_USED = (
    "libp2p.exceptions",
    "libp2p.host.exceptions",
    "libp2p.io.",
    "libp2p.network.",
    "libp2p.peer.peer",
    "libp2p.protocol_muxer.",
    "libp2p.rcmgr.exceptions",
    "libp2p.security.exceptions",
    "libp2p.security.noise.exceptions",
    "libp2p.security.security_multistream",
    "libp2p.stream_muxer.exceptions",
    "libp2p.stream_muxer.yamux.",
    "libp2p.transport.exceptions",
    "libp2p.transport.tcp.",
    "libp2p.utils.varint",
)


def library_exceptions() -> list[type[Exception]]:
    found: dict[str, type[Exception]] = {}
    for module in pkgutil.walk_packages(libp2p.__path__, "libp2p."):
        if not module.name.startswith(_USED):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if (
                isinstance(value, type)
                and issubclass(value, Exception)
                and value.__module__.startswith(("libp2p.", "multiaddr."))
                and not value.__module__.startswith("libp2p.transport.quic")  # named in passing; not used
            ):
                found[f"{value.__module__}.{value.__name__}"] = value
    return [found[name] for name in sorted(found)]


def test_the_walk_finds_the_classes() -> None:
    assert {StreamEOF, StreamReset, StreamFailure, OpenConnectionError} <= set(library_exceptions())


@pytest.mark.parametrize("kind", library_exceptions(), ids=lambda kind: kind.__name__)
def test_every_library_exception_is_translated(kind: type[Exception]) -> None:
    try:
        error = kind("why")
    except TypeError:  # it wants more arguments than matter here
        error = kind.__new__(kind)
    assert isinstance(translate(error), NetworkError)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (ProtocolNotSupportedError("no"), ProtocolRefused),
        (StreamFailure("no"), DialFailed),
        (multiaddr.exceptions.StringParseError("no", "/x"), BadAddress),
        (StreamReset(), StreamLost),
        (trio.TooSlowError(), StreamTimedOut),
        (trio.BrokenResourceError(), StreamLost),
        (ConnectionResetError("gone"), StreamLost),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_each_kind_becomes_the_error_that_callers_expect(theirs: Exception, ours: type[NetworkError]) -> None:
    with pytest.raises(NetworkError) as caught, translated("12D3Koo"):
        raise theirs
    assert type(caught.value) is ours
    assert str(caught.value).startswith("12D3Koo: ")


def test_a_bug_stays_a_bug() -> None:
    with pytest.raises(KeyError), translated("x"):
        raise KeyError("ours")
