"""One run of one world, from the first peer's start to a verdict.

Two phases, as in TigerBeetle's VOPR: *safety*, while faults happen and nothing wrong may; then *liveness*, without
faults, in which all must come right. A run ends with a verdict, never by running out of something unnoticed.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from protocol.clock import NS_PER_MS, NS_PER_S
from protocol.peer import Peer
from simulations import final
from simulations.errors import Violation
from simulations.options import Options
from simulations.report import Figures, figures_of
from simulations.world import World

_POLL_NS = NS_PER_S
_MARGIN_MS = 5_000


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a run."""

    options: Options
    passed: bool
    problem: str
    """The rule that was broken, and by what; "" if none was."""
    rule: str = ""
    """Its name alone, or where an exception came from."""
    trace_hash: str
    faults: dict[str, int]
    """How often each enabled kind of fault happened."""
    figures: Figures


class _Enough(Exception):
    """The run has gone on for as long as anybody wants to know."""


def simulate(options: Options, build_peer: Callable[..., Any] = Peer, until: int | None = None) -> tuple[Result, World]:
    """Run the world of ``options`` to its end, or until a time in nanoseconds."""
    world = World(options, build_peer)
    began, began_cpu = time.perf_counter(), time.process_time()
    problem = rule = ""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        if until is not None:
            world.agenda.at(until, _stop)
        _run(world)
    except _Enough:
        pass
    except Violation as violation:
        rule = violation.rule
        problem = f"{violation} (at {world.agenda.now / NS_PER_S:.3f} s)"
    except Exception as error:  # a peer must never raise, whatever it is fed
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        rule = f"{type(error).__name__} in {place}"
        problem = f"raised: {error!r} in {place} (at {world.agenda.now / NS_PER_S:.3f} s)"
    finally:
        gc.enable()
        gc.unfreeze()
    real_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    result = Result(
        options=options,
        passed=not problem,
        problem=problem,
        rule=rule,
        trace_hash=world.trace.hash,
        faults={kind: world.faults.counts[kind] for kind in world.faults.enabled()},
        figures=figures_of(world, real_s, cpu_s),
    )
    return result, world


def _stop() -> None:
    raise _Enough


def _run(world: World) -> None:
    options, agenda = world.options, world.agenda
    for index in range(options.peers):
        machine = world.machines.add()
        starts_at = 0 if index == 0 else int(machine.rng.uniform(0.0, options.join_s) * NS_PER_S)
        agenda.at(starts_at, world.machines.start, machine)
    world.workload.plan()
    world.disruptions.plan()
    agenda.run_until(int(options.faults_s * NS_PER_S))
    while not world.disruptions.over:
        agenda.run_until(agenda.now + _POLL_NS)

    patience = agenda.now + int(options.patience_s * NS_PER_S)
    while agenda.now < patience and not (world.workload.settled and final.is_quiet(world)):
        agenda.run_until(agenda.now + _POLL_NS)
    final.check_jobs(world)
    final.check_quiet(world)

    settle_ms = options.limits.capability_lifetime_ms + _MARGIN_MS
    if options.faults.liar or options.faults.clock_jump_per_s:  # some may be ignored for a while
        settle_ms += options.limits.banned_ms
    agenda.run_until(agenda.now + settle_ms * NS_PER_MS)
    final.check_mesh(world)
    final.check_lookups(world)
    final.check_jobs(world)
    final.check_records(world)
    final.check_workers(world)
    final.check_outputs(world)
    final.check_quiet(world)
