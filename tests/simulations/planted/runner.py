"""Looks for each planted bug in the worlds of many seeds, on several processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from simulations.options import draw
from simulations.simulation import simulate
from tests.simulations.planted import mesh, record, steward, word, work
from tests.simulations.planted.registry import BUGS

MODULES = (mesh, record, word, work, steward)
"""Each registers its bugs when it is imported, which happens in every process."""


class Found(NamedTuple):
    """How one bug fared."""

    name: str
    seeds: int
    """Worlds tried."""
    found: int
    first_seed: int | None
    problem: str
    """What the first world that failed broke."""
    seconds: float
    version: str = ""
    """Of the code, once it is kept."""


def hunt(name: str, seeds: range, *, every_seed: bool = False) -> Found:
    """Try one bug in the worlds of ``seeds``, up to the first that finds it, or in all of them."""
    began, tried, found = time.perf_counter(), 0, 0
    first_seed, problem = None, ""
    for seed in seeds:
        tried += 1
        with BUGS[name].plant():
            result, _ = simulate(draw(seed))
        if result.passed or not simulate(draw(seed))[0].passed:
            continue  # a world that fails anyway has found nothing
        found += 1
        if first_seed is None:
            first_seed, problem = seed, result.problem
        if not every_seed:
            break
    return Found(name, tried, found, first_seed, problem, time.perf_counter() - began)


def hunt_all(names: Sequence[str], seeds: range, *, every_seed: bool, processes: int) -> Iterator[Found]:
    """In the order of the names; each bug is one task, as a mutation holds for its whole process."""
    if processes == 1:
        yield from (hunt(name, seeds, every_seed=every_seed) for name in names)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(partial(hunt, seeds=seeds, every_seed=every_seed), names)
