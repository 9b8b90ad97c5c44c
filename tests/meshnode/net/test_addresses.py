"""Addresses and peer ids from strangers are checked, and what is kept of them is bounded."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from meshnode.net import BadAddress
from meshnode.net.addresses import AddressBook, concrete, parse_address, parse_peer_id

PEER = "12D3KooWMbbPVGsZYh3ChQjue712NHHGNybRRXwnuSpezYjGbCDS"
OTHER = "12D3KooWCugzopk9fYBy1pvYVi94Qr2y9PL4CjSpYZUaXir3YWb7"


@pytest.mark.parametrize(
    ("address", "where", "peer"),
    [
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001", None),
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}", "/ip4/10.0.0.1/tcp/4001", PEER),
        (f"/ip6/::1/tcp/4001/p2p/{PEER}", "/ip6/::1/tcp/4001", PEER),
        ("/dns4/node.example/tcp/4001", "/dns4/node.example/tcp/4001", None),
    ],
)
def test_an_address_is_a_place_and_maybe_a_peer(address: str, where: str, peer: str | None) -> None:
    assert parse_address(address) == (Multiaddr(where), peer)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "10.0.0.1:4001",
        "/ip4/10.0.0.1",
        "/ip4/10.0.0.1/udp/4001/quic-v1",
        "/ip4/10.0.0.1/tcp/4001/ws",
        "/ip4/10.0.0.1/tcp/70000",
        "/ip4/10.0.0.1/tcp/1/p2p/nobody",
        f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{OTHER}",
        "/unix/tmp/x",
        "/ip4/10.0.0.1/tcp/1" * 20,
    ],
)
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(address)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_bad_address(text: str) -> None:
    for candidate in (text, f"/ip4/{text}/tcp/1", f"/ip4/1.2.3.4/tcp/{text}", f"/dns4/x/tcp/1/p2p/{text}"):
        with suppress(BadAddress):
            parse_address(candidate)
    with suppress(BadAddress):
        parse_peer_id(text)


def test_a_peer_id_must_name_an_ed25519_key() -> None:
    assert str(parse_peer_id(PEER)) == PEER
    for text in ("", "xx", PEER[:-1], PEER + "1", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"):
        with pytest.raises(BadAddress, match="is not a peer id"):
            parse_peer_id(text)


def test_the_book_is_bounded_per_peer_and_keeps_the_newest() -> None:
    book = AddressBook(max_peers=9, max_per_peer=3)
    for port in range(1, 10):
        assert book.learn(PEER, [f"/ip4/10.0.0.1/tcp/{port}"])
    assert [str(where) for where in book.of(PEER)] == [f"/ip4/10.0.0.1/tcp/{port}" for port in (9, 8, 7)]
    assert not book.of(OTHER)


def test_the_book_is_bounded_in_peers_and_keeps_those_in_use() -> None:
    peers = [str(parse_peer_id(PEER).__class__(parse_peer_id(PEER).to_bytes()[:-1] + bytes([n]))) for n in range(5)]
    book = AddressBook(max_peers=3, max_per_peer=3)
    for peer in peers:
        book.learn(peer, ["/ip4/10.0.0.1/tcp/1"], in_use={peers[0]})
    assert [peer for peer in peers if book.of(peer)] == [peers[0], peers[3], peers[4]]


def test_unusable_addresses_are_left_out_and_said() -> None:
    book = AddressBook(max_peers=3, max_per_peer=3)
    good = "/ip4/10.0.0.1/tcp/1"
    for bad in ("nonsense", "/ip4/0.0.0.0/tcp/1", "/ip4/10.0.0.1/tcp/0", f"/ip4/10.0.0.1/tcp/1/p2p/{OTHER}"):
        assert not book.learn(PEER, [bad, good])
    assert book.of(PEER) == (Multiaddr(good),)
    assert not book.learn("nobody", [good])
    assert len(book) == 1


def test_listening_on_any_host_is_announced_as_real_ones() -> None:
    found = [str(where) for where in concrete(Multiaddr("/ip4/0.0.0.0/tcp/4001"))]
    assert "/ip4/127.0.0.1/tcp/4001" in found
    assert not any("0.0.0.0" in where for where in found)
    assert concrete(Multiaddr("/ip4/10.0.0.1/tcp/4001")) == [Multiaddr("/ip4/10.0.0.1/tcp/4001")]
