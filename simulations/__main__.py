"""Command line of the simulator: ``python -m simulations run | explore | replay | makespan | scale``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from simulations import scale
from simulations.makespan import PEERS as MAKESPAN_PEERS
from simulations.makespan import Makespan, measure, summary_of
from simulations.options import draw
from simulations.report import as_json, as_text
from simulations.scenarios import SCENARIOS
from simulations.scenarios.uneven import WORK_SIGMA
from simulations.shrinking import RUNS_MAX, Shrunk, as_document, options_in, shrink
from simulations.shrinking import as_text as schedule_text
from simulations.simulation import Result, simulate
from simulations.world import World

_TAIL_LINES = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 passed, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="one named world")
    run.add_argument("scenario", choices=sorted(SCENARIOS))
    run.add_argument("--seed", type=_natural, default=1)
    run.add_argument("--peers", type=_positive, default=200)
    run.add_argument("--jobs", type=_positive, default=4)
    run.add_argument("--real-crypto", action="store_true", help="Ed25519 instead of a keyed hash")
    run.add_argument("--out", type=Path, metavar="DIR", help="write options, result and last events there")
    run.add_argument("--json", action="store_true")

    explore = commands.add_parser("explore", help="many small worlds, one drawn from each seed")
    explore.add_argument("--seeds", type=_positive, default=100)
    explore.add_argument("--first-seed", type=_natural, default=1)
    explore.add_argument("--jobs-parallel", type=_positive, default=2, metavar="N", help="processes")
    explore.add_argument("--shrink", action="store_true", help="look for a smaller world for each seed that fails")
    explore.add_argument("--budget", type=_positive, default=RUNS_MAX, metavar="RUNS", help="of shrinking, a seed")
    explore.add_argument("--out", type=Path, metavar="DIR", help="where schedules are written; here by default")
    explore.add_argument("--json", action="store_true")

    replay = commands.add_parser("replay", help="one world of an exploration again, with its last events")
    replay.add_argument("seed", type=_natural, nargs="?")
    replay.add_argument("--schedule", type=Path, metavar="FILE", help="a world that was shrunk, in place of a seed")
    replay.add_argument("--shrink", action="store_true", help="look for a smaller world that fails in the same way")
    replay.add_argument("--budget", type=_positive, default=RUNS_MAX, metavar="RUNS", help="of shrinking")
    replay.add_argument("--real-crypto", action="store_true")
    replay.add_argument("--tail", type=_natural, default=_TAIL_LINES, metavar="LINES", help="events shown on failure")
    replay.add_argument("--out", type=Path, metavar="DIR")
    replay.add_argument("--json", action="store_true")

    makespan = commands.add_parser("makespan", help="jobs on uneven machines, against what no scheduler could beat")
    makespan.add_argument("--seeds", type=_positive, default=100)
    makespan.add_argument("--first-seed", type=_natural, default=1)
    makespan.add_argument("--peers", type=_positive, default=MAKESPAN_PEERS)
    makespan.add_argument("--sigma", type=float, default=WORK_SIGMA, help="of the logarithm of a shard's work")
    makespan.add_argument("--jobs-parallel", type=_positive, default=2, metavar="N", help="processes")
    makespan.add_argument("--json", action="store_true")
    scale.add_command(commands.add_parser("scale", help="what the same work costs each peer of meshes of many sizes"))

    given = parser.parse_args(arguments)
    if given.command == "scale":
        return scale.command(given)
    if given.command == "explore":
        failed, status = _explore(given.first_seed, given.seeds, given.jobs_parallel, as_object=given.json)
        if given.shrink:
            _shrink_all(failed, given.jobs_parallel, given.budget, given.out)
        return status
    if given.command == "makespan":
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        return _makespan(seeds, given.peers, given.sigma, given.jobs_parallel, as_object=given.json)
    if given.command == "run":
        options = SCENARIOS[given.scenario](given.seed, given.peers, given.jobs)
        again = (
            f"python -m simulations run {given.scenario} --peers {given.peers} --seed {given.seed} --jobs {given.jobs}"
        )
        tail = 0
    else:
        if (given.seed is None) == (given.schedule is None):
            parser.error("replay takes a seed or a schedule")
        try:
            options = draw(given.seed) if given.schedule is None else options_in(given.schedule.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            parser.error(f"{given.schedule}: {error}")
        again = (
            f"python -m simulations replay {given.seed if given.schedule is None else f'--schedule {given.schedule}'}"
        )
        tail = given.tail
    if given.real_crypto:
        options = msgspec.structs.replace(options, real_crypto=True)
        again += " --real-crypto"
    result, world = simulate(options)
    if given.command == "run":
        result = _with_faults_required(result, world.faults.never_happened())
    if given.out is not None:
        _write(given.out, result, world)
    print(json.dumps(as_json(result)) if given.json else as_text(result))
    if result.passed:
        return 0
    if tail:
        print(*list(world.trace.tail())[-tail:], sep="\n", file=sys.stderr)
    print(f"replay: {again}", file=sys.stderr)
    if given.command == "replay" and given.shrink:
        shrunk = shrink(options, runs_max=given.budget)
        assert shrunk is not None, "it has just failed"
        _show(shrunk, given.out)
    return 1


def _explore(first: int, count: int, processes: int, *, as_object: bool) -> tuple[list[int], int]:
    """Run the worlds of ``count`` seeds; what must hold of all of them together is checked at the end.

    Returns the seeds that failed, and the exit status.
    """
    failed: list[int] = []
    fired: Counter[str] = Counter()
    enabled: Counter[str] = Counter()
    events, runs, wasted = 0, 0, 0
    simulated_s, real_s, cpu_s = 0.0, 0.0, 0.0
    for seed, result in _results(range(first, first + count), processes):
        fired.update(result.faults)
        enabled.update(dict.fromkeys(result.faults, 1))
        events += result.figures.events
        runs += result.figures.runs
        wasted += result.figures.wasted_runs
        simulated_s += result.figures.simulated_s
        real_s += result.figures.real_s
        cpu_s += result.figures.cpu_s
        if not result.passed:
            failed.append(seed)
            print(f"seed {seed} FAILED: {result.problem}", file=sys.stderr)
            print(f"  replay: python -m simulations replay {seed}", file=sys.stderr, flush=True)
    inert = sorted(kind for kind in enabled if not fired[kind])
    if inert:
        print(f"FAILED: enabled but never happened: {', '.join(inert)}", file=sys.stderr)
    if as_object:
        summary = {
            "seeds": count,
            "first_seed": first,
            "failed": failed,
            "faults": dict(sorted(fired.items())),
            "inert_faults": inert,
            "runs": runs,
            "wasted_runs": wasted,
            "events": events,
            "events_per_s": events / cpu_s,
            "simulated_s": simulated_s,
            "acceleration": simulated_s / cpu_s,
            "real_acceleration": simulated_s / real_s,
        }
        print(json.dumps(summary))
    else:
        print("faults: " + (", ".join(f"{kind} {fired[kind]}" for kind in sorted(fired)) or "none"))
        print(f"executions: {runs} to their end, {wasted} of them again ({wasted / max(runs, 1):.1%})")
        print(
            f"{count} seeds, {len(failed)} failed: {events} events at {events / cpu_s:.0f} events/s of one core, "
            f"simulated time {simulated_s / cpu_s:.0f} times processor time, {simulated_s / real_s:.0f} times real time"
        )
    return failed, 1 if failed or inert else 0


def _results(seeds: range, processes: int) -> Iterator[tuple[int, Result]]:
    """In the order of the seeds, whichever process is first."""
    if processes == 1:
        yield from zip(seeds, map(_result, seeds), strict=True)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(seeds, pool.map(_result, seeds, chunksize=2), strict=True)


def _result(seed: int) -> Result:
    return simulate(draw(seed))[0]


def _shrink_all(failed: list[int], processes: int, budget: int, folder: Path | None) -> None:
    if not failed:
        return
    with ProcessPoolExecutor(min(processes, len(failed))) as pool:
        for shrunk in pool.map(partial(_shrunk, budget=budget), failed):
            _show(shrunk, folder)


def _shrunk(seed: int, budget: int) -> Shrunk | None:
    return shrink(draw(seed), runs_max=budget)


def _show(shrunk: Shrunk | None, folder: Path | None) -> None:
    """Write a schedule, and say how to have that run again."""
    if shrunk is None:
        return
    file = (folder or Path()) / f"schedule-{shrunk.options.seed}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(as_document(shrunk))) + b"\n")
    print(f"seed {shrunk.options.seed}: {schedule_text(shrunk)}", file=sys.stderr)
    print(f"  replay: python -m simulations replay --schedule {file}", file=sys.stderr, flush=True)


def _with_faults_required(result: Result, inert: tuple[str, ...]) -> Result:
    """A single run fails too if an enabled fault never happened: it has not shown what it set out to show."""
    if not result.passed or not inert:
        return result
    return msgspec.structs.replace(result, passed=False, problem=f"enabled but never happened: {', '.join(inert)}")


def _write(folder: Path, result: Result, world: World) -> None:
    """A folder that tells the whole run: what it was, what came of it, how it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_bytes(msgspec.json.format(msgspec.json.encode(result.options)) + b"\n")
    (folder / "result.json").write_text(json.dumps(as_json(result), indent=2) + "\n")
    (folder / "events.txt").write_text("\n".join(world.trace.tail()) + "\n")


def _makespan(seeds: range, peers: int, sigma: float, processes: int, *, as_object: bool) -> int:
    """A line for each seed, and how they compare with the bound."""
    measured: list[Makespan] = []
    with ProcessPoolExecutor(processes) as pool:
        for one in pool.map(partial(measure, peers=peers, sigma=sigma), seeds):
            measured.append(one)
            if not as_object:
                verdict = f"FAILED: {one.problem}" if one.problem else f"{one.ratio:.3f} of the bound"
                print(f"seed {one.seed}: {one.took_s:.2f} s, bound {one.bound_s:.2f} s, {verdict}", flush=True)
    summary = summary_of(measured)
    if as_object:
        print(json.dumps({"benchmark": "makespan", "peers": peers, "sigma": sigma, **msgspec.to_builtins(summary)}))
    else:
        print(
            f"{summary.seeds} seeds, {summary.failed} failed: mean {summary.mean:.3f} of the bound, "
            f"95 % within {summary.p95:.3f}, worst {summary.worst:.3f} (seed {summary.worst_seed})"
        )
        print(
            f"executions: {summary.runs} to their end, {summary.wasted_runs} of them again; "
            f"{summary.second_tries} second tries"
        )
    return 1 if summary.failed else 0


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
