"""All interleavings of the registers of one job: no two decrees in one configuration, no two ends of one job.

Complete spaces, driven through the product's objects; chance walks through larger ones; and planted bugs, each of
which the same search finds. ``SOAK=1``, which ``make soak`` sets, adds the spaces that take minutes and 3 GB;
``SOAK=all`` one that takes 6 GB.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from protocol import chain, register
from protocol.chain import Configuration
from protocol.decrees import Decree, Next
from protocol.identity import PeerId
from protocol.register import Acceptor, Proposer, Voted
from protocol.wire import Ballot
from tests.protocol.register_model import Found, Model, Register, Rules, Site, Space, folded

soak = pytest.mark.skipif(not os.environ.get("SOAK"), reason="takes minutes: make soak")
huge = pytest.mark.skipif(os.environ.get("SOAK") != "all", reason="takes 6 GB of memory: SOAK=all")


def space(text: str) -> Space:
    """``3: 2/1`` is three holders, with two ballots before their change and one after it."""
    holders, ballots = text.split(":")
    return Space(int(holders), tuple(int(count) for count in ballots.split("/")))


# -- every state ----------------------------------------------------------------------------------------------

QUICK = {
    "3: 3": (1_268, 16),
    "3: 4": (21_596, 22),
    "3: 2/2": (8_667, 20),
    "3: 3/2": (189_894, 26),
    "5: 2/1": (3_779, 21),
    "5: 2/2": (129_611, 30),
    "1: 3/3": (68_584, 24),
    # two changes of holders
    "3: 2/1/1": (3_387, 18),
    "3: 2/2/1": (82_367, 24),
    "3: 3/1/1": (73_926, 24),
    "1: 2/2/2": (75_284, 25),
}
SOAK = {
    "5: 3": (15_610, 24),
    "3: 4/1": (323_278, 26),
    "3: 4/2": (3_925_294, 32),
    "3: 3/3": (3_067_350, 32),
    "5: 3/1": (237_132, 30),
    "5: 3/2": (8_286_264, 39),
    "3: 2/2/2": (953_567, 30),
    "3: 3/2/1": (1_808_614, 30),
    "3: 3/2/2": (20_943_334, 36),
    # three
    "3: 2/2/2/1": (9_060_567, 34),
}
HUGE = {"3: 4/3": (63_508_642, 38)}
SPACES = [
    *(pytest.param(text, *size) for text, size in QUICK.items()),
    *(pytest.param(text, *size, marks=soak) for text, size in SOAK.items()),
    *(pytest.param(text, *size, marks=huge) for text, size in HUGE.items()),
]


@pytest.mark.parametrize(("text", "states", "depth"), SPACES)
def test_in_every_state_each_configuration_has_decided_once_and_the_job_ended_once(
    text: str, states: int, depth: int
) -> None:
    """The sizes are written down so that a model that goes through less than it did does not pass unseen."""
    model = Model(space(text))
    found = model.search()
    assert found.trace is None
    assert model.faults == set()
    assert (found.states, found.depth) == (states, depth)
    assert found.outcomes == every_outcome(model.space)


def every_outcome(space: Space) -> set[tuple[str, ...]]:
    """What can be decided in one configuration after the other, with each ballot in turn the one that does it."""
    count, *rest = space.ballots
    ends: set[tuple[str, ...]] = {(f"end {ballot}",) for ballot in range(count)}
    if not rest:
        return ends
    return ends | {
        (change, *later)
        for change in ("change 0", "change 1")
        for later in ((), *every_outcome(Space(space.holders, tuple(rest))))
    }


@pytest.mark.parametrize("text", ["3: 2", "3: 3", "3: 2/1", "1: 2/1", "5: 2"])
def test_states_that_differ_in_the_order_of_holders_are_left_out_rightly(text: str) -> None:
    whole, part = Model(space(text), symmetric=False), Model(space(text))
    every, some = whole.search(), part.search()
    assert (every.depth, every.trace, every.outcomes) == (some.depth, some.trace, some.outcomes)
    assert every.states >= some.states
    for number in range(len(whole.space.ballots)):
        assert part.registers(number) == {folded(one) for one in whole.registers(number)}


# -- some of the ways, to the end -----------------------------------------------------------------------------


def walks(text: str, count: int) -> None:
    changed = adopted = 0
    model = Model(space(text), symmetric=False)
    for seed in range(count):
        registers = model.walk(Random(seed))
        outcome = model.outcome(registers)
        assert [len(names) for names in outcome] == [1] * len(outcome), "nothing is left to happen, so all is decided"
        assert next(iter(outcome[-1])).startswith("end")
        changed += len(registers) > 1
        adopted += any(sum(map(len, one.proposals)) > len(frozenset().union(*one.proposals)) for one in registers)
    assert model.faults == set()
    assert changed > count / 10
    assert adopted > count / 10


@pytest.mark.parametrize("text", ["3: 4/3", "5: 4/3", "3: 3/3/3", "5: 3/2/2"])
def test_every_walk_ends_with_one_end_of_the_job(text: str) -> None:
    walks(text, 200)


@soak
@pytest.mark.parametrize("text", ["3: 4/3", "5: 4/3", "3: 3/3/3", "5: 3/3/3", "3: 6/4", "5: 6/4"])
def test_every_one_of_many_walks_ends_with_one_end_of_the_job(text: str) -> None:
    walks(text, 3_000)


# -- planted bugs ---------------------------------------------------------------------------------------------


class AdoptsNothing(Proposer):
    @property
    def forced(self) -> Decree | None:
        return None


class AdoptsTheOldest(Proposer):
    @property
    def forced(self) -> Decree | None:
        votes = [voted for voted in self.promises.values() if voted is not None]
        return min(votes, key=lambda voted: voted.ballot).decree if votes else None


class VotesBelowItsPromise(Acceptor):
    def vote(self, ballot: Ballot, decree: Decree) -> bool:
        self.promised = max(self.promised, ballot)
        self.voted = Voted(ballot, decree)
        return True


class VotesWithoutPromising(Acceptor):
    """After a vote in a ballot that it has not promised it may still vote in a lower one."""

    def vote(self, ballot: Ballot, decree: Decree) -> bool:
        promised = self.promised
        agreed = super().vote(ballot, decree)
        self.promised = promised
        return agreed


class NothingAdopted(Rules):
    proposer = AdoptsNothing


class OldestAdopted(Rules):
    proposer = AdoptsTheOldest


class VoteNotReported(Rules):
    def report(self, acceptor: Acceptor) -> Voted | None:
        return None


class VoteBelowThePromise(Rules):
    acceptor = VotesBelowItsPromise


class VoteWithoutPromise(Rules):
    acceptor = VotesWithoutPromising


class BallotReused(Rules):
    """The steward comes back from a crash and leads its epoch 0 once more."""

    leads_once = False


class VotesOfBallotsAddedUp(Rules):
    def counted(self, register: Register, ballot: int, decree: int) -> tuple[int, ...]:
        voted = [{said[1] for said in column.votes} for column in register.columns]
        return tuple(place for place, decrees in enumerate(voted) if decree in decrees)


class PromiseForgotten(Rules):
    """A vote is written down, a promise is not."""

    def restarted(self, acceptor: Acceptor, first: Ballot) -> Acceptor:
        return type(acceptor)(acceptor.voted.ballot if acceptor.voted else first, acceptor.voted)


class EverythingForgotten(Rules):
    """A holder that lost its disk goes on as the same holder; or one that has put a job away gets it anew."""

    def restarted(self, acceptor: Acceptor, first: Ballot) -> Acceptor:
        return type(acceptor)(first)


class NextInEffectAtOnce(Rules):
    """The next holders act on a change that is proposed and not yet decided."""

    def in_effect(self, register: Register, decided: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*register.proposals)


class Adopter(Rules):
    """Who proposed, in a later ballot, a change of holders that it found needs no promises after that change."""

    looks_back = True

    def owns(self, site: Site, ballot: int, before: Register | None) -> bool:
        mine = site.ballots[ballot]
        return super().owns(site, ballot, before) or (before is not None and self.adopted(site, mine.peer, before))

    def adopted(self, site: Site, peer: PeerId, before: Register) -> bool:
        assert site.before is not None
        led = [before.proposals[number] for number, ballot in enumerate(site.before.ballots) if ballot.peer == peer]
        change = Next(holders=site.configuration.holders, steward=site.configuration.steward)
        number = site.before.decree_numbers[change]
        times = sum(number in proposals for proposals in before.proposals)
        return times > 1 and any(number in proposals for proposals in led)


class AdopterUsesEpochZero(Adopter):
    """It takes itself for the steward that the change names."""

    def ballots(self, configuration: Configuration, count: int) -> list[Ballot]:
        if configuration.number == 0:
            return super().ballots(configuration, count)
        other = Ballot(config=configuration.number, epoch=0, peer=configuration.peers[1])
        return sorted({configuration.first_ballot, other})


class AdopterKeepsItsBallot(Adopter):
    """It leads the same epoch among the new holders, who have promised it nothing (F1)."""


@pytest.mark.parametrize(
    ("rules", "text", "depth"),
    [
        (NothingAdopted, "3: 2", 8),
        (OldestAdopted, "3: 3", 12),
        (VoteNotReported, "3: 2", 8),
        (VoteBelowThePromise, "3: 2", 8),
        (VoteWithoutPromise, "3: 3", 12),
        (BallotReused, "3: 2/1", 10),
        (VotesOfBallotsAddedUp, "3: 4", 14),
        (PromiseForgotten, "3: 2", 9),
        (EverythingForgotten, "3: 2", 9),
        (NextInEffectAtOnce, "3: 2/1", 9),
        (AdopterUsesEpochZero, "3: 2/2", 12),
        (AdopterKeepsItsBallot, "3: 2/2", 12),
    ],
)
def test_a_planted_bug_lets_the_holders_disagree(rules: type[Rules], text: str, depth: int) -> None:
    """After that many steps and no fewer."""
    found = disagreement(Model(space(text), rules()))
    assert found.depth == depth


def test_fewer_than_a_majority_let_the_holders_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (register, chain):
        monkeypatch.setattr(module, "majority", lambda holders: holders // 2)
    assert disagreement(Model(space("3: 2"))).depth == 5


def disagreement(model: Model) -> Found:
    found = model.search()
    assert found.trace is not None
    assert len(found.trace) == found.depth
    return found


def test_what_an_additional_ballot_is_good_for() -> None:
    """Some bugs show in no state of a space that is one ballot smaller."""
    for rules, text in ((OldestAdopted, "3: 2"), (VoteWithoutPromise, "3: 2"), (VotesOfBallotsAddedUp, "3: 3")):
        assert Model(space(text), rules()).search().trace is None
