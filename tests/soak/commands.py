"""Parts that are commands which are there anyway, only with more of everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import FIGURES_FILE
from tests.simulations.planted.runner import BUGS
from tests.soak.pieces import Json, RunPiece

TAIL_CHARS = 2000
SEEDS = 20_000
SEEDS_PER_PIECE = 500
PLANTED_SEEDS = 1000
MOMENTS = 20
PARTIES = ("steward", "witness-1", "witness-2", "worker", "submitter")
STORMS = 20


@dataclass(frozen=True)
class Command:
    words: tuple[object, ...]
    """After the interpreter."""
    environment: Mapping[str, str] = field(default_factory=dict)


class CommandPart:
    """Each piece is a command; it is good if the command says so by its exit status."""

    def __init__(
        self, name: str, commands: Mapping[str, Command], summary: Callable[[Sequence[Json]], Json] = lambda results: {}
    ) -> None:
        self.name = name
        self.pieces = tuple(commands)
        self._commands = commands
        self._summary = summary

    @contextmanager
    def running(self, folder: Path) -> Iterator[RunPiece]:
        yield lambda piece: _run(self._commands[piece], folder / f"{piece}.figures", folder / f"{piece}.log")

    def summary(self, results: Sequence[Json]) -> Json:
        return {"ok": all(result["ok"] for result in results), **self._summary(results)}


def _run(command: Command, figures: Path, log: Path) -> Json:
    """Run it here; all it says is kept if it failed, its figures in any case."""
    figures.unlink(missing_ok=True)  # of a run that was interrupted
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *map(str, command.words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **command.environment, FIGURES_FILE: str(figures)},
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate()
        except BaseException:  # the soak is told to stop: its command has processes of its own
            os.killpg(process.pid, signal.SIGKILL)
            raise
    ok = process.returncode == 0
    if not ok:
        log.write_text(text)
    return {
        "ok": ok,
        "command": " ".join(map(str, command.words)),
        "seconds": round(time.monotonic() - began, 1),
        "figures": [json.loads(line) for line in figures.read_text().splitlines()] if figures.exists() else [],
        "said": _last_object(text),
        "tail": "" if ok else text[-TAIL_CHARS:],
    }


def _last_object(text: str) -> Json | None:
    """The JSON object that a command with ``--json`` prints in one line, among whatever else it says."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                value: Json = json.loads(line)
            except ValueError:
                continue
            return value
    return None


# -- the parts ---------------------------------------------------------------------------------------------------------


def seeds(scale: float) -> CommandPart:
    """Worlds of the simulator, each drawn from its seed."""
    count = max(1, round(SEEDS * scale))
    firsts = range(1, count + 1, SEEDS_PER_PIECE)
    sizes = {first: min(SEEDS_PER_PIECE, count + 1 - first) for first in firsts}
    words = ("-m", "simulations", "explore", "--json")
    commands = {
        f"{first:05}": Command((*words, "--first-seed", first, "--seeds", size)) for first, size in sizes.items()
    }
    return CommandPart("seeds", commands, _of_seeds)


def _of_seeds(results: Sequence[Json]) -> Json:
    said = [result["said"] or {} for result in results]
    faults: Counter[str] = Counter()
    for one in said:
        faults.update(one.get("faults", {}))
    return {
        "seeds": sum(one.get("seeds", 0) for one in said),
        "failed_seeds": [seed for one in said for seed in one.get("failed", [])],
        "events": sum(one.get("events", 0) for one in said),
        "faults": dict(sorted(faults.items())),
    }


def register(scale: float) -> CommandPart:
    """Every state of larger registers: minutes and 3 GB, the same at every scale."""
    return CommandPart(
        "register", {"all": Command(("-m", "pytest", "tests/protocol/test_register_model.py"), {"SOAK": "1"})}
    )


def planted(scale: float) -> CommandPart:
    """Bugs planted in the core, each of which the simulator's rules must find."""
    count = max(1, round(PLANTED_SEEDS * scale))
    words = ("-m", "tests.simulations.planted", "--json", "--seeds", count, "--only")
    return CommandPart("planted", {name: Command((*words, name)) for name in BUGS}, _of_planted)


def _of_planted(results: Sequence[Json]) -> Json:
    hunted = [result["said"] or {} for result in results]
    found = [one for one in hunted if one.get("found")]
    return {
        "bugs_found": len(found),
        "bugs_not_found": [result["command"].split()[-1] for result in results if not result["ok"]],
        "first_seed_max": max((one["first_seed"] for one in found), default=None),
    }


def any_party(scale: float) -> CommandPart:
    """Each party of a job killed for good, at many moments."""
    environment = {"INFRA_MOMENTS": str(max(1, round(MOMENTS * scale)))}
    words = ("-m", "pytest", "tests/e2e/test_any_party.py", "-k")
    commands = {party: Command((*words, f"outlives and {party}"), environment) for party in PARTIES}
    return CommandPart("any-party", commands, _of_parties)


def _of_parties(results: Sequence[Json]) -> Json:
    cases = [case for result in results for case in result["figures"]]
    takeovers = [case["takeover_s"] for case in cases if "takeover_s" in case]
    return {
        "jobs_that_outlived": dict(Counter(case["party"] for case in cases)),
        "takeover_s_max": max(takeovers, default=None),
        "wasted_executions": sum(case["wasted_executions"] for case in cases),
    }


def chaos(scale: float) -> CommandPart:
    """Storms over eight nodes, one drawn from each seed."""
    count = max(1, round(STORMS * scale))
    commands = {
        f"{seed:03}": Command(("-m", "pytest", "tests/e2e/test_chaos.py"), {"CI": "true", "CHAOS_SEED": str(seed)})
        for seed in range(1, count + 1)
    }
    return CommandPart("chaos", commands, _of_storms)


def _of_storms(results: Sequence[Json]) -> Json:
    storms = [storm for result in results for storm in result["figures"]]
    return {"storms": len(storms)} | {
        key: sum(storm[key] for storm in storms)
        for key in ("jobs", "shards", "wasted_executions", "replayed_starts", "replayed_events")
    }
