"""Every interleaving of what the holders of one job may do, through the product's own objects.

A state is what is durable at each acceptor, every message ever sent, and what each ballot has proposed. Messages are
never taken away, so loss, duplication, delay and reordering are all in it, and so is a crash at any point: who comes
back with its journal is who was merely slow. A proposer may hear any majority of the promises sent, and a ballot is
led by somebody who need not vote in it, which allows more than the product does.

``Acceptor``, ``Proposer``, ``Configuration`` and ``Chain`` decide every step; this file only remembers, by number,
what they answered. Holders of one register are told apart by what they did and by nothing else, so states that
differ in the order of the holders are one state, unless ``symmetric`` is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from random import Random
from typing import NamedTuple

from protocol.chain import Chain, Configuration
from protocol.decrees import Certificate, Decree, Final, Next, digest_of
from protocol.errors import RemoteProtocolError
from protocol.identity import Ed25519Verifier
from protocol.records import Vote
from protocol.register import Acceptor, Proposer, Voted
from protocol.signing import RecordReader, Signed, sign
from protocol.wire import Ballot, Holder
from tests.protocol import samples
from tests.protocol.mesh import signer

Said = tuple[int, int]
"""A ballot and a decree, each by its number in its register."""
Path = tuple[int, ...]
"""The decrees that led to a configuration."""

PEERS = sorted((f"peer {number}" for number in range(16)), key=lambda name: signer(name).peer_id)
"""In the order in which they win between ballots of one epoch; holders from the front, new ones from the back."""
BITS = 24
"""Of a packed state, for each of its registers."""


class Space(NamedTuple):
    """How much is gone through."""

    holders: int
    ballots: tuple[int, ...]
    """Of each configuration in turn; there are as many configurations."""


class Column(NamedTuple):
    """One holder in one register: what it has written down, and everything it has sent."""

    promised: int
    voted: Said | None
    promises: frozenset[tuple[int, Said | None]]
    votes: frozenset[Said]


class Register(NamedTuple):
    path: Path
    proposals: tuple[frozenset[int], ...]
    """Of each ballot."""
    columns: tuple[Column, ...]


class Rules:
    """What the objects leave to those who use them, as it should be; each planted bug changes one thing."""

    acceptor: type[Acceptor] = Acceptor
    proposer: type[Proposer] = Proposer
    #: Whether a ballot's proposal outlives a crash, because nobody leads a ballot twice.
    leads_once = True
    #: Whether what happens in a register depends on the one before.
    looks_back = False

    def ballots(self, configuration: Configuration, count: int) -> list[Ballot]:
        """Epoch 0, and others: two in every epoch, of different holders."""
        peers = configuration.peers
        ballots = [configuration.first_ballot]
        for number in range(1, count):
            epoch = number if len(peers) == 1 else (number + 1) // 2
            ballots.append(Ballot(config=configuration.number, epoch=epoch, peer=peers[number % len(peers)]))
        return sorted(ballots)

    def owns(self, site: Site, ballot: int, before: Register | None) -> bool:
        return site.ballots[ballot] == site.configuration.first_ballot

    def report(self, acceptor: Acceptor) -> Voted | None:
        """What a promise says of the vote before it."""
        return acceptor.voted

    def restarted(self, acceptor: Acceptor, first: Ballot) -> Acceptor:
        """What is left of an acceptor after a crash."""
        return acceptor

    def counted(self, register: Register, ballot: int, decree: int) -> tuple[int, ...]:
        """Whose votes count for a decree in a ballot."""
        return tuple(place for place, column in enumerate(register.columns) if (ballot, decree) in column.votes)

    def in_effect(self, register: Register, decided: frozenset[int]) -> frozenset[int]:
        """Of which decrees the next holders may act on."""
        return decided


class Site:
    """One configuration that can come about: the numbers of its ballots and decrees."""

    def __init__(
        self, configuration: Configuration, ballots: list[Ballot], decrees: list[Decree], before: Site | None
    ) -> None:
        self.configuration = configuration
        #: The configuration that decided on this one.
        self.before = before
        self.ballots = ballots
        self.decrees = decrees
        self.ballot_numbers = {ballot: number for number, ballot in enumerate(ballots)}
        self.decree_numbers = {decree: number for number, decree in enumerate(decrees)}
        #: What each ballot may propose if it is free: an end of its own, and every change of holders.
        self.choices = [
            [number, *(other for other, decree in enumerate(decrees) if isinstance(decree, Next))]
            for number in range(len(ballots))
        ]

    def said(self, voted: Voted | None) -> Said | None:
        return voted and (self.ballot_numbers[voted.ballot], self.decree_numbers[voted.decree])

    def voted(self, said: Said | None) -> Voted | None:
        return said and Voted(self.ballots[said[0]], self.decrees[said[1]])


class Found(NamedTuple):
    """What a search came to."""

    states: int
    depth: int
    trace: list[str] | None
    """The shortest way to two decrees in one register or to two ends of one job; None if there is none."""
    outcomes: frozenset[tuple[str, ...]]
    """What was decided in one configuration after the other, in some state."""


class Model:
    """The registers of one job."""

    def __init__(self, space: Space, rules: Rules | None = None, *, symmetric: bool = True) -> None:
        self.space = space
        self.rules = rules or Rules()
        self.symmetric = symmetric
        #: Rules broken in a single step, or by one register in itself.
        self.faults: set[str] = set()
        self.spec = samples.spec(PEERS[0], holders=tuple(samples.holder(name) for name in PEERS[: space.holders]))
        self.reader = RecordReader(Ed25519Verifier())
        self._keys = {signer(name).peer_id: signer(name) for name in PEERS}
        self._numbers: dict[Register, int] = {}
        self._registers: list[Register] = []
        self._moves: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        self.site = cache(self._site)
        self.decided = cache(self._decided)
        self.decides = cache(self._decides)
        self.promise = cache(self._promise)
        self.vote = cache(self._vote)
        self.proposed = cache(self._proposed)
        self.certificate_vote = cache(self._certificate_vote)

    # -- configurations

    def _chain(self, path: Path) -> Chain:
        """The chain of the configuration at the end of ``path``, with the votes of all holders."""
        chain = Chain(self.spec, lambda signed: self.reader.open(signed, Vote))
        for length, decree in enumerate(path):
            everybody = range(len(chain.current.holders))
            chain.extend([self._certificate(path[:length], 0, decree, tuple(everybody))])
        return chain

    def _site(self, path: Path) -> Site:
        configuration = self._chain(path).current
        ballots = self.rules.ballots(configuration, self.space.ballots[len(path)])
        decrees: list[Decree] = [
            Final(body=samples.digest_of(f"{len(path)}/{number}")) for number in range(len(ballots))
        ]
        if len(path) + 1 < len(self.space.ballots):
            decrees += self._changes(configuration)
        return Site(configuration, ballots, decrees, self.site(path[:-1]) if path else None)

    def _changes(self, configuration: Configuration) -> list[Decree]:
        """A new peer in the place of the first holder or of the last; a holder alone gives way or gets company."""
        old = configuration.holders
        new, another = (samples.holder(PEERS[-1 - 2 * configuration.number - number]) for number in range(2))
        if len(old) == 1:
            company = (old[0], new, another)
            return [Next(holders=(new,), steward=new.peer), Next(holders=company, steward=old[0].peer)]
        first: tuple[Holder, ...] = (new, *old[1:])
        last: tuple[Holder, ...] = (*old[:-1], new)
        return [Next(holders=first, steward=old[1].peer), Next(holders=last, steward=old[0].peer)]

    def _certificate_vote(self, path: Path, ballot: int, decree: int, place: int) -> Signed:
        site = self.site(path)
        holder = site.configuration.holders[place]
        vote = Vote(
            job=self.spec.digest,
            ballot=site.ballots[ballot],
            decree=digest_of(site.decrees[decree]),
            peer=holder.peer,
            store=holder.store,
        )
        return sign(vote, self._keys[holder.peer]).signed

    def _certificate(self, path: Path, ballot: int, decree: int, voters: tuple[int, ...]) -> Certificate:
        site = self.site(path)
        votes = tuple(self.certificate_vote(path, ballot, decree, place) for place in voters)
        return Certificate(ballot=site.ballots[ballot], decree=site.decrees[decree], votes=votes)

    def _decides(self, path: Path, ballot: int, decree: int, voters: tuple[int, ...]) -> bool:
        """Whether these votes decide: the proposer that counts them and whoever checks the chain agree on it."""
        site = self.site(path)
        proposer = self.rules.proposer(site.ballots[ballot], site.configuration.peers)
        certificate = self._certificate(path, ballot, decree, voters)
        counted = [
            proposer.take_vote(site.configuration.peers[place], vote)
            for place, vote in zip(voters, certificate.votes, strict=True)
        ]
        try:
            valid = self._chain(path).extend([certificate])
        except RemoteProtocolError:
            valid = False
        assert (sum(counted) == 1) == any(counted) == valid, certificate
        return valid

    def _decided(self, register: Register) -> frozenset[int]:
        """The decrees with a majority of votes in one ballot."""
        decided = set()
        for ballot, decree in {said for column in register.columns for said in column.votes}:
            voters = self.rules.counted(register, ballot, decree)
            if self.decides(register.path, ballot, decree, voters):
                decided.add(decree)
                for later in range(ballot + 1, len(register.proposals)):
                    if register.proposals[later] - {decree}:
                        self.faults.add("a ballot after the decisive one proposes another decree")
        return frozenset(decided)

    # -- one object, one step

    def _acceptor(self, site: Site, promised: int, voted: Said | None) -> Acceptor:
        return self.rules.acceptor(site.ballots[promised], site.voted(voted))

    def _promise(self, path: Path, promised: int, voted: Said | None, ballot: int) -> tuple[int, Said | None] | None:
        """What is promised then and what is said of the vote; None if the acceptor refuses."""
        site = self.site(path)
        acceptor = self._acceptor(site, promised, voted)
        agreed = acceptor.promise(site.ballots[ballot])
        now = site.ballot_numbers[acceptor.promised]
        self._judge(site.said(acceptor.voted) == voted, "a promise touches the vote")
        self._judge(now >= promised, "a promise is taken back")
        self._judge(now == (ballot if agreed else promised), "what is answered is not what is written")
        return (now, site.said(self.rules.report(acceptor))) if agreed else None

    def _vote(self, path: Path, promised: int, voted: Said | None, ballot: int, decree: int) -> int | None:
        """What is promised after the vote; None if the acceptor refuses."""
        site = self.site(path)
        acceptor = self._acceptor(site, promised, voted)
        agreed = acceptor.vote(site.ballots[ballot], site.decrees[decree])
        now = site.ballot_numbers[acceptor.promised]
        self._judge(now >= promised, "a vote takes a promise back")
        self._judge(not agreed or ballot >= promised, "a vote below the promise")
        self._judge(not agreed or now == ballot, "a vote that is no promise")
        said = site.said(acceptor.voted)
        self._judge(said == ((ballot, decree) if agreed else voted), "what is answered is not what is written")
        return now if agreed else None

    def _proposed(
        self, path: Path, ballot: int, owns: bool, heard: tuple[tuple[int, Said | None], ...], fixed: int | None
    ) -> frozenset[int]:
        """What a ballot may propose that heard these promises, each with its holder's place."""
        site = self.site(path)
        proposed = set()
        for choice in site.choices[ballot]:
            proposer = self.rules.proposer(site.ballots[ballot], site.configuration.peers, owns=owns)
            for place, report in heard:
                proposer.take_promise(site.configuration.peers[place], site.voted(report))
            if not proposer.elected:
                break
            proposer.proposal = None if fixed is None else site.decrees[fixed]
            decree = proposer.propose(site.decrees[choice])
            self._judge(proposer.propose(site.decrees[0]) == decree, "a proposer changes its mind")
            proposed.add(site.decree_numbers[decree])
        return frozenset(proposed)

    def _judge(self, kept: bool, fault: str) -> None:
        if not kept:
            self.faults.add(fault)

    # -- one register

    def first(self, path: Path) -> Register:
        site = self.site(path)
        column = Column(site.ballot_numbers[site.configuration.first_ballot], None, frozenset(), frozenset())
        return Register(path, (frozenset(),) * len(site.ballots), (column,) * len(site.configuration.holders))

    def steps(self, register: Register, before: Register | None = None) -> Iterator[tuple[str, Register]]:
        """Everything that can happen next and changes something."""
        for place, column in enumerate(register.columns):
            if self.symmetric and column in register.columns[:place]:
                continue
            for text, after in self._holder_steps(register, column):
                if after != column:
                    columns = (*register.columns[:place], after, *register.columns[place + 1 :])
                    yield f"holder {place} {text}", self._folded(register._replace(columns=columns))
        for ballot in range(len(register.proposals)):
            for decree in self._proposals(register, ballot, before) - register.proposals[ballot]:
                yield f"ballot {ballot} proposes {decree}", self._propose(register, ballot, decree)

    def _holder_steps(self, register: Register, column: Column) -> Iterator[tuple[str, Column]]:
        path, site = register.path, self.site(register.path)
        for ballot, proposals in enumerate(register.proposals):
            promise = self.promise(path, column.promised, column.voted, ballot)
            if promise is not None and site.ballots[ballot] != site.configuration.first_ballot:
                # to a ballot that has proposed no promise makes a difference any more
                sent = column.promises if proposals else column.promises | {(ballot, promise[1])}
                yield f"promises {ballot}", column._replace(promised=promise[0], promises=sent)
            for decree in proposals:
                promised = self.vote(path, column.promised, column.voted, ballot, decree)
                if promised is not None:
                    said = (ballot, decree)
                    if any(other != said and other[0] == ballot for other in column.votes):
                        self.faults.add("two votes of one holder in one ballot")
                    votes = column.votes | {said}
                    yield f"votes for {decree} in {ballot}", column._replace(promised=promised, voted=said, votes=votes)
        acceptor = self._acceptor(site, column.promised, column.voted)
        left = self.rules.restarted(acceptor, site.configuration.first_ballot)
        if left is not acceptor:
            promised = site.ballot_numbers[left.promised]
            yield "restarts", column._replace(promised=promised, voted=site.said(left.voted))

    def _proposals(self, register: Register, ballot: int, before: Register | None) -> frozenset[int]:
        owns = self.rules.owns(self.site(register.path), ballot, before)
        fixed = next(iter(register.proposals[ballot]), None) if self.rules.leads_once else None
        heard: list[list[tuple[int, Said | None] | None]] = [
            [None, *((place, report) for to, report in column.promises if to == ballot)]
            for place, column in enumerate(register.columns)
        ]
        proposed: frozenset[int] = frozenset()
        for some in product(*heard):
            promises = tuple(promise for promise in some if promise is not None)
            proposed |= self.proposed(register.path, ballot, owns, promises, fixed)
        return proposed

    def _propose(self, register: Register, ballot: int, decree: int) -> Register:
        proposals = register.proposals[ballot] | {decree}
        if len(proposals) > 1:
            self.faults.add("two proposals in one ballot")
        columns = tuple(
            column._replace(promises=frozenset(sent for sent in column.promises if sent[0] != ballot))
            for column in register.columns
        )
        every = (*register.proposals[:ballot], proposals, *register.proposals[ballot + 1 :])
        return self._folded(Register(register.path, every, columns))

    def _folded(self, register: Register) -> Register:
        return folded(register) if self.symmetric else register

    def opens(self, register: Register) -> frozenset[int]:
        """The changes of holders that are in effect."""
        if len(register.path) + 1 == len(self.space.ballots):
            return frozenset()
        decrees = self.site(register.path).decrees
        effective = self.rules.in_effect(register, self.decided(register))
        return frozenset(decree for decree in effective if isinstance(decrees[decree], Next))

    # -- all registers: a state is their numbers, packed into one integer

    def _number(self, register: Register) -> int:
        number = self._numbers.get(register)
        if number is None:
            self._registers.append(register)
            number = self._numbers[register] = len(self._registers)
            assert number < 1 << BITS
        return number

    def registers(self, number: int) -> set[Register]:
        """What was found of the configurations with this number."""
        return {register for register in self._registers if len(register.path) == number}

    def unpack(self, state: int) -> list[Register]:
        numbers = []
        while state:
            numbers.append(state & ((1 << BITS) - 1))
            state >>= BITS
        return [self._registers[number - 1] for number in numbers]

    def _register_moves(self, number: int, before: int) -> tuple[list[int], list[int]]:
        """What a step of this register adds to the state; apart, the steps that decide something."""
        register = self._registers[number - 1]
        depth = len(register.path)
        quiet: set[int] = set()
        decisive: set[int] = set()
        for _, after in self.steps(register, self._registers[before - 1] if before else None):
            move = (self._number(after) - number) << BITS * depth
            if self.opens(register):
                opened = []
            else:
                opened = [self._number(self.first((*register.path, decree))) for decree in self.opens(after)]
            moves = [move + (other << BITS * (depth + 1)) for other in opened] or [move]
            (quiet if self.decided(after) == self.decided(register) else decisive).update(moves)
        return sorted(quiet), sorted(decisive)

    def moves(self, state: int) -> Iterator[tuple[list[int], list[int]]]:
        before = 0
        rest = state
        while rest:
            number = rest & ((1 << BITS) - 1)
            key = (number, before if self.rules.looks_back else 0)
            moves = self._moves.get(key)
            if moves is None:
                moves = self._moves[key] = self._register_moves(*key)
            yield moves
            before = number
            rest >>= BITS

    def outcome(self, registers: list[Register]) -> tuple[frozenset[str], ...]:
        """What is decided in each configuration."""
        return tuple(
            frozenset(self._name(register.path, decree) for decree in self.decided(register)) for register in registers
        )

    def _name(self, path: Path, decree: int) -> str:
        ballots = len(self.site(path).ballots)
        return f"end {decree}" if decree < ballots else f"change {decree - ballots}"

    @staticmethod
    def disagree(outcome: tuple[frozenset[str], ...]) -> bool:
        """Whether a register has decided twice, or the job has ended twice."""
        ends = [name for names in outcome for name in names if name.startswith("end")]
        return len(ends) > 1 or any(len(names) > 1 for names in outcome)

    def search(self, states_max: int | None = None) -> Found:
        """Every state there is, nearest first, up to one in which the holders disagree."""
        start = self._number(self.first(()))
        seen = {start}
        levels = [[start]]
        outcomes: set[tuple[str, ...]] = set()
        while levels[-1]:
            following: list[int] = []
            for state in levels[-1]:
                for quiet, decisive in self.moves(state):
                    for move in quiet:
                        if (after := state + move) not in seen:
                            seen.add(after)
                            following.append(after)
                    for move in decisive:
                        if (after := state + move) not in seen:
                            seen.add(after)
                            following.append(after)
                            outcome = self.outcome(self.unpack(after))
                            if self.disagree(outcome):
                                trace = self._trace(levels, after)
                                return Found(len(seen), len(levels), trace, frozenset(outcomes))
                            outcomes.add(tuple(name for names in outcome for name in names))
            assert states_max is None or len(seen) <= states_max, f"more than {states_max} states"
            levels.append(following)
        return Found(len(seen), len(levels) - 2, None, frozenset(outcomes))

    def _trace(self, levels: list[list[int]], last: int) -> list[str]:
        """One of the shortest ways to a state, told in words."""
        texts: list[str] = []
        for level in reversed(levels):
            state = next(
                state for state in level if any(last - state in part for moves in self.moves(state) for part in moves)
            )
            texts.append(self._told(self.unpack(state), self.unpack(last)))
            last = state
        return texts[::-1]

    def _told(self, old: list[Register], new: list[Register]) -> str:
        place = next(place for place, register in enumerate(old) if register != new[place])
        steps = self.steps(old[place], old[place - 1] if place else None)
        return f"{place}: " + next(text for text, after in steps if after == new[place])

    # -- one way through a space that is too large for all of them

    def walk(self, rng: Random) -> list[Register]:
        """Chance steps, until nothing can happen any more."""
        self.decided.cache_clear()
        registers = [self.first(())]
        while True:
            steps = []
            for place, register in enumerate(registers):
                steps += [(place, after) for _, after in self.steps(register, registers[place - 1] if place else None)]
            if not steps:
                return registers
            place, after = rng.choice(steps)
            registers[place] = after
            assert not self.disagree(self.outcome(registers))
            if place == len(registers) - 1 and (opened := sorted(self.opens(after))):
                registers.append(self.first((*after.path, rng.choice(opened))))


def folded(register: Register) -> Register:
    """The holders in the order of what they did."""
    return register._replace(columns=tuple(sorted(register.columns, key=_rank)))


def _rank(column: Column) -> tuple[object, ...]:
    promises = sorted((to, said or (-1, -1)) for to, said in column.promises)
    return (column.promised, column.voted or (-1, -1), promises, sorted(column.votes))
