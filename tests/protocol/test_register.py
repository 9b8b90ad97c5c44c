"""The two halves of a register by themselves; together they are in ``test_register_model.py``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.decrees import Decree, Final, Next
from protocol.identity import PeerId
from protocol.limits import EPOCH_STEP_MAX
from protocol.register import Acceptor, Proposer, Voted
from protocol.signing import Signed
from protocol.wire import Ballot
from tests.protocol.samples import digest_of, holder

ANN, BOB, CAT, DAN, EVE = (PeerId(name) for name in ("ann", "bob", "cat", "dan", "eve"))
FIRST = Ballot(config=1, epoch=0, peer=ANN)
END, OTHER_END = Final(body=digest_of("done")), Final(body=digest_of("cancelled"))
CHANGE = Next(holders=(holder("ann"), holder("dan")), steward=ANN)


def ballot(epoch: int, peer: PeerId = ANN, config: int = 1) -> Ballot:
    return Ballot(config=config, epoch=epoch, peer=peer)


def state(acceptor: Acceptor) -> tuple[Ballot, Voted | None]:
    return acceptor.promised, acceptor.voted


ballots = st.builds(ballot, st.integers(0, 4), st.sampled_from([ANN, BOB, CAT]))
decrees = st.sampled_from([END, OTHER_END, CHANGE])
votes = st.builds(Voted, ballots, decrees)
requests = st.tuples(ballots, st.none() | decrees)
"""To promise, or to vote for a decree."""


def ask(acceptor: Acceptor, wanted: Ballot, decree: Decree | None) -> bool:
    return acceptor.promise(wanted) if decree is None else acceptor.vote(wanted, decree)


# -- acceptor -------------------------------------------------------------------------------------------------


def test_the_owner_of_epoch_0_needs_no_promise() -> None:
    acceptor = Acceptor(FIRST)
    assert acceptor.vote(FIRST, END)
    assert state(acceptor) == (FIRST, Voted(FIRST, END))


def test_a_promise_excludes_what_is_lower_and_keeps_the_vote() -> None:
    acceptor = Acceptor(FIRST)
    acceptor.vote(FIRST, END)
    assert acceptor.promise(ballot(1, BOB))
    for lower in (FIRST, ballot(0, CAT), ballot(1, ANN)):
        assert not acceptor.promise(lower)
        assert not acceptor.vote(lower, END)
    assert state(acceptor) == (ballot(1, BOB), Voted(FIRST, END))


def test_of_two_peers_in_one_epoch_the_later_by_name_is_higher() -> None:
    acceptor = Acceptor(FIRST)
    assert acceptor.promise(ballot(1, BOB))
    assert acceptor.promise(ballot(1, CAT))
    assert not acceptor.promise(ballot(1, BOB))


def test_a_vote_promises_its_ballot() -> None:
    acceptor = Acceptor(FIRST)
    assert acceptor.vote(ballot(2, BOB), END), "nothing asked it to promise"
    assert not acceptor.vote(ballot(1, CAT), END)
    assert acceptor.promised == ballot(2, BOB)


def test_a_later_ballot_replaces_the_vote() -> None:
    acceptor = Acceptor(FIRST)
    acceptor.vote(FIRST, END)
    assert acceptor.vote(ballot(1), CHANGE)
    assert acceptor.voted == Voted(ballot(1), CHANGE)


def test_in_one_ballot_there_is_one_vote() -> None:
    acceptor = Acceptor(FIRST)
    assert acceptor.vote(FIRST, END)
    assert not acceptor.vote(FIRST, OTHER_END)
    assert acceptor.vote(FIRST, END), "the proposer asks again"
    assert acceptor.voted == Voted(FIRST, END)


@pytest.mark.parametrize("config", [0, 2])
def test_ballots_of_other_configurations_are_none(config: int) -> None:
    acceptor = Acceptor(FIRST)
    assert not acceptor.promise(ballot(5, BOB, config))
    assert not acceptor.vote(ballot(5, BOB, config), END)
    assert state(acceptor) == (FIRST, None)


@given(promised=st.integers(0, 1 << 20), peer=st.sampled_from([ANN, CAT]))
def test_nobody_can_use_up_the_epochs(promised: int, peer: PeerId) -> None:
    acceptor = Acceptor(ballot(promised, BOB))
    too_far, furthest = ballot(promised + EPOCH_STEP_MAX + 1, peer), ballot(promised + EPOCH_STEP_MAX, peer)
    assert not acceptor.promise(too_far)
    assert not acceptor.vote(too_far, END)
    assert state(acceptor) == (ballot(promised, BOB), None)
    assert acceptor.promise(furthest)
    assert acceptor.promise(too_far), "and on from there"


@given(asked=st.lists(requests, max_size=12))
def test_whatever_is_asked_an_acceptor_only_moves_up(asked: list[tuple[Ballot, Decree | None]]) -> None:
    acceptor = Acceptor(FIRST)
    cast: dict[Ballot, Decree] = {}
    for wanted, decree in asked:
        promised, voted = state(acceptor)
        if not ask(acceptor, wanted, decree):
            assert state(acceptor) == (promised, voted), "a refusal changes nothing"
            assert wanted < promised or (decree is not None and cast[wanted] != decree), "and has a reason"
            continue
        assert acceptor.promised == wanted >= promised
        assert acceptor.voted == (voted if decree is None else Voted(wanted, decree))
        if decree is not None:
            assert cast.setdefault(wanted, decree) == decree


@given(asked=st.lists(requests, min_size=1, max_size=12))
def test_who_asks_again_gets_the_same_answer(asked: list[tuple[Ballot, Decree | None]]) -> None:
    once, twice = Acceptor(FIRST), Acceptor(FIRST)
    for wanted, decree in asked:
        answer = ask(once, wanted, decree)
        assert [ask(twice, wanted, decree), ask(twice, wanted, decree)] == [answer, answer]
        assert state(once) == state(twice)


@given(asked=st.lists(requests, max_size=12), restarts=st.sets(st.integers(0, 11)))
def test_promise_and_vote_are_all_that_a_restart_needs(
    asked: list[tuple[Ballot, Decree | None]], restarts: set[int]
) -> None:
    steady, restarted = Acceptor(FIRST), Acceptor(FIRST)
    for number, (wanted, decree) in enumerate(asked):
        if number in restarts:
            restarted = Acceptor(restarted.promised, restarted.voted)
        assert ask(steady, wanted, decree) == ask(restarted, wanted, decree)
        assert state(steady) == state(restarted)


# -- proposer -------------------------------------------------------------------------------------------------

THREE, FIVE = (ANN, BOB, CAT), (ANN, BOB, CAT, DAN, EVE)


def elected(*promises: tuple[PeerId, Voted | None], holders: tuple[PeerId, ...] = THREE) -> Proposer:
    proposer = Proposer(ballot(9, BOB), holders)
    for peer, voted in promises:
        proposer.take_promise(peer, voted)
    return proposer


@pytest.mark.parametrize(("holders", "needed"), [((ANN,), 1), (THREE, 2), (FIVE, 3), ((ANN, BOB), 2), (FIVE[:4], 3)])
def test_a_majority_elects_and_decides(holders: tuple[PeerId, ...], needed: int) -> None:
    proposer = Proposer(ballot(1, BOB), holders)
    for number, peer in enumerate(holders):
        assert proposer.elected == (number >= needed)
        proposer.take_promise(peer, None)
    assert proposer.propose(END) == END
    decisive = [proposer.take_vote(peer, vote(peer)) for peer in holders]
    assert decisive == [number + 1 == needed for number in range(len(holders))], "said once"


def vote(peer: PeerId) -> Signed:
    """The proposer keeps it and does not look into it."""
    return Signed(payload=peer.encode(), signature=bytes(64))


def test_neither_strangers_nor_the_same_holder_again_make_a_majority() -> None:
    proposer = elected((BOB, None), (BOB, None), (DAN, None))
    assert not proposer.elected
    with pytest.raises(AssertionError, match="before a majority"):
        proposer.propose(END)
    proposer.take_promise(CAT, None)
    proposer.propose(END)
    assert [proposer.take_vote(peer, vote(peer)) for peer in (BOB, BOB, DAN, CAT, CAT)] == [False] * 3 + [True, False]
    assert list(proposer.votes) == [BOB, CAT]


def test_of_a_holder_the_first_vote_is_kept() -> None:
    proposer = elected((BOB, None), (CAT, None))
    proposer.propose(END)
    proposer.take_vote(BOB, vote(BOB))
    proposer.take_vote(BOB, vote(EVE))
    assert proposer.votes == {BOB: vote(BOB)}


def test_the_owner_of_epoch_0_is_elected_and_free() -> None:
    proposer = Proposer(FIRST, THREE, owns=True)
    assert proposer.elected
    assert proposer.propose(CHANGE) == CHANGE


def test_the_vote_of_the_highest_ballot_is_proposed_whatever_one_wanted() -> None:
    low, high = Voted(ballot(1, CAT), END), Voted(ballot(2, ANN), CHANGE)
    assert elected((ANN, low), (BOB, None)).propose(OTHER_END) == END
    assert elected((ANN, low), (BOB, high), (CAT, None)).propose(OTHER_END) == CHANGE
    assert elected((ANN, high), (BOB, low), (CAT, None)).propose(OTHER_END) == CHANGE
    assert elected((ANN, None), (BOB, None)).propose(OTHER_END) == OTHER_END


def test_what_a_stranger_says_it_voted_forces_nothing() -> None:
    proposer = elected((ANN, None), (BOB, None), (DAN, Voted(ballot(5), END)))
    assert proposer.forced is None


@given(
    reports=st.dictionaries(st.sampled_from(FIVE), st.none() | votes, min_size=3),
    wanted=decrees,
    later=st.lists(st.tuples(st.sampled_from(FIVE), st.none() | votes, decrees)),
)
def test_the_first_proposal_stays(
    reports: dict[PeerId, Voted | None], wanted: Decree, later: list[tuple[PeerId, Voted | None, Decree]]
) -> None:
    """Promises that come after it make no difference, which the model of all interleavings relies on."""
    proposer = elected(*reports.items(), holders=FIVE)
    seen = [voted for voted in reports.values() if voted is not None]
    proposed = proposer.propose(wanted)
    highest = max((voted.ballot for voted in seen), default=None)
    assert proposed in ({voted.decree for voted in seen if voted.ballot == highest} or {wanted})
    for peer, voted, other in later:
        proposer.take_promise(peer, voted)
        assert proposer.propose(other) == proposed
