"""Peers that know the same peers agree on where something is kept."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocol.identity import PeerId
from protocol.rendezvous import KEY_BYTES, alias_key, job_key, model_key, nearer, nearest

PEERS = [PeerId(f"peer-{number}") for number in range(50)]
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


@given(key=keys, order=st.permutations(PEERS[:20]), count=st.integers(0, 25))
def test_the_order_in_which_peers_are_known_does_not_matter(key: bytes, order: list[PeerId], count: int) -> None:
    chosen = nearest(key, order, count)
    assert chosen == nearest(key, PEERS[:20], count)
    assert len(chosen) == min(count, 20)


@given(key=keys, gone=st.sampled_from(PEERS))
def test_a_peer_that_leaves_moves_only_what_it_kept(key: bytes, gone: PeerId) -> None:
    before = nearest(key, PEERS, 3)
    after = nearest(key, [peer for peer in PEERS if peer != gone], 3)
    assert [peer for peer in before if peer != gone] == [peer for peer in after if peer in before]


@given(key=keys, me=st.sampled_from(PEERS))
def test_a_walk_comes_nearer_with_each_hop_until_it_is_there(key: bytes, me: PeerId) -> None:
    order = nearest(key, PEERS, len(PEERS))
    while ahead := nearer(key, me, PEERS, 2):
        assert all(order.index(peer) < order.index(me) for peer in ahead)
        me = ahead[-1]
    assert me == order[0]


def test_keys_spread_over_the_peers() -> None:
    load = Counter(nearest(number.to_bytes(4, "big"), PEERS, 1)[0] for number in range(5_000))
    assert len(load) > len(PEERS) * 4 // 5
    assert max(load.values()) < 6 * 100, "uneven, as the places on a ring are"


def test_the_key_of_a_job_is_what_its_short_form_shows() -> None:
    assert job_key(bytes.fromhex("bd92e3f1") + bytes(28)) == bytes.fromhex("bd92e3f1")


def test_an_alias_belongs_to_its_submitter_and_is_no_model() -> None:
    ann, bob = PEERS[:2]
    assert len({alias_key(ann, "stars"), alias_key(bob, "stars"), alias_key(ann, "moon"), model_key("stars")}) == 4
