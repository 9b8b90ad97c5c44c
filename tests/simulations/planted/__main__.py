"""Command line: ``python -m tests.simulations.planted``. Exit status 0 if every bug was found, 1 if not."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.simulations.planted.registry import BUGS
from tests.simulations.planted.report import page
from tests.simulations.planted.runner import Found, hunt_all


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulations.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=sorted(BUGS), metavar="NAME", help="may be given repeatedly")
    parser.add_argument("--all", action="store_true", help="go on after the first seed that finds a bug")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="name the bugs and end")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write a page about all that were tried, in Markdown"
    )
    given = parser.parse_args(arguments)
    if given.all and given.report is not None:
        parser.error("a report is about hunts that end with the first find: without --all")
    if given.list:
        for bug in BUGS.values():
            print(f"{bug.name:42} {bug.what}")
        return 0
    names = given.only or list(BUGS)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    results: list[Found] = []
    for found in hunt_all(names, seeds, every_seed=given.all, processes=given.processes):
        results.append(found)
        if given.json:
            print(json.dumps(found._asdict()), flush=True)
        else:
            where = f"first by seed {found.first_seed}" if found.found else "NOT FOUND"
            print(f"{found.name:42} {found.found} of {found.seeds} seeds, {where}  {found.seconds:.1f} s", flush=True)
            if found.problem:
                print(f"{'':42} {found.problem}", flush=True)
    if given.report is not None:
        again = shlex.join(
            ["python", "-m", "tests.simulations.planted", *(sys.argv[1:] if arguments is None else arguments)]
        )
        given.report.write_text(page(results, again))
    count = sum(one.found > 0 for one in results)
    if not given.json:
        print(f"{count} of {len(names)} bugs found")
    return 0 if count == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
