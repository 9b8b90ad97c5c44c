"""Which certificates follow on which: what anyone can check who has the signed spec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.chain import Chain, Configuration
from protocol.codec import decode_as, encode
from protocol.decrees import Certificate, Decree, Final, FinalBody, Next, digest_of
from protocol.errors import RemoteProtocolError
from protocol.identity import Ed25519Verifier
from protocol.limits import CONFIGURATIONS_MAX
from protocol.records import Vote
from protocol.signing import RecordReader, Signed, sign
from protocol.wire import Ballot, Holder
from tests.protocol import samples
from tests.protocol.mesh import START_WALL, signer
from tests.protocol.samples import forged, holder, nonce_of

SPEC = samples.spec("ann")
"""Held by ann, bob and cat; ann owns epoch 0."""
BODY = FinalBody(job=SPEC.digest, status="success", completed_at=START_WALL, clock=START_WALL)
END = Final(body=digest_of(BODY))


def chain(*certificates: Certificate) -> Chain:
    reader = RecordReader(Ed25519Verifier())
    made = Chain(SPEC, lambda signed: reader.open(signed, Vote))
    made.extend(certificates)
    return made


def peer(name: str) -> Any:
    return signer(name).peer_id


def ballot(config: int = 0, epoch: int = 0, name: str = "ann") -> Ballot:
    return Ballot(config=config, epoch=epoch, peer=peer(name))


def change(*names: str, steward: str | None = None) -> Next:
    return Next(holders=tuple(holder(name) for name in names), steward=peer(steward or names[0]))


def vote(name: str, under: Ballot, decree: Decree, /, **fields: Any) -> Signed:
    mine = holder(name)
    defaults: dict[str, Any] = {"job": SPEC.digest, "ballot": under, "decree": digest_of(decree), "peer": mine.peer}
    return sign(Vote(**(defaults | {"store": mine.store} | fields)), signer(name)).signed


def certificate(decree: Decree, /, *voters: str, under: Ballot | None = None, **fields: Any) -> Certificate:
    """``fields`` are those of every vote."""
    under = under or ballot()
    votes = tuple(vote(name, under, decree, **fields) for name in voters)
    return Certificate(ballot=under, decree=decree, votes=votes)


def refused(wrong: Certificate, *before: Certificate, match: str) -> None:
    made = chain(*before)
    with pytest.raises(RemoteProtocolError, match=match):
        made.extend([wrong])
    assert made.certificates == list(before)
    assert len(made.configurations) == len(before) + 1


TO_DAN = change("ann", "bob", "dan", steward="bob")
CHANGED = certificate(TO_DAN, "ann", "bob")
ENDED = certificate(END, "ann", "dan", under=ballot(1, name="bob"))

# -- what holds -----------------------------------------------------------------------------------------------


def test_the_spec_names_the_first_holders() -> None:
    first = chain().current
    assert first == Configuration(0, (holder("ann"), holder("bob"), holder("cat")), peer("ann"))
    assert first.peers == (peer("ann"), peer("bob"), peer("cat"))
    assert first.first_ballot == ballot()
    assert (first.store_of(peer("bob")), first.store_of(peer("dan"))) == (holder("bob").store, None)


@pytest.mark.parametrize("voters", [("ann", "bob"), ("cat", "bob"), ("ann", "bob", "cat")])
@pytest.mark.parametrize("under", [ballot(), ballot(epoch=3, name="cat")])
def test_a_majority_in_any_ballot_ends_the_job(voters: tuple[str, ...], under: Ballot) -> None:
    assert chain().final is None
    made = chain()
    assert made.extend([certificate(END, *voters, under=under)])
    assert (made.final, len(made.configurations)) == (END, 1)
    assert made.certifies(BODY)
    assert not made.certifies(msgspec.structs.replace(BODY, status="failed"))


def test_a_job_that_goes_on_is_certified_to_have_ended_in_no_way() -> None:
    assert not chain().certifies(BODY)
    assert not chain(CHANGED).certifies(BODY)


def test_a_change_makes_its_holders_the_ones_that_count() -> None:
    made = chain(CHANGED)
    assert made.current == Configuration(1, TO_DAN.holders, peer("bob"))
    assert made.current.first_ballot == ballot(1, name="bob")
    refused(certificate(END, "bob", "cat", under=ballot(1)), CHANGED, match="no holder")
    assert made.extend([ENDED])
    assert made.certifies(BODY)


def test_a_chain_that_comes_at_once_and_one_that_comes_bit_by_bit_are_the_same() -> None:
    whole, bits = chain(CHANGED, ENDED), chain()
    assert bits.extend([CHANGED])
    assert not bits.extend([CHANGED]), "known"
    assert bits.extend([CHANGED, ENDED])
    assert not bits.extend([CHANGED, ENDED])
    assert not bits.extend([])
    assert (bits.certificates, bits.configurations) == (whole.certificates, whole.configurations)


def test_who_ever_was_a_holder_has_held() -> None:
    made = chain(CHANGED)
    assert [made.has_held(peer(name)) for name in ("ann", "bob", "cat", "dan", "eve")] == [True] * 4 + [False]
    assert not chain().has_held(peer("dan"))


def test_a_holder_with_a_new_store_can_come_back_in_place_of_its_old_self() -> None:
    again = Holder(peer=peer("cat"), store=nonce_of("a new disk"))
    back = Next(holders=(holder("ann"), holder("bob"), again), steward=peer("ann"))
    changed = certificate(back, "ann", "bob")
    assert chain(changed).current.store_of(peer("cat")) == again.store
    votes = (vote("ann", ballot(1), END), vote("cat", ballot(1), END, store=again.store))
    assert chain(changed, Certificate(ballot=ballot(1), decree=END, votes=votes)).final == END
    refused(certificate(END, "ann", "cat", under=ballot(1)), changed, match="no holder")


# -- what does not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"job": samples.digest_of("another job")},
        {"ballot": ballot(epoch=1)},
        {"ballot": ballot(name="bob")},
        {"ballot": ballot(1)},
        {"decree": samples.digest_of("another decree")},
        {"decree": digest_of(TO_DAN)},
    ],
)
def test_votes_count_for_their_job_ballot_and_decree(fields: dict[str, Any]) -> None:
    refused(certificate(END, "ann", "bob", **fields), match="something else")


def test_votes_of_different_ballots_do_not_add_up() -> None:
    mixed = (vote("ann", ballot(), END), vote("bob", ballot(epoch=1), END))
    for under in (ballot(), ballot(epoch=1)):
        refused(Certificate(ballot=under, decree=END, votes=mixed), match="something else")


def test_one_wrong_vote_spoils_what_has_a_majority_without_it() -> None:
    """So a certificate is the same evidence for everyone, down to its last vote."""
    good = certificate(END, "ann", "bob")
    for wrong in (vote("cat", ballot(epoch=1), END), vote("dan", ballot(), END), forged(vote("cat", ballot(), END))):
        with pytest.raises(RemoteProtocolError):
            chain(msgspec.structs.replace(good, votes=(*good.votes, wrong)))


def test_a_vote_from_another_store_is_not_the_holders() -> None:
    votes = (vote("ann", ballot(), END), vote("bob", ballot(), END, store=nonce_of("a new disk")))
    refused(Certificate(ballot=ballot(), decree=END, votes=votes), match="no holder")


def test_strangers_have_no_votes() -> None:
    refused(certificate(END, "ann", "dan"), match="no holder")


@pytest.mark.parametrize("voters", [("ann",), ("bob", "bob"), ("cat", "cat", "cat")])
def test_a_minority_decides_nothing_however_often_it_votes(voters: tuple[str, ...]) -> None:
    refused(certificate(END, *voters), match="1 of 3")


@pytest.mark.parametrize(("holders", "few", "enough"), [(5, 2, 3), (3, 1, 2), (1, 0, 1)])
def test_a_majority_is_more_than_half(holders: int, few: int, enough: int) -> None:
    names = ("bob", "cat", "dan", "eve", "fay")[:holders]
    changed = certificate(change(*names), "ann", "bob")
    under = ballot(1, name="bob")
    refused(certificate(END, *names[:few], under=under), changed, match=f"{few} of {holders}")
    assert chain(changed, certificate(END, *names[:enough], under=under)).final == END


def test_a_vote_that_its_holder_did_not_sign_is_none() -> None:
    genuine = vote("bob", ballot(), END)
    for wrong in (forged(genuine), Signed(payload=genuine.payload, signature=vote("ann", ballot(), END).signature)):
        votes = (vote("ann", ballot(), END), wrong)
        refused(Certificate(ballot=ballot(), decree=END, votes=votes), match="signature")


def test_another_record_is_no_vote() -> None:
    votes = (vote("ann", ballot(), END), samples.held(by="bob").signed)
    refused(Certificate(ballot=ballot(), decree=END, votes=votes), match="was expected")


@pytest.mark.parametrize(
    "decree",
    [change("ann", "bob", "bob"), change("ann", "ann"), change("ann", "bob", steward="cat")],
    ids=["one twice", "only one, twice", "a steward from outside"],
)
def test_holders_that_cannot_be_are_refused_whoever_votes_for_them(decree: Next) -> None:
    refused(certificate(decree, "ann", "bob", "cat"), match="cannot be")


def test_one_peer_with_two_stores_is_still_one_holder() -> None:
    twice = (holder("ann"), Holder(peer=peer("ann"), store=nonce_of("another")), holder("bob"))
    refused(certificate(Next(holders=twice, steward=peer("ann")), "ann", "bob"), match="cannot be")


# -- order ----------------------------------------------------------------------------------------------------


def test_what_does_not_follow_on_what_is_known_is_left_alone() -> None:
    made = chain()
    assert not made.extend([ENDED]), "the change that led to it is not there"
    assert made.certificates == []
    assert made.extend([ENDED, CHANGED]), "nor is it looked at again"
    assert made.certificates == [CHANGED]


def test_a_second_certificate_of_one_configuration_is_not_even_looked_at() -> None:
    made = chain(CHANGED)
    assert not made.extend([certificate(END, "ann", "bob", under=ballot(epoch=1)), certificate(END, "eve")])
    assert (made.final, len(made.configurations)) == (None, 2)


def test_after_the_end_there_is_nothing() -> None:
    made = chain(certificate(END, "ann", "bob"))
    other = Final(body=samples.digest_of("another end"))
    later = [certificate(other, "ann", "bob", under=ballot(config)) for config in (0, 1)]
    assert not made.extend([*later, certificate(TO_DAN, "ann", "bob", under=ballot(1))])
    assert (made.final, len(made.certificates), len(made.configurations)) == (END, 1, 1)


def test_what_comes_before_a_bad_certificate_is_kept() -> None:
    made = chain()
    bad = certificate(END, "cat", "bob", under=ballot(1))
    with pytest.raises(RemoteProtocolError):
        made.extend([CHANGED, bad, ENDED])
    assert made.certificates == [CHANGED]
    assert made.extend([CHANGED, ENDED])


def test_holders_change_so_many_times_and_then_the_job_can_only_end() -> None:
    made = chain()
    for config in range(CONFIGURATIONS_MAX - 1):
        assert not made.full
        assert made.extend([certificate(change("ann", "bob", "cat"), "ann", "bob", under=ballot(config))])
    assert made.full
    last = ballot(CONFIGURATIONS_MAX - 1)
    with pytest.raises(RemoteProtocolError, match="cannot be"):
        made.extend([certificate(change("ann", "bob", "cat"), "ann", "bob", under=last)])
    assert made.extend([certificate(END, "ann", "bob", under=last)])
    assert made.certifies(BODY)
    assert len(made.certificates) == CONFIGURATIONS_MAX, "as many as travel together"


def test_a_certificate_is_the_same_after_the_wire() -> None:
    for one in (CHANGED, ENDED):
        assert decode_as(encode(one), Certificate, max_bytes=10_000) == one
