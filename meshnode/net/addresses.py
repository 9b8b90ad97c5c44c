"""Peer ids and multiaddresses as text, checked, and a bounded book of who can be reached where.

An address here is `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT`, with or without `/p2p/PEER` behind it. Addresses come
from strangers, so everything about them is bounded and nothing about them raises.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

import base58
from libp2p.peer.id import ID
from libp2p.utils.address_validation import get_available_interfaces
from multiaddr import Multiaddr

from meshnode.net.errors import BadAddress, translated

_MAX_ADDRESS_CHARS = 256
_HOST_PROTOCOLS = ("ip4", "ip6", "dns", "dns4", "dns6")
# A peer id is an identity multihash (00, 36 bytes) of a protobuf: key type Ed25519, 32 bytes of key.
_ED25519_PREFIX = bytes.fromhex("002408011220")
_ED25519_LENGTH = len(_ED25519_PREFIX) + 32


def parse_peer_id(peer: str) -> ID:
    """The library's form of a peer id ("12D3Koo..."). Raises BadAddress unless it names an Ed25519 key."""
    try:
        raw = base58.b58decode(peer) if len(peer) <= _MAX_ADDRESS_CHARS else b""
    except ValueError:
        raw = b""
    if len(raw) != _ED25519_LENGTH or not raw.startswith(_ED25519_PREFIX):
        raise BadAddress(f"{peer[:64]!r} is not a peer id (12D3Koo...)")
    return ID(raw)


def parse_address(address: str) -> tuple[Multiaddr, str | None]:
    """Split an address into where to dial and the peer it names, if it names one. Raises BadAddress."""
    if len(address) > _MAX_ADDRESS_CHARS:
        raise BadAddress(f"an address of {len(address)} characters is over the limit of {_MAX_ADDRESS_CHARS}")
    with translated(repr(address)):
        parsed = Multiaddr(address)
        names = [protocol.name for protocol in parsed.protocols()]
        peer = parsed.value_for_protocol("p2p") if names[2:] == ["p2p"] else None
        if len(names) < 2 or names[0] not in _HOST_PROTOCOLS or names[1] != "tcp" or names[2:] not in ([], ["p2p"]):
            raise BadAddress(f"{address!r} is not of the form /ip4/1.2.3.4/tcp/PORT[/p2p/PEER]")
        host, port = parsed.value_for_protocol(names[0]), int(parsed.value_for_protocol("tcp"))
    if peer is not None:
        parse_peer_id(peer)
    return Multiaddr(f"/{names[0]}/{host}/tcp/{port}"), peer


def is_dialable(where: Multiaddr) -> bool:
    """Whether one can connect there at all: a port other than 0, a host other than "any"."""
    protocol = next(iter(where.protocols())).name
    if int(where.value_for_protocol("tcp")) == 0:
        return False
    return not protocol.startswith("ip") or not ipaddress.ip_address(where.value_for_protocol(protocol)).is_unspecified


def concrete(where: Multiaddr) -> list[Multiaddr]:
    """The addresses others can use for a listener at `where`: itself, or one per interface if it is "any"."""
    protocol = next(iter(where.protocols())).name
    host = where.value_for_protocol(protocol)
    if not ipaddress.ip_address(host).is_unspecified:
        return [where]
    found = []
    for candidate in get_available_interfaces(int(where.value_for_protocol("tcp"))):
        own = next(iter(candidate.protocols())).name
        if own == protocol and not ipaddress.ip_address(candidate.value_for_protocol(own)).is_link_local:
            found.append(candidate)
    # Others can rarely use loopback, so it comes last.
    return sorted(found, key=lambda a: ipaddress.ip_address(a.value_for_protocol(protocol)).is_loopback)


class AddressBook:
    """Where peers were said to be: bounded in peers and per peer, the most recently learnt kept."""

    def __init__(self, *, max_peers: int, max_per_peer: int) -> None:
        self._max_peers = max_peers
        self._max_per_peer = max_per_peer
        self._known: dict[str, tuple[Multiaddr, ...]] = {}

    def learn(self, peer: str, addresses: Iterable[str], *, in_use: Collection[str] = ()) -> bool:
        """Keep the usable ones of `addresses`, newest first. False if any of them, or `peer`, was not usable.

        When the book is full the peer heard of longest ago is forgotten, those `in_use` last of all.
        """
        usable: list[Multiaddr] = []
        all_good = True
        try:
            parse_peer_id(peer)
        except BadAddress:
            return False
        for address in addresses:
            try:
                where, named = parse_address(address)
            except BadAddress:
                all_good = False
                continue
            if named not in (None, peer) or not is_dialable(where):
                all_good = False
            elif where not in usable and len(usable) < self._max_per_peer:
                usable.append(where)
        if usable:
            older = [where for where in self._known.pop(peer, ()) if where not in usable]
            self._known[peer] = tuple((usable + older)[: self._max_per_peer])
            if len(self._known) > self._max_peers:
                self._forget_one(in_use)
        return all_good

    def of(self, peer: str) -> tuple[Multiaddr, ...]:
        """Where to dial `peer`, best guess first; empty if unknown."""
        return self._known.get(peer, ())

    def __len__(self) -> int:
        return len(self._known)

    def _forget_one(self, in_use: Collection[str]) -> None:
        oldest = next(iter(self._known))
        del self._known[next((peer for peer in self._known if peer not in in_use), oldest)]
