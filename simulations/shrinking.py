"""From a failing world to a small one that breaks the same rule: fewer faults, jobs, peers, less time.

Faults are numbered decisions (``decisions.py``), so a world can be run again with any subset of them. Delta debugging
(Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002) over that list: whole kinds first,
then halves, quarters, down to single ones. A world with less in it is another world, so each candidate is simply tried,
and kept if it fails as the first one did. Not minimal for certain, but short, and found within a stated number of runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from protocol.clock import NS_PER_S
from protocol.peer import Peer
from simulations.decisions import Fired, Key
from simulations.options import Options
from simulations.simulation import Result, simulate

RUNS_MAX = 200
_PEERS_MIN = 4
_LATER = 1.5
_LATER_NS = 10 * NS_PER_S
"""A candidate has so much more time to fail than what it came from, and is given up then."""

BuildPeer = Callable[..., Any]


class Shrunk(msgspec.Struct, frozen=True):
    """What is left of a failing world."""

    options: Options
    result: Result
    schedule: tuple[Fired, ...]
    """The faults that are left, in the order in which they took effect."""
    runs: int


class _Failure:
    """One world that fails."""

    def __init__(self, options: Options, result: Result, fired: list[Fired], drawn: list[Key], ended: int) -> None:
        self.options = options
        self.result = result
        self.fired = fired
        self.drawn = drawn
        self.ended = ended


def shrink(options: Options, *, runs_max: int = RUNS_MAX, build_peer: BuildPeer = Peer) -> Shrunk | None:
    """The smallest world found that breaks the rule which the world of ``options`` breaks; None if it breaks none."""
    shrinker = _Shrinker(runs_max, build_peer)
    best = shrinker.run(options, until=None)
    if best is None:
        return None
    best = shrinker.shrink(best)
    return Shrunk(best.options, best.result, tuple(best.fired), shrinker.runs)


class _Shrinker:
    def __init__(self, runs_max: int, build_peer: BuildPeer) -> None:
        self._runs_max = runs_max
        self._build_peer = build_peer
        self._rule = ""
        self.runs = 0

    def run(self, options: Options, until: int | None) -> _Failure | None:
        """The failure of this world, if it is the one that is looked for; the first one is."""
        self.runs += 1
        result, world = simulate(options, self._build_peer, until)
        if result.passed or (self._rule and result.rule != self._rule):
            return None
        self._rule = result.rule
        return _Failure(options, result, world.faults.fired, world.faults.drawn, world.agenda.now)

    def shrink(self, best: _Failure) -> _Failure:
        best = self._time(best)
        best = self._size(best)
        best = self._faults(best)
        before = -1
        while before != len(best.fired) and not self._spent:
            before = len(best.fired)
            best = self._faults(self._size(self._time(best)))
        return best

    @property
    def _spent(self) -> bool:
        return self.runs >= self._runs_max

    def _try(self, best: _Failure, **changed: object) -> _Failure | None:
        if self._spent:
            return None
        options = msgspec.structs.replace(best.options, **changed)
        if options == best.options:
            return None
        return self.run(options, int(best.ended * _LATER) + _LATER_NS)

    def _time(self, best: _Failure) -> _Failure:
        """No faults after the failure, or after the last one that happened."""
        last = min(best.ended, max((one.at for one in best.fired), default=0))
        seconds = float(math.ceil(last / NS_PER_S) + 1)
        if seconds < best.options.faults_s:
            best = self._try(best, faults_s=seconds) or best
        return best

    def _size(self, best: _Failure) -> _Failure:
        """Fewer jobs, fewer peers: the boldest first."""
        for field, least in (("jobs", 1), ("peers", _PEERS_MIN)):
            for smaller in _from_bold_to_shy(getattr(best.options, field), least):
                found = self._try(best, **{field: smaller})
                if found is not None:
                    best = found
                    break
        return best

    def _faults(self, best: _Failure) -> _Failure:
        """Delta debugging over what happened; over all that was drawn, if what came to nothing mattered too."""
        for keys in (tuple(one.key for one in best.fired), tuple(best.drawn)):
            found = self._try(best, only=keys)
            if found is not None:
                return self._single(self._kinds(found))
            if best.options.only is not None:
                return self._single(self._kinds(best))
        return best

    def _kinds(self, best: _Failure) -> _Failure:
        """Without all faults of one kind."""
        for kind in dict.fromkeys(one.key[0] for one in best.fired):
            keys = tuple(key for key in best.options.only or () if key[0] != kind)
            best = self._try(best, only=keys) or best
        return best

    def _single(self, best: _Failure) -> _Failure:
        """Without ever smaller parts of the list, until no single one can be spared."""
        keys = best.options.only or ()
        size = len(keys)  # perhaps no fault is needed at all
        while keys and not self._spent:
            position, spared = 0, False
            while position < len(keys) and not self._spent:
                found = self._try(best, only=keys[:position] + keys[position + size :])
                if found is None:
                    position += size
                else:
                    best, spared = found, True
                    fired = {one.key for one in found.fired}
                    keys = tuple(key for key in found.options.only or () if key in fired) or found.options.only or ()
                    if keys != found.options.only:
                        best = self._try(best, only=keys) or best
                        keys = best.options.only or ()
            if size == 1 and not spared:
                break
            size = max(1, min(size // 2, len(keys) // 2))
        return best


def _from_bold_to_shy(value: int, least: int) -> Iterator[int]:
    """Smaller numbers to try in place of ``value``: the least, then halfway up from there."""
    tried = least
    while tried < value:
        yield tried
        tried = max(tried + 1, (tried + value + 1) // 2)
        if tried == value - 1:
            yield tried
            return


# -- as a file


def as_document(shrunk: Shrunk) -> dict[str, Any]:
    """What ``replay --schedule`` reads, and people too."""
    return {
        "problem": shrunk.result.problem,
        "schedule": [{"at_s": one.at / NS_PER_S, "kind": one.key[0], "where": one.where} for one in shrunk.schedule],
        "options": msgspec.to_builtins(shrunk.options),
    }


def options_in(document: bytes) -> Options:
    """The world that a schedule file describes; msgspec.DecodeError if it describes none."""
    return msgspec.json.decode(document, type=_Document).options


class _Document(msgspec.Struct):
    options: Options


def as_text(shrunk: Shrunk) -> str:
    """The schedule for people: time, place, kind."""
    options = shrunk.options
    lines = [f"{one.at / NS_PER_S:10.3f} s  {one.key[0]:18} {one.where}" for one in shrunk.schedule]
    return "\n".join(
        (
            f"{len(lines)} faults are left, {options.peers} peers, {options.jobs} jobs, after {shrunk.runs} runs:",
            *lines,
            f"→ {shrunk.result.problem}",
        )
    )
